/** Durations as people read them in `kubectl get`: upstream's `duration.HumanDuration`. */

/** `45s`, `2m`, `5m10s`, `3h`, `2d3h`, `400d`, `3y20d`; `<invalid>` when more than a second in the future. */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / 1000);
  if (seconds < -1) return '<invalid>';
  if (seconds < 0) return '0s';
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 10) return pair(minutes, 'm', seconds % 60, 's');
  if (minutes < 180) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 8) return pair(hours, 'h', minutes % 60, 'm');
  if (hours < 48) return `${hours}h`;
  const days = Math.floor(hours / 24);
  if (hours < 24 * 8) return pair(days, 'd', hours % 24, 'h');
  if (hours < 24 * 365 * 2) return `${days}d`;
  const years = Math.floor(days / 365);
  if (hours < 24 * 365 * 8) return pair(years, 'y', days % 365, 'd');
  return `${years}y`;
}

function pair(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large}${largeUnit}` : `${large}${largeUnit}${small}${smallUnit}`;
}

/** Age of an RFC 3339 timestamp; `<unknown>` when absent or malformed. */
export function ageSince(timestamp: string | undefined | null, nowMs: number): string {
  const since = timestamp ? Date.parse(timestamp) : Number.NaN;
  return Number.isNaN(since) ? '<unknown>' : humanDuration(nowMs - since);
}

/** Time left until an RFC 3339 timestamp; `<unknown>` when absent. */
export function timeUntil(timestamp: string | undefined, nowMs: number): string {
  const until = timestamp ? Date.parse(timestamp) : Number.NaN;
  return Number.isNaN(until) ? '<unknown>' : humanDuration(until - nowMs);
}
