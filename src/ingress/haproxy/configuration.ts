/**
 * HAProxy's configuration language: a tree of sections and lines of words, and its one way to text. Invariant: parsing the
 * text gives the same tree, whatever the words hold, because every word is quoted here and nowhere else. It refuses control
 * characters, which no word of a configuration needs.
 */

import { assert } from '../../base/assert.ts';

/** One directive: its keyword and arguments, unquoted. */
export type Line = readonly string[];

export interface Section {
  /** `global`, `frontend`, `backend` … */
  readonly type: string;
  readonly name?: string;
  readonly lines: readonly Line[];
}

const CONTROL = /[\0-\x1f\x7f]/;
/** Words of these characters mean themselves. */
const PLAIN = /^[A-Za-z0-9_.,:;/@%[\](){}<>!=?*+|~^&-]+$/;

export function hasControl(text: string): boolean {
  return CONTROL.test(text);
}

/** Inside single quotes nothing is special but the quote itself, which stands escaped between two quoted parts. */
export function quote(word: string): string {
  assert(!hasControl(word), 'a word of the configuration has control characters');
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** A text that is to stand literally where HAProxy expects a log format. */
export function literal(text: string): string {
  return text.replaceAll('%', '%%');
}

export function renderSection({ type, name, lines }: Section): string {
  const head = name === undefined ? type : `${type} ${quote(name)}`;
  return `${head}\n${lines.map(line => `  ${line.map(quote).join(' ')}\n`).join('')}`;
}

export function renderConfiguration(sections: readonly Section[]): string {
  return sections.map(section => `${renderSection(section)}\n`).join('');
}

/** Reads what `renderConfiguration` writes, by HAProxy's own rules of quoting: the judge of the fuzz test. */
export function parseConfiguration(text: string, sectionTypes: ReadonlySet<string>): Section[] {
  const sections: { type: string; name?: string; lines: Line[] }[] = [];
  for (const raw of text.split('\n')) {
    const words = splitWords(raw);
    if (words.length === 0) continue;
    if (!/^\s/.test(raw) && sectionTypes.has(words[0]!)) {
      assert(words.length <= 2, 'a section has one name');
      sections.push({ type: words[0]!, ...(words.length === 2 ? { name: words[1]! } : {}), lines: [] });
    } else {
      assert(sections.length > 0, 'a line stands in a section');
      sections.at(-1)!.lines.push(words);
    }
  }
  return sections;
}

/** Words of a line: blanks separate, `#` begins a comment, single and double quotes and backslashes protect (section 2.2). */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quoted: "'" | '"' | undefined;
  for (let at = 0; at < line.length; at++) {
    const character = line[at]!;
    if (quoted === "'") {
      if (character === "'") quoted = undefined;
      else word += character;
    } else if (character === '\\') {
      word = (word ?? '') + escaped(line[++at]);
    } else if (quoted === '"') {
      assert(character !== '$', 'a variable of the environment');
      if (character === '"') quoted = undefined;
      else word += character;
    } else if (character === "'" || character === '"') {
      quoted = character;
      word ??= '';
    } else if (character === ' ' || character === '\t') {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else if (character === '#') break;
    else word = (word ?? '') + character;
  }
  assert(!quoted, 'a quote is closed');
  if (word !== undefined) words.push(word);
  return words;
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t' };

function escaped(character: string | undefined): string {
  assert(character !== undefined, 'a backslash protects something');
  assert(character !== 'x', 'hexadecimal escapes are never written');
  return ESCAPES[character] ?? character;
}
