/**
 * A connection to whatever API server a kubeconfig file names, as client-go reads one: certificates inline or in files
 * (relative to the kubeconfig), tokens, `tls-server-name`. It refuses what would need another program (exec, auth-provider) or
 * plain HTTP, with the way out.
 */

import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { rootCertificates } from 'node:tls';
import { parse } from 'yaml';
import { failure, messageOf } from '../base/errors.ts';
import { HttpsTransport } from '../client/https-transport.ts';

interface Kubeconfig {
  clusters?: { name: string; cluster: Record<string, string | boolean> }[];
  users?: { name: string; user: Record<string, unknown> }[];
  contexts?: { name: string; context: { cluster?: string; user?: string; namespace?: string } }[];
  'current-context'?: string;
}

export interface KubeconfigConnection {
  readonly transport: HttpsTransport;
  readonly server: string;
}

/** Throws BadRequest that says what is wrong with the file. */
export function connectByKubeconfig(
  path: string,
  options: { readonly context?: string; readonly userAgent: string; readonly timeoutMs?: number },
): KubeconfigConnection {
  const stop = (problem: string): never => {
    throw failure(400, 'BadRequest', `--kubeconfig ${path}: ${problem}`);
  };
  let config: Kubeconfig;
  try {
    config = parse(readFileSync(path, 'utf8'), { version: '1.1' }) ?? {};
  } catch (error) {
    return stop(messageOf(error));
  }
  const wanted = options.context ?? config['current-context'];
  const context = config.contexts?.find(({ name }) => name === wanted)?.context;
  if (!context)
    return stop(
      wanted
        ? `there is no context "${wanted}"; there are: ${config.contexts?.map(({ name }) => name).join(', ') || 'none'}`
        : 'it names no current-context; choose one with: kubectl config use-context NAME',
    );
  const cluster = config.clusters?.find(({ name }) => name === context.cluster)?.cluster;
  if (!cluster) return stop(`there is no cluster "${context.cluster ?? ''}"`);
  const user = config.users?.find(({ name }) => name === context.user)?.user ?? {};
  const read = (from: Record<string, unknown>, key: string): string | undefined => {
    const data = from[`${key}-data`];
    if (typeof data === 'string') return Buffer.from(data, 'base64').toString('utf8');
    const file = from[key];
    if (typeof file !== 'string') return undefined;
    try {
      return readFileSync(resolve(dirname(path), file), 'utf8');
    } catch (error) {
      return stop(messageOf(error));
    }
  };
  for (const key of ['exec', 'auth-provider', 'username'])
    if (user[key] !== undefined)
      return stop(
        `user "${context.user}" signs in by ${key}, which is not supported; use a client certificate or a token`,
      );
  const server = String(cluster['server'] ?? '');
  if (!server.startsWith('https://')) return stop(`server "${server}": only https:// is supported`);
  const tokenFile = user['tokenFile'];
  const token =
    typeof tokenFile === 'string'
      ? // Read each time: it is renewed by others.
        () => readFileSync(resolve(dirname(path), tokenFile), 'utf8').trim()
      : typeof user['token'] === 'string'
        ? () => String(user['token'])
        : undefined;
  const [ca, cert, key] = [
    read(cluster, 'certificate-authority'),
    read(user, 'client-certificate'),
    read(user, 'client-key'),
  ];
  const servername = cluster['tls-server-name'];
  const transport = new HttpsTransport({
    server,
    ca: ca ?? rootCertificates.join('\n'),
    ...(cert ? { cert } : {}),
    ...(key ? { key } : {}),
    ...(token ? { token } : {}),
    ...(typeof servername === 'string' ? { servername } : {}),
    ...(cluster['insecure-skip-tls-verify'] === true ? { insecure: true } : {}),
    ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
    userAgent: options.userAgent,
  });
  return { transport, server };
}
