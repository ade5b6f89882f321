/**
 * What upstream says of a body that is not JSON, or JSON of no object at all: Go's words for the first thing wrong, and the
 * beginning of the body. Only texts; V8's message says what is wrong.
 */

import { messageOf } from '../base/errors.ts';

const SHOWN_BYTES_MAX = 30;

/** Where V8's message says what was expected, Go says where it was. */
const PLACES: readonly (readonly [RegExp, string])[] = [
  [/Expected ':'/, 'after object key'],
  [/property name/, 'looking for beginning of object key string'],
  [/Expected ',' or '}'/, 'after object key:value pair'],
  [/Expected ',' or ']'/, 'after array element'],
  [/control character/, 'in string literal'],
  [/[Ee]scape/, 'in string escape code'],
  [/non-whitespace character after JSON/, 'after top-level value'],
];

/** The message of Go's decoder for a text that `JSON.parse` refused with the error. */
export function syntaxError(text: string, error: unknown): string {
  const message = messageOf(error);
  const at = Number(/at position (\d+)/.exec(message)?.[1] ?? -1);
  if (/end of JSON input|Unterminated/.test(message) || at >= text.length) return 'unexpected end of JSON input';
  // Without a position a whole value was wrong; its first letter is in the message.
  const letter = at >= 0 ? text[at] : (/Unexpected token '(.)/u.exec(message)?.[1] ?? text.trimStart()[0]);
  const place = PLACES.find(([wrong]) => wrong.test(message))?.[1] ?? 'looking for beginning of value';
  // Go looks at bytes.
  const [byte = 0] = Buffer.from(letter ?? '');
  return `invalid character ${quoted(String.fromCharCode(byte))} ${place}`;
}

function quoted(letter: string): string {
  if (letter === "'") return `'\\''`;
  if (letter === '"') return `'"'`;
  return `'${ESCAPES[letter] ?? escaped(letter)}'`;
}
const ESCAPES: Readonly<Record<string, string>> = {
  '\x07': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
  '\\': '\\\\',
};
/** What Go's `strconv.Quote` makes of it. */
function escaped(letter: string): string {
  const code = letter.charCodeAt(0);
  const digits = code.toString(16);
  if (code < 0x20 || code === 0x7f) return `\\x${digits.padStart(2, '0')}`;
  return (code > 0x7f && code <= 0xa0) || code === 0xad ? `\\u00${digits}` : letter;
}

/** The whole message about a body of which not even the kind can be read. */
export function unrecognized(
  kind: string,
  why: string,
  body: Buffer | string,
  prefix = "couldn't get version/kind; json parse error: ",
): string {
  return `the object provided is unrecognized (must be of type ${kind}): ${prefix}${why} (${summary(typeof body === 'string' ? Buffer.from(body) : body)})`;
}

function summary(bytes: Buffer): string {
  if (bytes.length === 0) return '<empty>';
  const start = bytes.subarray(0, SHOWN_BYTES_MAX);
  const shown = bytes[0] === 0x7b ? start.toString() : start.toString('hex');
  return bytes.length > SHOWN_BYTES_MAX ? `${shown} ...` : shown;
}
