/** The header fields of a request, checked as RFC 9113 section 8 wants and put together as `node:http` would. */

import type { IncomingHttpHeaders } from 'node:http2';
import { withRepeated } from '../header-values.ts';
import type { HeaderField } from './header-table.ts';

const PSEUDO = new Set([':method', ':scheme', ':authority', ':path']);
const OF_CONNECTIONS = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade']);
/** A second one is dropped; two lengths are an error. */
const SINGLE = new Set([
  'authorization',
  'content-length',
  'content-type',
  'from',
  'host',
  'if-modified-since',
  'if-unmodified-since',
  'max-forwards',
  'proxy-authorization',
  'referer',
  'user-agent',
]);
const NOT_PLAIN = /[\0\r\n]|^[ \t]|[ \t]$/;

/** 1 for what may stand in the name of a header: tokens without capitals. */
const NAME_LETTERS = new Uint8Array(256);
for (const letter of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") NAME_LETTERS[letter.charCodeAt(0)] = 1;

/** Undefined for a malformed request. */
export function requestHead(fields: readonly HeaderField[]): IncomingHttpHeaders | undefined {
  const headers: Record<string, string> = {};
  let repeated: Record<string, string[]> | undefined;
  let regular = false;
  for (const { name, value: sent } of fields) {
    const value = NOT_PLAIN.test(sent) ? plainValue(name, sent) : sent;
    if (value === undefined) return undefined;
    if (name.charCodeAt(0) === 0x3a) {
      if (regular || !PSEUDO.has(name) || headers[name] !== undefined) return undefined;
      headers[name] = value;
    } else {
      regular = true;
      if (!isName(name) || OF_CONNECTIONS.has(name) || (name === 'te' && value !== 'trailers')) return undefined;
      // Where a name is one that every object has, what it holds is no string.
      const known = headers[name];
      if (typeof known !== 'string') headers[name] = value;
      else if (!SINGLE.has(name)) {
        headers[name] = `${known}${name === 'cookie' ? '; ' : ', '}${value}`;
        repeated ??= Object.create(null) as Record<string, string[]>;
        repeated[name] = [...(repeated[name] ?? [known]), value];
      } else if (name === 'content-length' && known !== value) return undefined;
    }
  }
  if (!headers[':method'] || !headers[':scheme'] || !headers[':path']?.startsWith('/')) return undefined;
  const length = headers['content-length'];
  if (length !== undefined && !/^\d{1,15}$/.test(length)) return undefined;
  return (repeated ? withRepeated(headers, repeated) : headers) as IncomingHttpHeaders;
}

// Go sends what its caller sets, and clients put a blank behind their User-Agent: upstream's server takes that, HTTP/1.1 strips it.
function plainValue(name: string, sent: string): string | undefined {
  return name.startsWith(':') || /[\0\r\n]/.test(sent) ? undefined : sent.replace(/^[ \t]+|[ \t]+$/g, '');
}

function isName(name: string): boolean {
  for (let i = 0; i < name.length; i++) if (NAME_LETTERS[name.charCodeAt(i)] !== 1) return false;
  return name.length > 0;
}
