/** Cron schedules: five fields, names, steps, `@daily` and the like, in a time zone. Pure. */

const MACROS: Readonly<Record<string, string>> = {
  '@yearly': '0 0 1 1 *',
  '@annually': '0 0 1 1 *',
  '@monthly': '0 0 1 * *',
  '@weekly': '0 0 * * 0',
  '@daily': '0 0 * * *',
  '@midnight': '0 0 * * *',
  '@hourly': '0 * * * *',
};
const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];
const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];
/** A schedule without a match in five years (30 February) has none. */
const SEARCH_MS_MAX = 5 * 366 * 24 * 3600 * 1000;
const MINUTE_MS = 60_000;

interface Field {
  readonly values: ReadonlySet<number>;
  readonly any: boolean;
}

function parseField(text: string, range: { min: number; max: number; names?: readonly string[] }): Field {
  const { min, max, names } = range;
  const number = (word: string): number => {
    const named = names?.indexOf(word.toLowerCase()) ?? -1;
    const value = named >= 0 ? named + (names === MONTHS ? 1 : 0) : Number(word);
    if (!/^\d+$/.test(word) && named < 0) throw new Error(`failed to parse int from ${word}`);
    if (value < min || value > max) throw new Error(`value (${value}) out of range [${min}, ${max}]: ${text}`);
    return value;
  };
  const values = new Set<number>();
  let any = false;
  for (const part of text.split(',')) {
    const [span = '', stepText] = part.split('/');
    const step = stepText === undefined ? 1 : Number(stepText);
    if (!Number.isInteger(step) || step < 1) throw new Error(`step of range should be a positive number: ${part}`);
    const [first, last] = span.split('-');
    const star = span === '*' || span === '?';
    if (star && step === 1) any = true;
    const from = star ? min : number(first!);
    const to = star || (last === undefined && stepText !== undefined) ? max : number(last ?? first!);
    if (from > to) throw new Error(`beginning of range (${from}) beyond end of range (${to}): ${part}`);
    for (let value = from; value <= to; value += step) values.add(value);
  }
  return { values, any };
}

export interface Schedule {
  /** The first match strictly after the time given, milliseconds since the epoch; undefined when there is none. */
  next(afterMs: number): number | undefined;
}

/** Throws with the reason when the text is no schedule or the zone unknown. */
export function parseSchedule(text: string, timeZone = 'UTC'): Schedule {
  const every = /^@every\s+(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/.exec(text.trim());
  if (every) {
    const periodMs = 1000 * (Number(every[1] ?? 0) * 3600 + Number(every[2] ?? 0) * 60 + Number(every[3] ?? 0));
    if (periodMs < 1000) throw new Error(`failed to parse duration ${text}`);
    return { next: afterMs => Math.floor(afterMs / 1000) * 1000 + periodMs };
  }
  const words = (MACROS[text.trim()] ?? text).trim().split(/\s+/);
  if (words.length !== 5) throw new Error(`expected exactly 5 fields, found ${words.length}: [${words.join(' ')}]`);
  const [minute, hour, day, month] = [
    parseField(words[0]!, { min: 0, max: 59 }),
    parseField(words[1]!, { min: 0, max: 23 }),
    parseField(words[2]!, { min: 1, max: 31 }),
    parseField(words[3]!, { min: 1, max: 12, names: MONTHS }),
  ];
  const weekday = parseField(words[4]!.replaceAll('7', '0'), { min: 0, max: 6, names: DAYS });
  const local = localTime(timeZone);
  const dayMatches = (at: LocalTime) => {
    const byDay = day.values.has(at.day);
    const byWeekday = weekday.values.has(at.weekday);
    return day.any || weekday.any ? byDay && byWeekday : byDay || byWeekday;
  };
  return {
    next(afterMs) {
      let atMs = (Math.floor(afterMs / MINUTE_MS) + 1) * MINUTE_MS;
      const endMs = atMs + SEARCH_MS_MAX;
      while (atMs < endMs) {
        const at = local(atMs);
        // Coarse steps while the day is wrong, then hours, then minutes. Half an hour, since zones may shift by that.
        if (!month.values.has(at.month) || !dayMatches(at))
          atMs += Math.max(MINUTE_MS, Math.min(30 * MINUTE_MS, ((23 - at.hour) * 60 + 60 - at.minute) * MINUTE_MS));
        else if (!hour.values.has(at.hour)) atMs += Math.min(30, 60 - at.minute) * MINUTE_MS;
        else if (!minute.values.has(at.minute)) atMs += MINUTE_MS;
        else return atMs;
      }
      return undefined;
    },
  };
}

interface LocalTime {
  readonly minute: number;
  readonly hour: number;
  readonly day: number;
  readonly month: number;
  readonly weekday: number;
}

function localTime(timeZone: string): (ms: number) => LocalTime {
  if (timeZone === 'UTC' || timeZone === 'Etc/UTC') {
    return ms => {
      const date = new Date(ms);
      return {
        minute: date.getUTCMinutes(),
        hour: date.getUTCHours(),
        day: date.getUTCDate(),
        month: date.getUTCMonth() + 1,
        weekday: date.getUTCDay(),
      };
    };
  }
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone,
    hourCycle: 'h23',
    minute: 'numeric',
    hour: 'numeric',
    day: 'numeric',
    month: 'numeric',
    weekday: 'short',
  });
  return ms => {
    const parts = Object.fromEntries(format.formatToParts(ms).map(({ type, value }) => [type, value]));
    return {
      minute: Number(parts['minute']),
      hour: Number(parts['hour']),
      day: Number(parts['day']),
      month: Number(parts['month']),
      weekday: DAYS.indexOf(parts['weekday']!.toLowerCase()),
    };
  };
}
