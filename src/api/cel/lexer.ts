/** Text of the Common Expression Language to tokens. Refuses what is no token with the place where it stands. */

export type TokenKind = 'name' | 'int' | 'uint' | 'double' | 'string' | 'bytes' | 'punctuation' | 'end';

export interface Token {
  readonly kind: TokenKind;
  /** Names and punctuation as written; for literals the text behind the value. */
  readonly text: string;
  readonly value?: string | number | bigint | Uint8Array;
  readonly at: number;
}

/** An expression that cannot be understood. */
export class CelSyntaxError extends Error {
  override name = 'CelSyntaxError';
  readonly at: number;
  readonly problem: string;

  constructor(problem: string, source: string, at: number) {
    super(located(problem, source, at));
    this.at = at;
    this.problem = problem;
  }
}

/** A message that points at its place, as cel-go prints it. */
export function located(problem: string, source: string, at: number): string {
  const before = source.slice(0, at).split('\n');
  const column = before.at(-1)!.length;
  const text = source.split('\n')[before.length - 1] ?? '';
  return `ERROR: <input>:${before.length}:${column + 1}: ${problem}\n | ${text}\n | ${'.'.repeat(column)}^`;
}

const SPACE = /(?:\s|\/\/[^\n]*)+/y;
const NAME = /[A-Za-z_][A-Za-z0-9_]*/y;
const NUMBER = /0[xX][0-9a-fA-F]+[uU]?|\d+\.\d+(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+[uU]?/y;
const STRING = /([bBrR]{0,2})("""|'''|"|')/y;
const QUOTED_NAME = /`([A-Za-z0-9_.\-/ ]+)`/y;
const PUNCTUATION = /&&|\|\||==|!=|<=|>=|[-+*/%!<>=?:.,()[\]{}]/y;

const INT_MAX = 2n ** 63n;

export function tokenize(source: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    return pattern.exec(source);
  };
  for (;;) {
    const space = take(SPACE);
    if (space) at += space[0].length;
    if (at >= source.length) break;
    const quoted = take(STRING);
    if (quoted) {
      const { token, end } = readString(source, at, quoted);
      tokens.push(token);
      at = end;
      continue;
    }
    const previous = tokens.at(-1);
    const number =
      /[0-9]/.test(source[at]!) || (source[at] === '.' && /[0-9]/.test(source[at + 1] ?? '') && !isOperand(previous))
        ? take(NUMBER)
        : null;
    const match = number ?? take(NAME) ?? take(QUOTED_NAME) ?? take(PUNCTUATION);
    if (!match) throw new CelSyntaxError(`Syntax error: token recognition error at: '${source[at]}'`, source, at);
    const text = match[0];
    if (number) tokens.push(numberToken(text, source, at));
    else if (text.startsWith('`')) tokens.push({ kind: 'name', text: match[1]!, at });
    else tokens.push({ kind: /^[A-Za-z_]/.test(text) ? 'name' : 'punctuation', text, at });
    at += text.length;
  }
  tokens.push({ kind: 'end', text: '<EOF>', at });
  return tokens;
}

function isOperand(token: Token | undefined): boolean {
  if (!token) return false;
  return token.kind !== 'punctuation' || [')', ']', '}'].includes(token.text);
}

function numberToken(text: string, source: string, at: number): Token {
  if (/[.eE]/.test(text) && !/^0[xX]/.test(text)) return { kind: 'double', text, value: Number(text), at };
  const isUint = /[uU]$/.test(text);
  const value = BigInt(isUint ? text.slice(0, -1) : text);
  // One more than the largest: the sign comes before it.
  if (isUint ? value >= 2n * INT_MAX : value > INT_MAX)
    throw new CelSyntaxError(`Syntax error: invalid ${isUint ? 'uint' : 'int'} literal`, source, at);
  return { kind: isUint ? 'uint' : 'int', text, value, at };
}

const ESCAPES: Readonly<Record<string, string>> = {
  a: '\u0007',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  '\\': '\\',
  '?': '?',
  '"': '"',
  "'": "'",
  '`': '`',
};

function readString(source: string, start: number, opening: RegExpExecArray): { token: Token; end: number } {
  const [prefix, quote] = [opening[1]!.toLowerCase(), opening[2]!];
  const isRaw = prefix.includes('r');
  const isBytes = prefix.includes('b');
  const bytes: number[] = [];
  let text = '';
  const add = (part: string) => {
    if (isBytes) bytes.push(...Buffer.from(part));
    else text += part;
  };
  let at = start + opening[0].length;
  for (;;) {
    if (at >= source.length || (quote.length === 1 && source[at] === '\n'))
      throw new CelSyntaxError('Syntax error: token recognition error: unterminated string', source, start);
    if (source.startsWith(quote, at)) break;
    if (source[at] !== '\\' || isRaw) {
      const letter = String.fromCodePoint(source.codePointAt(at)!);
      add(letter);
      at += letter.length;
      continue;
    }
    const code = /^\\(?:x([0-9a-fA-F]{2})|X([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2}))/.exec(
      source.slice(at, at + 10),
    );
    if (code) {
      const short = code[1] ?? code[2];
      const value = code[5] ? Number.parseInt(code[5], 8) : Number.parseInt(short ?? code[3] ?? code[4]!, 16);
      if (isBytes && (short || code[5])) bytes.push(value);
      else if (value > 0x10ffff) throw new CelSyntaxError('Syntax error: invalid code point', source, at);
      else add(String.fromCodePoint(value));
      at += code[0].length;
      continue;
    }
    const simple = ESCAPES[source[at + 1] ?? ''];
    if (simple === undefined) throw new CelSyntaxError('Syntax error: invalid escape sequence', source, at);
    add(simple);
    at += 2;
  }
  const end = at + quote.length;
  const value = isBytes ? Uint8Array.from(bytes) : text;
  return { token: { kind: isBytes ? 'bytes' : 'string', text: source.slice(start, end), value, at: start }, end };
}
