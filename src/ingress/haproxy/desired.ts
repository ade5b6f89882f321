/**
 * What a HAProxy is to hold, whoever asks for it: backends by their shape, servers, certificates, maps and the sections that choose among
 * backends. Names of backends are not decided here, since any backend of the right shape will do.
 */

import type { Line, Section } from './configuration.ts';

export interface BackendShape {
  /** Equal for routes that may take each other's backend; empty for the plain one, which lies in store. */
  readonly key: string;
  readonly lines: readonly Line[];
  /** Words after a server's name and address. */
  readonly serverWords: Line;
  /** The key with which cookies of servers are made. */
  readonly cookieKey: string | undefined;
}

/** What is not idempotent is not sent again, be it for no answer: a server may have done it. */
export const SENT_ONCE: Line = ['http-request', 'disable-l7-retry', 'if', '{', 'method', 'POST', 'LOCK', 'PATCH', '}'];
export const PLAIN_SHAPE: BackendShape = { key: '', lines: [SENT_ONCE], serverWords: [], cookieKey: undefined };

export function shape(lines: readonly Line[], serverWords: Line, cookieKey?: string): BackendShape {
  if (lines.every(line => line === SENT_ONCE) && serverWords.length === 0) return PLAIN_SHAPE;
  return { key: JSON.stringify([lines, serverWords]), lines, serverWords, cookieKey };
}

export interface CertificateEntry {
  /** The file of the list that it stands in. */
  readonly list: string;
  /** Server names that it is shown for; absent: those of its own. */
  readonly filter?: string;
  /** Chain and key. */
  readonly pem: string;
  /** Of the connections that it is shown to; changing them takes another list. */
  readonly options?: string;
}

export type BackendOf = (route: string) => string;
export type Maps = ReadonlyMap<string, ReadonlyMap<string, string>>;

export interface Desired {
  readonly routes: ReadonlyMap<string, BackendShape>;
  /** Route id → `address:port` of each endpoint. */
  readonly servers: ReadonlyMap<string, readonly string[]>;
  /** By the file of the certificate. */
  readonly certificates: ReadonlyMap<string, CertificateEntry>;
  readonly certificateLists: readonly string[];
  /** Other files of the configuration, written before a reload: what may change without one is no file. */
  readonly files: ReadonlyMap<string, string>;
  /** All that is not a backend. */
  sections(backendOf: BackendOf): readonly Section[];
  /** By file; the same files for the same sections. */
  maps(backendOf: BackendOf): Maps;
  /** Maps whose entries are tried in their order: written anew as a whole. */
  readonly orderedMaps: ReadonlySet<string>;
}
