/** A connection to whatever API server a kubeconfig file names; `src/client/kubeconfig.ts` says which ones are refused. */

import { rootCertificates } from 'node:tls';
import { failure, messageOf } from '../base/errors.ts';
import type { Tracer } from '../base/tracing/span.ts';
import { HttpsTransport } from '../client/https-transport.ts';
import { readKubeconfig, type ServerAccess } from '../client/kubeconfig.ts';

export interface KubeconfigConnection {
  readonly transport: HttpsTransport;
  readonly server: string;
  /** PEM of the server's authority, where the file names one. */
  readonly ca: string | undefined;
}

/** Rejects with BadRequest that says what is wrong with the file. */
export async function connectByKubeconfig(
  path: string,
  options: {
    readonly context?: string;
    readonly userAgent: string;
    readonly timeoutMs?: number;
    readonly tracer?: Tracer;
  },
): Promise<KubeconfigConnection> {
  let access: ServerAccess;
  try {
    access = await readKubeconfig(path, options.context);
  } catch (error) {
    throw failure(400, 'BadRequest', `--kubeconfig ${path}: ${messageOf(error)}`);
  }
  const { server, ca, cert, key, token, servername, insecure } = access;
  const transport = new HttpsTransport({
    server,
    ca: ca ?? rootCertificates.join('\n'),
    ...(cert ? { cert } : {}),
    ...(key ? { key } : {}),
    ...(token ? { token } : {}),
    ...(servername ? { servername } : {}),
    ...(insecure ? { insecure: true } : {}),
    ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
    userAgent: options.userAgent,
    ...(options.tracer ? { tracer: options.tracer } : {}),
  });
  return { transport, server, ca };
}
