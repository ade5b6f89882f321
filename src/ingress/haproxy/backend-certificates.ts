/**
 * What HAProxy and backends that speak TLS show each other: the authorities that a backend's certificate must be of, and the certificate of
 * ours that it asks for. Invariant: a route whose Secret does not hold what its settings need is shut. Other contents are another file.
 */

import { createHash } from 'node:crypto';
import { readAuthorities, readKeyPair } from '../credentials.ts';
import type { RouteTable } from '../route-table.ts';
import type { Resources } from './backend.ts';

export interface BackendFiles {
  /** Absent: any certificate will do. */
  readonly authorities?: string;
  /** With its key. */
  readonly certificate?: string;
}

export interface BackendCertificates {
  readonly byRoute: ReadonlyMap<string, BackendFiles>;
  readonly shut: ReadonlySet<string>;
  /** File → its text. */
  readonly files: ReadonlyMap<string, string>;
}

export function backendCertificates(table: RouteTable, resources: Resources): BackendCertificates {
  const byRoute = new Map<string, BackendFiles>();
  const shut = new Set<string>();
  const files = new Map<string, string>();
  const put = (kind: 'ca' | 'own', pem: string): string => {
    const file = `certificates/${kind}-${createHash('sha256').update(pem).digest('hex').slice(0, 32)}.pem`;
    files.set(file, pem);
    return file;
  };
  for (const [id, { settings }] of table.routes) {
    const { upstreamTls } = settings;
    if (!upstreamTls) continue;
    const { secret, verifies } = upstreamTls;
    const data = resources.secret(secret);
    const authorities = verifies ? readAuthorities(data?.['ca.crt']) : undefined;
    const pair = data?.['tls.crt'] === undefined && data !== undefined ? undefined : readKeyPair(data);
    if ((verifies && authorities === undefined) || (pair && 'problem' in pair)) shut.add(id);
    else
      byRoute.set(id, {
        ...(authorities === undefined ? {} : { authorities: put('ca', authorities) }),
        ...(pair ? { certificate: put('own', `${pair.pem}\n`) } : {}),
      });
  }
  return { byRoute, shut, files };
}
