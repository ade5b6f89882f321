/**
 * Logging: a constant message plus fields, one line each, on standard error. Log once, where the error is handled.
 * `COX_LOG=debug|info|warn|error` sets the level (default info).
 */

import { systemClock } from './clock.ts';

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger that adds `fields` to every line. */
  with(fields: LogFields): Logger;
}

const LEVELS = { debug: 0, info: 1, warn: 2, error: 3 } as const;
type Level = keyof typeof LEVELS;

function render(value: unknown): string {
  if (value instanceof Error) return JSON.stringify(value.stack ?? value.message);
  if (typeof value === 'string') return /^[\w./:@-]+$/.test(value) ? value : JSON.stringify(value);
  return JSON.stringify(value) ?? 'undefined';
}

export function createLogger(
  component: string,
  options: { level?: Level; write?: (line: string) => void } = {},
): Logger {
  const threshold = LEVELS[options.level ?? (process.env['COX_LOG'] as Level) ?? 'info'] ?? LEVELS.info;
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const make = (bound: LogFields): Logger => {
    const log =
      (level: Level) =>
      (message: string, fields: LogFields = {}) => {
        if (LEVELS[level] < threshold) return;
        let line = `${new Date(systemClock.now()).toISOString()} ${level.toUpperCase().padEnd(5)} ${component}: ${message}`;
        for (const [key, value] of Object.entries({ ...bound, ...fields }))
          if (value !== undefined) line += ` ${key}=${render(value)}`;
        write(`${line}\n`);
      };
    return {
      debug: log('debug'),
      info: log('info'),
      warn: log('warn'),
      error: log('error'),
      with: fields => make({ ...bound, ...fields }),
    };
  };
  return make({});
}

export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {}, with: () => silentLogger };
