/**
 * Pages that come through a proxy: links to the root of the site behind lead back through the proxy, as upstream's proxies
 * make them. Works on bytes as they pass, whatever the character set; a page that is no HTML comes out as it went in.
 *
 * It refuses to look into scripts and styles: paths that a page puts together itself are its own affair.
 */

import { Transform, type TransformCallback } from 'node:stream';

/** Attributes with URLs, by element. */
const LINKS: Readonly<Record<string, readonly string[]>> = {
  a: ['href'],
  area: ['href'],
  audio: ['src'],
  base: ['href'],
  blockquote: ['cite'],
  body: ['background'],
  button: ['formaction'],
  del: ['cite'],
  embed: ['src'],
  form: ['action'],
  frame: ['longdesc', 'src'],
  head: ['profile'],
  html: ['manifest'],
  iframe: ['longdesc', 'src'],
  img: ['longdesc', 'src', 'usemap'],
  input: ['src', 'usemap', 'formaction'],
  ins: ['cite'],
  link: ['href'],
  object: ['classid', 'codebase', 'data', 'usemap'],
  q: ['cite'],
  script: ['src'],
  source: ['src'],
  track: ['src'],
  video: ['poster', 'src'],
};
/** Elements whose content is text up to their end tag. */
const RAW = new Set(['script', 'style', 'textarea', 'title', 'xmp']);
/** A tag that is longer passes as it is. */
const TAG_BYTES_MAX = 64 * 1024;

export class HtmlLinks extends Transform {
  readonly #rewrite: (url: string) => string;
  /** Begins with what may be the start of a tag, comment or end of raw text. */
  #pending = '';
  #raw: string | undefined;

  constructor(rewrite: (url: string) => string) {
    super();
    this.#rewrite = rewrite;
  }
  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    // One character a byte, so that nothing is lost in a character set that is not known.
    this.#pending += chunk.toString('latin1');
    this.#take(false);
    done();
  }
  override _flush(done: TransformCallback): void {
    this.#take(true);
    done();
  }

  #take(isEnd: boolean): void {
    const text = this.#pending;
    let out = '';
    let at = 0;
    while (at < text.length) {
      const next = this.#raw ? endOfRaw(text, at, this.#raw) : text.indexOf('<', at);
      if (next < 0) {
        // An end tag may have begun.
        const kept = this.#raw && !isEnd ? Math.max(at, text.length - this.#raw.length - 2) : text.length;
        out += text.slice(at, kept);
        at = kept;
        break;
      }
      this.#raw = undefined;
      out += text.slice(at, next);
      at = next;
      const isComment = text.startsWith('<!--', at);
      const end = isComment
        ? after(text, '-->', at + 4)
        : /^<[a-zA-Z]/.test(text.slice(at, at + 2))
          ? endOfTag(text, at)
          : at + 1;
      const undecided = text.length - at < 4 && '<!--'.startsWith(text.slice(at));
      if ((end < 0 || undecided) && !isEnd && text.length - at < TAG_BYTES_MAX) break;
      if (end < 0) {
        out += text.slice(at);
        at = text.length;
        break;
      }
      out += isComment || end === at + 1 ? text.slice(at, end) : this.#tag(text.slice(at, end));
      at = end;
    }
    this.#pending = text.slice(at);
    if (out !== '') this.push(Buffer.from(out, 'latin1'));
  }
  #tag(tag: string): string {
    const name = /^<([a-zA-Z][^\s/>]*)/.exec(tag)![1]!.toLowerCase();
    if (RAW.has(name)) this.#raw = name;
    const links = LINKS[name];
    if (!links) return tag;
    return tag.replace(
      /([^\s"'<>/=]+)(\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)/g,
      (whole, attribute: string, equals: string, value: string) => {
        if (!links.includes(attribute.toLowerCase())) return whole;
        const quote = value.startsWith('"') || value.startsWith("'") ? value[0]! : '';
        return `${attribute}${equals}${quote}${this.#rewrite(quote ? value.slice(1, -1) : value)}${quote}`;
      },
    );
  }
}

function after(text: string, what: string, from: number): number {
  const at = text.indexOf(what, from);
  return at < 0 ? -1 : at + what.length;
}
function endOfRaw(text: string, from: number, name: string): number {
  const pattern = new RegExp(`</${name}`, 'gi');
  pattern.lastIndex = from;
  return pattern.exec(text)?.index ?? -1;
}
function endOfTag(text: string, from: number): number {
  let quote = '';
  for (let at = from + 1; at < text.length; at++) {
    const letter = text[at]!;
    if (quote) {
      if (letter === quote) quote = '';
    } else if (letter === '>') return at + 1;
    // A quote begins a value only where one can be.
    else if ((letter === '"' || letter === "'") && /=\s*$/.test(text.slice(Math.max(from, at - 8), at))) quote = letter;
  }
  return -1;
}
