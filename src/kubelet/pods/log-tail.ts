/** The end of a container's log as plain text: what a termination message falls back to. */

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

const BYTES_MAX = 2048;
const LINES_MAX = 80;

export function logTail(path: string): string {
  try {
    const fd = openSync(path, 'r');
    try {
      const { size } = fstatSync(fd);
      // Each line begins with some 45 bytes of time, stream and flag.
      const buffer = Buffer.alloc(Math.min(size, BYTES_MAX * 8));
      readSync(fd, buffer, 0, buffer.length, size - buffer.length);
      const lines = buffer.toString('utf8').split('\n').filter(Boolean);
      if (size > buffer.length) lines.shift();
      const text = lines
        .slice(-LINES_MAX)
        .map(line => {
          const [, , flag, ...rest] = line.split(' ');
          return rest.join(' ') + (flag === 'P' ? '' : '\n');
        })
        .join('');
      return text.slice(-BYTES_MAX);
    } finally {
      closeSync(fd);
    }
  } catch {
    return '';
  }
}
