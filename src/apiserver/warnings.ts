/** `Warning` headers as upstream writes them: each message once and in UTF-8, all of them cut short when together they are too long. */

const AGENT = '299 -';
const TOTAL_LETTERS_MAX = 4096;
/** Of each, once all together are too many. */
const LETTERS_MAX = 256;
const CONTROL = /\p{Cc}/u;

/** Messages with control characters have no header. */
export function warningHeaders(messages: readonly string[]): string[] {
  const texts = messages.filter(message => message !== '' && !CONTROL.test(message)).map(message => [...message]);
  let total = 0;
  const overflow = texts.findIndex(text => (total += text.length) > TOTAL_LETTERS_MAX);
  if (overflow < 0) return texts.map(header);
  const headers: string[] = [];
  let written = 0;
  for (const [at, text] of texts.entries()) {
    if (at > overflow && written >= TOTAL_LETTERS_MAX) break;
    const short = text.slice(0, LETTERS_MAX);
    written += short.length;
    headers.push(header(short));
  }
  return headers;
}

function header(letters: readonly string[]): string {
  const quoted = letters.join('').replace(/["\\]/g, '\\$&');
  // Values of headers are bytes, which Node takes as letters of Latin-1.
  return Buffer.from(`${AGENT} "${quoted}"`).toString('latin1');
}
