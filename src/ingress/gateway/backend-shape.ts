/**
 * The backend section of one backend of a route: filters as HAProxy's rules, timeouts, and how its servers are spoken to. Texts of
 * tenants become literals or escaped expressions; nothing of them is evaluated.
 */

import { createHash } from 'node:crypto';
import { corsHeaders, corsPreflight } from '../haproxy/backend.ts';
import { type Line, literal } from '../haproxy/configuration.ts';
import { type BackendShape, shape } from '../haproxy/desired.ts';
import { words } from '../haproxy/process-sections.ts';
import { deadlineLines } from './deadline.ts';
import type { Upstream } from './references.ts';
import { type Backend, escaped, type NewPath, type Step } from './route-rules.ts';

/** Connections without a word for so long are over. */
const IDLE_SECONDS = 3600;
/** A body to be mirrored should be there by then. */
const BODY_MS = 200;

export function backendShape(backend: Backend): BackendShape {
  const { mode, answer, upstream } = backend;
  if (mode === 'tcp')
    return shape(
      [
        ['mode', 'tcp'],
        ...(answer === undefined ? [] : [words('tcp-request content reject')]),
        ['timeout', 'server', `${IDLE_SECONDS}s`],
        words('option srvtcpka'),
      ],
      serverWords(upstream, mode),
    );
  const rules = [...backend.steps.flatMap(stepLines)];
  // A redirect answers by itself; all other rules come before it.
  if (answer !== undefined) rules.push(words(`http-request deny deny_status ${answer}`));
  return shape([...rules, ...limitLines(backend), ...deadlineLines(backend)], serverWords(upstream, mode));
}

function serverWords({ protocol, tls }: Upstream, mode: Backend['mode']): Line {
  if (!tls) return protocol === 'h2' && mode === 'http' ? words('proto h2') : [];
  return [
    ...words('ssl verify required ca-file'),
    tls.caFile,
    'sni',
    `str(${tls.hostname})`,
    ...(tls.certificate ? ['crt', tls.certificate] : []),
    ...(mode === 'http' ? ['alpn', protocol === 'h2' ? 'h2' : 'http/1.1'] : []),
  ];
}

function limitLines({ serverMs, retry }: Backend): Line[] {
  const result: Line[] = [];
  if (serverMs !== undefined) {
    result.push(['timeout', 'server', `${serverMs}ms`], ['timeout', 'connect', `${Math.min(serverMs, 5000)}ms`]);
    // Time that is lost with one server is not there for the next.
    if (!retry) result.push(words('retries 0'));
  }
  if (!retry) return result;
  const { attempts, codes } = retry;
  result.push(['retries', String(attempts)]);
  result.push(['retry-on', ...(attempts > 0 ? ['conn-failure', ...codes.map(String)] : ['none'])]);
  return result;
}

function stepLines(step: Step): Line[] {
  switch (step.do) {
    case 'requestHeaders':
    case 'responseHeaders': {
      const to = step.do === 'requestHeaders' ? 'http-request' : 'http-response';
      return [
        ...step.remove.map(name => [to, 'del-header', name]),
        ...step.set.map(({ name, value }) => [to, 'set-header', name, literal(value)]),
        ...step.add.map(({ name, value }) => [to, 'add-header', name, literal(value)]),
      ];
    }
    case 'rewrite':
      return [
        ...(step.hostname ? [['http-request', 'set-header', 'Host', literal(step.hostname)]] : []),
        ...(step.path ? pathLines(step.path) : []),
      ];
    case 'redirect': {
      const { scheme, hostname, port, path, status } = step;
      const host = hostname ? literal(hostname) : '%[var(txn.host)]';
      return [
        ...(path ? pathLines(path) : []),
        [
          ...words('http-request redirect location'),
          `${scheme}://${host}${port === undefined ? '' : `:${port}`}%[pathq]`,
          'code',
          String(status),
        ],
      ];
    }
    case 'mirror': {
      const share = step.share ? words(`if { rand(${step.share.total}) lt ${step.share.of} }`) : [];
      return [
        words(`http-request wait-for-body time ${BODY_MS}ms`),
        ['http-request', 'lua.mirror', mirrorKey(step.to), ...share],
      ];
    }
    case 'cors':
      return [...corsPreflight(step.cors), ...corsHeaders(step.cors)];
  }
}

/** What a mirrored request says of where it is to go: no backend's name, since those are not known beforehand. */
export const mirrorKey = ({ id }: Backend): string => createHash('sha256').update(id).digest('hex');

function pathLines(path: NewPath): Line[] {
  const set = 'http-request';
  if ('full' in path) return [[set, 'set-path', literal(path.full)]];
  const { prefix, instead } = path;
  const from = escaped(prefix);
  if (instead !== '') return [[set, 'replace-path', `^${from}(/.*)?$`, `${literal(instead)}\\1`]];
  if (prefix === '') return [];
  return [
    [set, 'replace-path', `^${from}/?$`, '/'],
    [set, 'replace-path', `^${from}/(.*)$`, '/\\1'],
  ];
}
