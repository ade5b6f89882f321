/**
 * Environment files (KEP-3721): a variable from a file that a container wrote into an emptyDir. The format is upstream's strict
 * subset of shell: `NAME='value'`, the value in single quotes and literal, over several lines where it is. Invariant: a link
 * in the volume leads nowhere outside of it, and nothing but a plain file of bounded size is read.
 */

import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { resolveInRoot } from '../runtime/users.ts';

const FILE_BYTES_MAX = 64 * 1024;

/** The value of a name; undefined when the text has none. Throws for text in another format. */
export function variableIn(text: string, name: string): string | undefined {
  let at = 0;
  for (let line = 1; at < text.length; line++) {
    const end = text.indexOf('\n', at) < 0 ? text.length : text.indexOf('\n', at);
    const row = text.slice(at, end);
    const start = row.trimStart();
    if (start === '' || start.startsWith('#')) {
      at = end + 1;
      continue;
    }
    const equals = start.indexOf('=');
    const key = equals < 0 ? '' : start.slice(0, equals);
    if (key === '' || key !== key.trimEnd()) throw new Error(`invalid environment variable format at line ${line}`);
    const value = start.slice(equals + 1);
    if (value === '' || /^\s/.test(value)) {
      if (key === name) return '';
      at = end + 1;
      continue;
    }
    if (!value.startsWith("'"))
      throw new Error(`invalid environment variable format at line ${line}: no single quotes`);
    const from = end - value.length + 1;
    const close = text.indexOf("'", from);
    if (close < 0) throw new Error(`unclosed single quote that began at line ${line}`);
    const content = text.slice(from, close);
    const rest = /[^\n]*/y;
    rest.lastIndex = close + 1;
    const after = rest.exec(text)![0];
    if (!/^\s*(#.*)?$/.test(after))
      throw new Error(`invalid environment variable format at line ${line}: more behind the quotes`);
    if (key === name) return content;
    line += content.split('\n').length - 1;
    at = close + 1 + after.length + 1;
  }
  return undefined;
}

/** The text of a file below `volume`; undefined when it is not there. */
export function readEnvironmentFile(volume: string, path: string): string | undefined {
  const real = resolveInRoot(volume, path);
  if (real === undefined) return undefined;
  const fd = openSync(real, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error(`${path} is not a file`);
    if (stat.size > FILE_BYTES_MAX) throw new Error(`${path} has more than ${FILE_BYTES_MAX} bytes`);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}
