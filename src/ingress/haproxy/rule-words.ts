/** Pieces that rules of backends are made of: refusals, conditions, lists of addresses, texts with variables. No text of a tenant is evaluated. */

import type { Text, Variable } from '../settings.ts';
import { type Line, literal } from './configuration.ts';
import { words } from './process-sections.ts';

/** HAProxy refuses lines of more than 64 words. */
const WORDS_MAX = 40;

export const when = (condition: string): Line => ['if', ...words(`{ ${condition} }`)];

export function refusal(status: number): Line {
  return ['http-request', 'deny', 'deny_status', String(status)];
}

export function aclLines(name: string, addresses: readonly string[]): Line[] {
  const lines: Line[] = [];
  for (let at = 0; at < addresses.length; at += WORDS_MAX)
    lines.push(['acl', name, 'src', ...addresses.slice(at, at + WORDS_MAX)]);
  return lines;
}

const EXPRESSIONS: Readonly<Record<Variable, string>> = {
  uri: '%[pathq]',
  escapedUri: '%[pathq,url_enc]',
  path: '%[path]',
  query: '%[query]',
  host: '%[req.hdr(host),host_only]',
  scheme: '%[ssl_fc,iif(https,http)]',
  source: '%[src]',
  method: '%[method]',
};

/** A text as HAProxy's log format. */
export function format(text: Text): string {
  return text.map(part => (typeof part === 'string' ? literal(part) : EXPRESSIONS[part.variable])).join('');
}
