/**
 * Forms of annotation values: each reader takes the text and returns the value, or throws `Refused` with the rule that the
 * text breaks. Nothing that comes out needs checking again, in particular none holds a control character.
 */

import { tryParseAddress } from '../sys/address.ts';
import { isNodesOwn } from './node-own-host.ts';
import type { SecretRef, Text, Variable } from './settings.ts';

/** The value does not follow the rule, which the message states. */
export class Refused extends Error {}

export type Reader<V> = (text: string) => V;

function refuse(rule: string): never {
  throw new Refused(rule);
}

export const boolean: Reader<boolean> = text =>
  text === 'true' ? true : text === 'false' ? false : refuse('must be "true" or "false"');

export const integer =
  (least: number, most: number): Reader<number> =>
  text => {
    const value = Number(text);
    if (!/^\d{1,12}$/.test(text) || value < least || value > most)
      refuse(`must be a whole number from ${least} to ${most}`);
    return value;
  };

/** Seconds, also as nginx writes times: `60`, `60s`, `2m`, `500ms`. */
export const seconds: Reader<number> = text => {
  const match = /^(\d{1,7})(ms|s|m|h)?$/.exec(text) ?? refuse('must be a time such as "60", "60s" or "2m"');
  const value = Number(match[1]) * { ms: 0.001, s: 1, m: 60, h: 3600 }[(match[2] ?? 's') as 's'];
  return value > 0 && value <= 86_400 ? value : refuse('must be a time of at most a day and more than 0');
};

/** Bytes as nginx writes sizes: `0` (no limit), `8m`, `1024k`, `1g`. */
export const size: Reader<number> = text => {
  const match = /^(\d{1,12})([kmg]?)$/i.exec(text) ?? refuse('must be a size such as "8m", "1024k" or "0"');
  return Number(match[1]) * { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }[match[2]!.toLowerCase() as 'k'];
};

export const oneOf =
  <T extends string>(...values: readonly T[]): Reader<T> =>
  text =>
    (values as readonly string[]).includes(text)
      ? (text as T)
      : refuse(`must be one of ${values.map(value => `"${value}"`).join(', ')}`);

export const matching =
  (pattern: RegExp, rule: string): Reader<string> =>
  text =>
    pattern.test(text) && text.length <= TEXT_LENGTH_MAX ? text : refuse(rule);

const TEXT_LENGTH_MAX = 1024;

export const token = matching(/^[A-Za-z0-9_.-]{1,128}$/, 'must be letters, digits, "-", "_" or "."');
export const headerName = matching(/^[A-Za-z0-9_-]{1,128}$/, 'must be the name of a header');
/** A path as it may stand in a request, without query. */
/** Of an attribute of a cookie, which a semicolon would end: HAProxy takes no configuration that has one there. */
export const cookiePath = matching(
  /^\/[A-Za-z0-9._~!$&'()*+,=:@%/-]*$/,
  'must be a path beginning with "/" and without ";"',
);
export const path = matching(/^\/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$/, 'must be a path beginning with "/"');

export const list =
  <V>(read: Reader<V>): Reader<readonly V[]> =>
  text => {
    const parts = text
      .split(',')
      .map(part => part.trim())
      .filter(Boolean);
    return parts.length > 0 && parts.length <= 256 ? parts.map(read) : refuse('must be a list separated by commas');
  };

export const cidr: Reader<string> = text => {
  const [address, length, more] = text.split('/');
  const bytes = tryParseAddress(address!);
  const isPrefix =
    length === undefined || (/^\d{1,3}$/.test(length) && Number(length) <= (bytes?.length === 4 ? 32 : 128));
  return bytes && isPrefix && more === undefined ? text : refuse(`"${text.slice(0, 64)}" is not an address or CIDR`);
};

export const hostName = matching(
  /^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/,
  'must be a DNS name in lower case',
);

const plainUrl = matching(
  /^https?:\/\/[A-Za-z0-9.-]+(:\d{1,5})?(\/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?$/,
  'must be a URL beginning with http:// or https://',
);
/** Of a server that the node asks, which is not the node itself. */
export const httpUrl: Reader<string> = text => elsewhere(plainUrl(text));

function elsewhere(url: string): string {
  const host = /^https?:\/\/([^/:]+)/.exec(url)![1]!;
  if (isNodesOwn(host)) refuse(`must not lead to the node's own ${host}`);
  return url;
}

/** `name`, or `namespace/name`. */
export const reference =
  (namespace: string): Reader<SecretRef> =>
  text => {
    const match = /^(?:([a-z0-9-]{1,63})\/)?([a-z0-9.-]{1,253})$/.exec(text) ?? refuse('must be the name of an object');
    if (match[1] !== undefined && match[1] !== namespace)
      refuse("must be an object of the Ingress's own namespace: other namespaces' secrets are not lent");
    return { namespace, name: match[2]! };
  };

const VARIABLES: Readonly<Record<string, Variable>> = {
  request_uri: 'uri',
  escaped_request_uri: 'escapedUri',
  uri: 'path',
  args: 'query',
  query_string: 'query',
  host: 'host',
  http_host: 'host',
  best_http_host: 'host',
  scheme: 'scheme',
  pass_access_scheme: 'scheme',
  remote_addr: 'source',
  request_method: 'method',
};

/** A place to be sent to, with nginx's variables: `https://new.example.com$request_uri`. */
export const location: Reader<Text> = text =>
  /^(https?:\/\/|\/|\$)[\x21-\x7e]*$/.test(text)
    ? templated(text)
    : refuse('must be a URL, or a path beginning with "/", without blanks');

/** A URL with nginx's variables behind the host, which is written out. Without a path it is that of the request. */
export const mirrorUrl: Reader<Text> = text => {
  const match =
    /^(https?:\/\/[A-Za-z0-9.-]+(?::\d{1,5})?)((?:\/|\$request_uri|\$uri)[\x21-\x7e]*)?$/.exec(text) ??
    refuse('must be a URL beginning with http:// or https:// and a host without variables');
  return [elsewhere(match[1]!), ...templated(match[2] ?? '$request_uri')];
};

/** A host name with nginx's variables. */
export const templatedHost: Reader<Text> = text =>
  /^[A-Za-z0-9.:_${}-]+$/.test(text) ? templated(text) : refuse('must be a host name');

const templated: Reader<Text> = text => {
  if (text.length > TEXT_LENGTH_MAX) refuse(`has at most ${TEXT_LENGTH_MAX} characters`);
  return text.split(/(\$\{?[a-z_]+\}?)/i).flatMap((part, at): Text => {
    if (at % 2 === 0) return part.includes('$') ? refuse('"$" begins a variable') : part ? [part] : [];
    const name = part.replace(/[${}]/g, '');
    const variable = VARIABLES[name] ?? refuse(`the variable $${name} is not known here`);
    return [{ variable }];
  });
};

/** Of a compiled expression, in units of about a byte; HAProxy's library takes 64 KiB. */
const PATTERN_SIZE_MAX = 16_384;
const CLASS_SIZE = 33;
const GROUP_SIZE = 8;

/**
 * A regular expression that is safe to run for anybody, and that HAProxy's library reads as this does: no look-around, back-references,
 * verbs, blanks or quantified groups that hold quantifiers, so that no request can make it run long. Returns the number of its captures.
 */
export function checkPattern(text: string): number {
  if (text.length > 512) refuse('a regular expression has at most 512 characters');
  if (!/^[\x21-\x7e]*$/.test(text)) refuse('a regular expression is of visible ASCII characters without blanks');
  let captures = 0;
  let last = 0;
  const all = { repeats: false, size: 0 };
  const open = [all];
  const put = (size: number) => {
    last = size;
    open.at(-1)!.size += size;
  };
  for (let at = 0; at < text.length; at++) {
    const character = text[at]!;
    const here = open.at(-1)!;
    if (character === '\\') {
      const escaped = text[++at] ?? '';
      if (!CLASS_ESCAPE.test(escaped) && escaped !== 'B')
        refuse(`the escape \\${escaped} is not allowed in a regular expression`);
      put(1);
    } else if (character === '[') {
      at = endOfClass(text, at);
      put(CLASS_SIZE);
    } else if (character === '(') {
      if (text[at + 1] === '*' || (text[at + 1] === '?' && text[at + 2] !== ':'))
        refuse('only plain groups are allowed in a regular expression');
      if (text[at + 1] === '?') at += 2;
      else captures++;
      open.push({ repeats: false, size: 0 });
    } else if (character === ')') {
      if (open.length === 1) refuse('a group is closed that was not opened');
      const closed = open.pop()!;
      const repeated = /^(?:[*+]|\{\d)/.test(text.slice(at + 1, at + 3));
      if (repeated && closed.repeats) refuse('a repeated group must not hold repetitions');
      if (closed.repeats || repeated) open.at(-1)!.repeats = true;
      put(closed.size + GROUP_SIZE);
    } else if (character === '*' || character === '+') {
      here.repeats = true;
    } else if (character === '{') {
      here.repeats = true;
      const [whole, least, most] = /^\{(\d+)(?:,(\d*))?\}/.exec(text.slice(at)) ?? [];
      if (whole === undefined) put(1);
      else {
        const times = Math.max(Number(least), Number(most ?? 0));
        if (times > 999) refuse('a repetition is at most 999 times');
        here.size += last * times;
        at += whole.length - 1;
      }
    } else put(1);
  }
  if (open.length > 1) refuse('a group is not closed');
  if (all.size > PATTERN_SIZE_MAX) refuse('a regular expression repeats less than that');
  try {
    new RegExp(text);
  } catch {
    refuse('is not a regular expression');
  }
  return captures;
}

const CLASS_ESCAPE = /[dDwWsSb./\\[\](){}+*?^$|_~%@!&',;:=<>#"`-]/;

/** Where the character class that begins at `start` ends. Only what every library reads the same way is let through. */
function endOfClass(text: string, start: number): number {
  let at = text[start + 1] === '^' ? start + 2 : start + 1;
  if (text[at] === ']') refuse('a bracket at the beginning of a character class is written \\]');
  // Whether the last item is one character, with which a range may begin.
  let isCharacter = false;
  for (let isFirst = true; at < text.length; at++, isFirst = false) {
    const character = text[at]!;
    if (character === ']') {
      if (/[:.=]/.test(text[start + 1]!) && at > start + 2 && text[at - 1] === text[start + 1])
        refuse('a character class is a named one');
      return at;
    }
    if (character === '[' && /[:.=]/.test(text[at + 1] ?? '')) refuse('a character class is a named one');
    if (character === '-' && !isFirst && text[at + 1] !== ']') {
      const isToSet = text[at + 1] === '\\' && /[dDwWsS]/.test(text[at + 2] ?? '');
      if (!isCharacter || isToSet) refuse('a range in a character class goes from one character to another');
      // Its other end begins no range.
      at += text[at + 1] === '\\' ? 2 : 1;
      if (text[at - 1] === '\\' && !CLASS_ESCAPE.test(text[at] ?? ''))
        refuse(`the escape \\${text[at] ?? ''} is not allowed in a regular expression`);
      isCharacter = false;
    } else if (character === '\\') {
      const escaped = text[++at] ?? '';
      if (!CLASS_ESCAPE.test(escaped)) refuse(`the escape \\${escaped} is not allowed in a regular expression`);
      isCharacter = !/[dDwWsS]/.test(escaped);
    } else isCharacter = true;
  }
  return refuse('a character class is not closed');
}
