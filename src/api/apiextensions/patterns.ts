/**
 * Regular expressions that users write in schemas and rules, in Go's syntax as far as JavaScript has it. No pattern can hang
 * the server: V8 goes over to its linear engine after too much backtracking, and what that cannot run has a time limit.
 */

import { setFlagsFromString } from 'node:v8';
import { createContext, Script } from 'node:vm';
import { type ApiError, failure } from '../../base/errors.ts';

const PATTERNS_MAX = 2_000;
/** For one match of a pattern that V8 can only backtrack through. */
const MATCH_MS_MAX = 100;
/** Shorter texts cannot take long. */
const SHORT_TEXT = 16;

const patterns = new Map<string, Pattern | undefined>();
let prepared = false;

export class Pattern {
  readonly #expression: RegExp;
  readonly #isLinear: boolean;

  constructor(expression: RegExp, isLinear: boolean) {
    this.#expression = expression;
    this.#isLinear = isLinear;
  }
  /** Whether the pattern is found in the text. */
  test(text: string): boolean {
    return this.#run(text, () => this.#expression.test(text), 'expression.test(text)') as boolean;
  }
  /** What of the text matches first. */
  first(text: string): string | undefined {
    const find = () => this.#expression.exec(text)?.[0];
    return this.#run(text, find, '(expression.exec(text) || [])[0]') as string | undefined;
  }
  /** All matches that do not overlap, from the left. */
  all(text: string): string[] {
    const global = new RegExp(this.#expression.source, `${this.#expression.flags}g`);
    const find = () => [...(text.match(global) ?? [])];
    return this.#run(text, find, 'text.match(expression) || []', global) as string[];
  }

  #run(text: string, run: () => unknown, guarded: string, expression = this.#expression): unknown {
    if (this.#isLinear || text.length <= SHORT_TEXT) return run();
    try {
      return new Script(guarded).runInContext(createContext({ expression, text }), { timeout: MATCH_MS_MAX });
    } catch (error) {
      if ((error as { code?: string }).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
      throw tooSlow(expression.source);
    }
  }
}

const tooSlow = (source: string): ApiError =>
  failure(422, 'Invalid', `the pattern ${JSON.stringify(source)} takes too long on this text`);

/** Go's syntax where it differs from JavaScript's: `(?i)` at the beginning, also after a `^` (which `i` and `s` leave as it is), `(?P<name>…)`, `\A`, `\z`, POSIX classes. */
function translated(pattern: string): { source: string; flags: string } {
  let flags = '';
  let source = pattern;
  const leading = /^\(\?([imsU]+)\)/.exec(source) ?? /^\^\(\?([isU]+)\)/.exec(source);
  if (leading) {
    for (const flag of leading[1]!) if (flag !== 'U' && !flags.includes(flag)) flags += flag;
    source = (source.startsWith('^') ? '^' : '') + source.slice(leading[0].length);
  }
  source = source
    .replaceAll('(?P<', '(?<')
    .replace(/\\A/g, '^')
    .replace(/\\z/g, '$')
    .replace(/\\x\{([0-9a-fA-F]+)\}/g, '\\u{$1}')
    .replace(/\[:(alnum|alpha|digit|lower|upper|space|xdigit|word|punct):\]/g, (_, name: string) => POSIX[name]!);
  // Unicode mode takes the linear engine away, so only what needs it has it.
  const isUnicode = /\\[pP]|\\u\{|[\u{10000}-\u{10ffff}]/u.test(source);
  return { source, flags: isUnicode ? `${flags}u` : flags };
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

/** Look-arounds and back-references, which Go refuses. */
const NOT_GO = /\(\?(?:[=!]|<[=!])|\\[1-9]|\\k</;

/** Undefined for what is no regular expression. */
export function compilePattern(pattern: string): Pattern | undefined {
  if (patterns.has(pattern)) return patterns.get(pattern);
  if (!prepared) {
    prepared = true;
    setFlagsFromString('--enable-experimental-regexp-engine');
    setFlagsFromString('--enable-experimental-regexp-engine-on-excessive-backtracks');
  }
  const { source, flags } = translated(pattern);
  const isGo = !NOT_GO.test(pattern.replaceAll('\\\\', ''));
  const expression = isGo ? attempt(source, flags) : undefined;
  const compiled = expression && new Pattern(expression, attempt(source, `${flags}l`) !== undefined);
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
