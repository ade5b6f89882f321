/**
 * Reads a Corefile, the configuration language of CoreDNS (Caddy's): server blocks of directives, which may have blocks of
 * their own. Pure, and ignorant of what directives mean: `configuration.ts` knows that. Every failure is a CorefileError with
 * the line, worded as CoreDNS words it. Snippets `(name) { … }` with `import name` and `{$VARIABLE}` are resolved here.
 */

export interface Directive {
  readonly name: string;
  readonly args: readonly string[];
  readonly block: readonly Directive[];
  readonly line: number;
}

export interface ServerBlockText {
  /** `.:53`, `example.local`, as written. */
  readonly keys: readonly string[];
  readonly directives: readonly Directive[];
  readonly line: number;
}

export class CorefileError extends Error {
  override name = 'CorefileError';
  readonly line: number;
  constructor(line: number, problem: string) {
    super(`Corefile:${line} - ${problem}`);
    this.line = line;
  }
}

interface Token {
  readonly text: string;
  readonly line: number;
  /** A quoted brace is text. */
  readonly quoted: boolean;
}

const NESTING_MAX = 8;
/** The most that an object of the API holds. */
const BYTES_MAX = 1 << 20;

function tokensOf(text: string): Token[] {
  if (text.length > BYTES_MAX) throw new CorefileError(1, 'file too large');
  const tokens: Token[] = [];
  let line = 1;
  for (let at = 0; at < text.length; ) {
    const char = text[at]!;
    if (char === '\n') line++;
    if (/\s/.test(char)) {
      at++;
    } else if (char === '#') {
      while (at < text.length && text[at] !== '\n') at++;
    } else if (char === '"') {
      const start = line;
      let out = '';
      for (at++; text[at] !== '"'; at++) {
        if (at >= text.length) throw new CorefileError(start, 'quoted text does not end');
        if (text[at] === '\\' && text[at + 1] === '"') at++;
        if (text[at] === '\n') line++;
        out += text[at];
      }
      at++;
      tokens.push({ text: out, line: start, quoted: true });
    } else {
      const start = at;
      while (at < text.length && !/\s/.test(text[at]!)) at++;
      tokens.push({ text: text.slice(start, at), line, quoted: false });
    }
  }
  return tokens;
}

class Reader {
  readonly #tokens: readonly Token[];
  #at = 0;
  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }
  get next(): Token | undefined {
    return this.#tokens[this.#at];
  }
  get lastLine(): number {
    return this.#tokens.at(-1)?.line ?? 1;
  }
  take(): Token {
    return this.#tokens[this.#at++]!;
  }
  takes(brace: '{' | '}'): boolean {
    const found = this.next?.text === brace && !this.next.quoted;
    if (found) this.#at++;
    return found;
  }
}

/** Undefined variables become nothing, as in Caddy. */
export function parseCorefile(
  text: string,
  variables: Readonly<Record<string, string | undefined>> = {},
): ServerBlockText[] {
  const reader = new Reader(tokensOf(text.replace(/\{[$%](\w+)%?\}/g, (_, name: string) => variables[name] ?? '')));
  const snippets = new Map<string, readonly Directive[]>();
  const blocks: ServerBlockText[] = [];
  while (reader.next) {
    const { line } = reader.next;
    const keys: string[] = [];
    while (!reader.takes('{')) {
      const token = reader.next;
      if (!token || (token.text === '}' && !token.quoted))
        throw new CorefileError(
          token?.line ?? reader.lastLine,
          `Unexpected ${token ? `'}'` : 'end of file'}, expecting '{'`,
        );
      reader.take();
      keys.push(...token.text.split(',').filter(Boolean));
    }
    if (keys.length === 0) throw new CorefileError(line, "a server block needs a zone before '{', such as '.:53'");
    const directives = directivesOf(reader, snippets, 1);
    const snippet = /^\((.+)\)$/.exec(keys[0]!)?.[1];
    if (snippet !== undefined && keys.length === 1) snippets.set(snippet, directives);
    else blocks.push({ keys, directives, line });
  }
  return blocks;
}

function directivesOf(reader: Reader, snippets: ReadonlyMap<string, readonly Directive[]>, depth: number): Directive[] {
  if (depth > NESTING_MAX) throw new CorefileError(reader.next?.line ?? reader.lastLine, 'blocks nested too deeply');
  const directives: Directive[] = [];
  while (!reader.takes('}')) {
    if (!reader.next) throw new CorefileError(reader.lastLine, "Unexpected end of file, expecting '}'");
    const first = reader.take();
    if (first.text === '{' && !first.quoted) throw new CorefileError(first.line, "Unexpected '{'");
    const args: string[] = [];
    let block: Directive[] = [];
    while (reader.next && reader.next.line === first.line) {
      if (reader.next.text === '}' && !reader.next.quoted) break;
      if (reader.takes('{')) {
        block = directivesOf(reader, snippets, depth + 1);
        break;
      }
      args.push(reader.take().text);
    }
    if (first.text !== 'import' || first.quoted) {
      directives.push({ name: first.text, args, block, line: first.line });
      continue;
    }
    const imported = snippets.get(args[0] ?? '');
    if (!imported)
      throw new CorefileError(
        first.line,
        `import ${args.join(' ')}: there is no snippet '(${args[0] ?? ''})' above; files cannot be imported`,
      );
    directives.push(...imported);
  }
  return directives;
}
