/**
 * Regular expressions that users write in schemas and rules. Go's are linear in time by construction; V8 is told to fall back
 * to its linear engine after too much backtracking, so that no pattern can hang the server.
 */

import { setFlagsFromString } from 'node:v8';

const PATTERNS_MAX = 2_000;
const patterns = new Map<string, RegExp | undefined>();
let prepared = false;

/** Go's syntax where it differs from JavaScript's: `(?i)` at the beginning, `(?P<name>…)`, `\A`, `\z`, POSIX classes. */
function translated(pattern: string): { source: string; flags: string } {
  let flags = 'u';
  let source = pattern;
  const leading = /^\(\?([imsU]+)\)/.exec(source);
  if (leading) {
    for (const flag of leading[1]!) if (flag !== 'U' && !flags.includes(flag)) flags += flag;
    source = source.slice(leading[0].length);
  }
  source = source
    .replaceAll('(?P<', '(?<')
    .replace(/\\A/g, '^')
    .replace(/\\z/g, '$')
    .replace(/\[:(\^?)(alnum|alpha|digit|lower|upper|space|xdigit|word|punct):\]/g, (_, negated, name: string) =>
      negated ? '' : POSIX[name]!,
    );
  return { source, flags };
}

const POSIX: Readonly<Record<string, string>> = {
  alnum: '0-9A-Za-z',
  alpha: 'A-Za-z',
  digit: '0-9',
  lower: 'a-z',
  upper: 'A-Z',
  space: '\\t\\n\\v\\f\\r ',
  xdigit: '0-9A-Fa-f',
  word: '0-9A-Za-z_',
  punct: '!-\\/:-@\\[-`\\{-~',
};

/** Undefined for what is no regular expression. */
export function compilePattern(pattern: string): RegExp | undefined {
  if (patterns.has(pattern)) return patterns.get(pattern);
  if (!prepared) {
    prepared = true;
    setFlagsFromString('--enable-experimental-regexp-engine-on-excessive-backtracks');
  }
  const { source, flags } = translated(pattern);
  const compiled = attempt(source, flags) ?? attempt(source, flags.replace('u', ''));
  if (patterns.size >= PATTERNS_MAX) patterns.clear();
  patterns.set(pattern, compiled);
  return compiled;
}

function attempt(source: string, flags: string): RegExp | undefined {
  try {
    return new RegExp(source, flags);
  } catch {
    return undefined;
  }
}
