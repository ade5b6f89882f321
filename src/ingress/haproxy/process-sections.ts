/**
 * Sections and rules that every HAProxy of ours has, whatever it routes by: the process, its defaults, names, and how a request is cleaned
 * and told of its client. What clients say of themselves is believed only where that is asked for.
 */

import { readFileSync } from 'node:fs';
import type { Line, Section } from './configuration.ts';
import { RUNTIME_SOCKET } from './process-files.ts';

const THREADS = 2;
/** An old process serves what it had accepted for that long after a reload. */
const DRAIN_SECONDS = 600;
/** Old processes live by their number, not by how many reloads they have seen: `HaproxyProcess` ends those that are too many. */
const RELOADS_MAX = 2_000_000_000;
/** Slow clients: a request's head must come within this time. */
const HEAD_SECONDS = 30;
const LOG_LINE_BYTES_MAX = 8192;
const CONNECTIONS_MAX = 10_000;
/** Of `resolvers`. */
export const RESOLVERS = 'cluster';

/** A line of words without blanks in them. */
export const words = (line: string): Line => line.split(' ');
export const lines = (...all: string[]): Line[] => all.map(words);

export interface ProcessOptions {
  /** The file of a Lua program, where one is needed. */
  readonly lua?: string;
  /** Another, of filters: HAProxy 2.6 lets threads into a shared state of theirs at once, and crashes. */
  readonly luaFilters?: string;
  /** Another, and a text that tells its versions apart. */
  readonly content?: { readonly file: string; readonly version: string };
  /** Where names are asked. */
  readonly nameservers: readonly string[];
  readonly resolves: boolean;
  readonly clientSeconds: number;
  /** For what a request is sent again, to another server; default only when there was no connection. */
  readonly retryOn?: readonly string[];
}

export function processSections(options: ProcessOptions): Section[] {
  return [globalSection(options), defaultsSection(options), ...resolvers(options)];
}

function globalSection({ lua, luaFilters, content, nameservers }: ProcessOptions): Section {
  return {
    type: 'global',
    lines: [
      words('expose-experimental-directives'),
      ['nbthread', String(THREADS)],
      ['maxconn', String(connectionsMax())],
      ['hard-stop-after', `${DRAIN_SECONDS}s`],
      ['mworker-max-reloads', String(RELOADS_MAX)],
      ['stats', 'socket', `unix@${RUNTIME_SOCKET}`, ...words('mode 600 level admin expose-fd listeners')],
      ['stats', 'timeout', '60s'],
      ['log', 'stdout', 'len', String(LOG_LINE_BYTES_MAX), ...words('format raw local0 info')],
      ['ssl-default-bind-options', ...words('ssl-min-ver TLSv1.2 no-tls-tickets')],
      words('tune.ssl.cachesize 4000'),
      ...(lua ? [['lua-load', lua]] : []),
      ...(luaFilters ? [['lua-load-per-thread', luaFilters]] : []),
      ...(content ? [['lua-load', content.file, content.version]] : []),
      ...(lua && nameservers.length > 0 ? [['httpclient.resolvers.id', RESOLVERS]] : []),
      ...(lua ? [words('httpclient.ssl.verify none')] : []),
    ],
  };
}

function connectionsMax(): number {
  return Math.min(CONNECTIONS_MAX, Math.floor((openFilesMax() - 500) / 2.2));
}

/** The hard limit, which HAProxy may raise its own to. */
function openFilesMax(): number {
  const match = /^Max open files\s+\d+\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
  return match?.[1] && match[1] !== 'unlimited' ? Number(match[1]) : 1_048_576;
}

function resolvers({ nameservers, lua, resolves }: ProcessOptions): Section[] {
  if ((!lua && !resolves) || nameservers.length === 0) return [];
  return [
    {
      type: 'resolvers',
      name: RESOLVERS,
      lines: [
        ...nameservers.map((address, at) => [
          'nameserver',
          `dns${at}`,
          /:\d+$/.test(address) ? address : `${address}:53`,
        ]),
        words('hold valid 5s'),
        words('timeout resolve 1s'),
        words('accepted_payload_size 1232'),
      ],
    },
  ];
}

function defaultsSection({ clientSeconds, retryOn }: ProcessOptions): Section {
  return {
    type: 'defaults',
    lines: [
      words('mode http'),
      words('option dontlognull'),
      // A reload would reset what a client sends just then.
      words('option idle-close-on-response'),
      words('option redispatch 1'),
      words('retries 3'),
      ...(retryOn ? [['retry-on', ...retryOn]] : []),
      words('timeout connect 5s'),
      words('timeout server 60s'),
      ['timeout', 'client', `${clientSeconds}s`],
      ['timeout', 'http-request', `${HEAD_SECONDS}s`],
      words('timeout http-keep-alive 75s'),
      words('timeout tunnel 3600s'),
      words('timeout queue 30s'),
      words('timeout client-fin 10s'),
    ],
  };
}

// What rules decide on must be what the backend sees: no `/public/../admin`.
export function normalising(): Line[] {
  return lines(
    // Without `strict` HAProxy 2.6 ignores the rule when it has a condition.
    'http-request normalize-uri percent-decode-unreserved strict if { path -m sub % }',
    'http-request normalize-uri path-strip-dot if { path -m sub /. }',
    'http-request normalize-uri path-strip-dotdot full if { path -m sub /. }',
  );
}

export interface ClientHeaderOptions {
  readonly trustsForwarded: boolean;
  /** Where it is known beforehand; otherwise by whether the connection has TLS. */
  readonly scheme?: 'http' | 'https';
  readonly port?: number;
}

/** Request IDs of clients that are kept: others could not stand in the log as they are. */
const REQUEST_ID = '^[A-Za-z0-9._:/+=-]{1,64}$';
/** 64 random bits for the connection, and the number of the request, which the process gives no other. Not `uuid`, which costs six times as much. */
const CONNECTION_ID = '%[rand,hex,bytes(8,8)]'.repeat(2);
const NEW_REQUEST_ID = '%[var(sess.id)]%{+X}rt';

/** The client's address as text and its part of request IDs, made once a connection: of all that the headers take they cost most. */
export function connectionVariables(): Line[] {
  return lines(
    'tcp-request session set-var(sess.client) src,concat()',
    `tcp-request session set-var-fmt(sess.id) ${CONNECTION_ID}`,
  );
}

/** After `connectionVariables`. Sets `txn.request`, whose characters need no escape. */
export function clientHeaders({ trustsForwarded, scheme, port }: ClientHeaderOptions): Line[] {
  const add = (name: string, value: string): Line => [
    ...['http-request', 'add-header', name, value],
    ...(trustsForwarded ? ['unless', '{', `req.hdr(${name.toLowerCase()})`, '-m', 'found', '}'] : []),
  ];
  const client = trustsForwarded ? '%[src]' : '%[var(sess.client)]';
  return [
    // What clients say of themselves is believed only where that is asked for.
    ...lines(
      trustsForwarded
        ? 'http-request set-src req.hdr_ip(x-forwarded-for,1)'
        : 'http-request del-header x-forwarded- -m beg',
      'http-request del-header x-real-ip',
      'http-request del-header proxy',
    ),
    add('X-Forwarded-For', client),
    add('X-Forwarded-Proto', scheme ?? '%[ssl_fc,iif(https,http)]'),
    add('X-Forwarded-Host', '%[req.hdr(host)]'),
    add('X-Forwarded-Port', port === undefined ? '%[ssl_fc,iif(443,80)]' : String(port)),
    ...lines(
      `http-request add-header X-Real-IP ${client}`,
      `http-request set-var(txn.request) req.fhdr(x-request-id) if { req.fhdr(x-request-id) -m reg ${REQUEST_ID} }`,
      `http-request set-var-fmt(txn.request) ${NEW_REQUEST_ID} unless { var(txn.request) -m found }`,
      'http-request set-header X-Request-ID %[var(txn.request)]',
    ),
  ];
}
