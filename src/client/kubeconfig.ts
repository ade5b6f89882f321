/**
 * Reads a kubeconfig file as client-go does: certificates inline or in files (relative to the kubeconfig), tokens, `tls-server-name`.
 * It refuses what would need another program (exec, auth-provider) and plain HTTP. Nothing is connected here.
 */

import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { messageOf } from '../base/errors.ts';

interface Kubeconfig {
  clusters?: { name: string; cluster: Record<string, string | boolean> }[];
  users?: { name: string; user: Record<string, unknown> }[];
  contexts?: { name: string; context: { cluster?: string; user?: string; namespace?: string } }[];
  'current-context'?: string;
}

/** Where a server is and how to prove who one is to it. */
export interface ServerAccess {
  /** `https://host:port/path` */
  readonly server: string;
  /** PEM; absent: the authorities that everybody trusts. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** Read each time: files are renewed by others. */
  readonly token?: () => string;
  readonly servername?: string;
  readonly insecure: boolean;
}

/** Rejects with an Error that says what is wrong, without the file's name. */
export async function readKubeconfig(path: string, context?: string): Promise<ServerAccess> {
  const { parse } = await import('yaml');
  const config = (parse(readFileSync(path, 'utf8'), { version: '1.1' }) ?? {}) as Kubeconfig;
  const wanted = context ?? config['current-context'];
  const chosen = config.contexts?.find(({ name }) => name === wanted)?.context;
  if (!chosen)
    throw new Error(
      wanted
        ? `there is no context "${wanted}"; there are: ${config.contexts?.map(({ name }) => name).join(', ') || 'none'}`
        : 'it names no current-context; choose one with: kubectl config use-context NAME',
    );
  const cluster = config.clusters?.find(({ name }) => name === chosen.cluster)?.cluster;
  if (!cluster) throw new Error(`there is no cluster "${chosen.cluster ?? ''}"`);
  const user = config.users?.find(({ name }) => name === chosen.user)?.user ?? {};
  for (const key of ['exec', 'auth-provider', 'username'])
    if (user[key] !== undefined)
      throw new Error(
        `user "${chosen.user}" signs in by ${key}, which is not supported; use a client certificate or a token`,
      );
  const server = String(cluster['server'] ?? '');
  if (!server.startsWith('https://')) throw new Error(`server "${server}": only https:// is supported`);
  const read = (from: Record<string, unknown>, key: string): string | undefined => {
    const data = from[`${key}-data`];
    if (typeof data === 'string') return Buffer.from(data, 'base64').toString('utf8');
    const file = from[key];
    if (typeof file !== 'string') return undefined;
    try {
      return readFileSync(resolve(dirname(path), file), 'utf8');
    } catch (error) {
      throw new Error(messageOf(error));
    }
  };
  const tokenFile = user['tokenFile'];
  const token =
    typeof tokenFile === 'string'
      ? () => readFileSync(resolve(dirname(path), tokenFile), 'utf8').trim()
      : typeof user['token'] === 'string'
        ? () => String(user['token'])
        : undefined;
  const ca = read(cluster, 'certificate-authority');
  const cert = read(user, 'client-certificate');
  const key = read(user, 'client-key');
  const servername = cluster['tls-server-name'];
  return {
    server,
    ...(ca ? { ca } : {}),
    ...(cert ? { cert } : {}),
    ...(key ? { key } : {}),
    ...(token ? { token } : {}),
    ...(typeof servername === 'string' ? { servername } : {}),
    insecure: cluster['insecure-skip-tls-verify'] === true,
  };
}
