/**
 * One line of a container log in the CRI format, `<RFC 3339 with nanoseconds> stdout|stderr <tags> <text>`, told apart
 * without copying it.
 */

const SPACE = 0x20;
const NEWLINE = 0x0a;
const PARTIAL = 0x50;

export interface LogLine {
  readonly timestamp: Buffer;
  readonly stream: 'stdout' | 'stderr';
  /** With its newline, unless the line goes on in the next one. */
  readonly text: Buffer;
}

/** Undefined when the bytes are no such line. `line` ends with a newline, unless the file was cut short. */
export function parseLogLine(line: Buffer): LogLine | undefined {
  const afterTime = line.indexOf(SPACE);
  const afterStream = line.indexOf(SPACE, afterTime + 1);
  const afterTags = line.indexOf(SPACE, afterStream + 1);
  if (afterTime <= 0 || afterStream < 0 || afterTags < 0) return undefined;
  const stream = line.toString('latin1', afterTime + 1, afterStream);
  if (stream !== 'stdout' && stream !== 'stderr') return undefined;
  // Of several tags, parted by colons, the first says whether the line is whole.
  const isPartial = line[afterStream + 1] === PARTIAL;
  const hasNewline = line[line.length - 1] === NEWLINE;
  return {
    timestamp: line.subarray(0, afterTime),
    stream,
    text: line.subarray(afterTags + 1, isPartial && hasNewline ? line.length - 1 : line.length),
  };
}

/** As clients see it: always nine digits of a second, and `Z` for a zone without offset. */
export function formatTimestamp(timestamp: string): string {
  const match = /^([^.+Z-]*-[^.+Z-]*-[^.+Z-]*)(?:\.(\d*))?(Z|[+-]\d\d:\d\d)$/.exec(timestamp);
  if (!match) return timestamp;
  const [, seconds, fraction = '', zone] = match;
  return `${seconds}.${fraction.padEnd(9, '0')}${zone === '+00:00' || zone === '-00:00' ? 'Z' : zone}`;
}

/** Nanoseconds since the epoch; undefined when the text is no RFC 3339 time. */
export function parseNanos(timestamp: string): bigint | undefined {
  const match = /^(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)$/.exec(timestamp);
  const ms = match ? Date.parse(`${match[1]}${match[3]}`) : Number.NaN;
  if (Number.isNaN(ms)) return undefined;
  return BigInt(ms) * 1_000_000n + BigInt((match![2] ?? '').padEnd(9, '0'));
}
