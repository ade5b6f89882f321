/** Durations as Go writes them in JSON, and in nanoseconds, as protobuf carries them. */

/** Go's `time.Duration.String` for whole and fractional seconds: `1h2m3.5s`. */
export function formatDuration(nanos: number): string {
  if (nanos === 0) return '0s';
  const sign = nanos < 0 ? '-' : '';
  const size = Math.abs(nanos);
  if (size < 1e3) return `${sign}${size}ns`;
  if (size < 1e6) return `${sign}${Number((size / 1e3).toFixed(3))}µs`;
  if (size < 1e9) return `${sign}${Number((size / 1e6).toFixed(6))}ms`;
  const seconds = size / 1e9;
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return `${sign}${hours ? `${hours}h` : ''}${hours || minutes ? `${minutes}m` : ''}${Number((seconds % 60).toFixed(9))}s`;
}

const DURATION_PART = /([\d.]+)(ns|us|µs|ms|s|m|h)/g;
const NANOS: Readonly<Record<string, number>> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };

export function parseDuration(text: string): number {
  let nanos = 0;
  for (const [, amount, unit] of text.matchAll(DURATION_PART)) nanos += Number(amount) * NANOS[unit!]!;
  return text.startsWith('-') ? -nanos : nanos;
}
