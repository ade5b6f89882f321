/** JSON text with line breaks, for people: as Go's `json.MarshalIndent` lays it out with two spaces. Numbers and the order of keys stay as they are. */

const PLAIN = /[^"{}[\],:]*/y;
const STRING = /"[^"\\]*(?:\\.[^"\\]*)*"/y;

/** Of compact, valid JSON. */
export function indentJson(json: string): string {
  const lines = ['\n'];
  let out = '';
  let depth = 0;
  const line = (): string => (lines[depth] ??= `\n${'  '.repeat(depth)}`);
  for (let at = 0; at < json.length; ) {
    const char = json[at]!;
    let end = at + 1;
    if (char === '{' || char === '[') {
      const isEmpty = json[end] === '}' || json[end] === ']';
      if (isEmpty) out += json.slice(at, ++end);
      else {
        depth++;
        out += char + line();
      }
    } else if (char === '}' || char === ']') {
      depth--;
      out += line() + char;
    } else if (char === ',') out += char + line();
    else if (char === ':') out += ': ';
    else {
      const token = char === '"' ? STRING : PLAIN;
      token.lastIndex = at;
      token.test(json);
      end = token.lastIndex;
      out += json.slice(at, end);
    }
    at = end;
  }
  return out;
}
