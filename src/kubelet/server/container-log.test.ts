import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { copyLog, type LogOptions, openLog } from './container-log.ts';
import { formatTimestamp, parseNanos } from './log-line.ts';

const folder = mkdtempSync(join(tmpdir(), 'container-log-'));
after(() => rmSync(folder, { recursive: true }));
let count = 0;

const ALL: LogOptions = {
  follow: false,
  timestamps: false,
  tailLines: undefined,
  limitBytes: undefined,
  sinceNanos: undefined,
  stream: undefined,
};

interface Reading {
  text(): string;
  readonly done: Promise<void>;
  end(): void;
}

async function start(path: string, options: Partial<LogOptions>): Promise<Reading> {
  const out = new PassThrough();
  let text = '';
  let isLive = true;
  let wake = () => {};
  out.on('data', chunk => (text += chunk));
  const source = {
    path,
    isLive: async () => isLive,
    onChange: (callback: () => void) => {
      wake = callback;
      return () => {};
    },
  };
  const done = copyLog(
    await openLog(path),
    source,
    { ...ALL, ...options },
    out,
    systemClock,
    new AbortController().signal,
  );
  return {
    text: () => text,
    done,
    end: () => {
      isLive = false;
      wake();
    },
  };
}

async function read(content: string, options: Partial<LogOptions> = {}): Promise<string> {
  const path = join(folder, `${count++}.log`);
  writeFileSync(path, content);
  const reading = await start(path, options);
  await reading.done;
  return reading.text();
}

async function until(check: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !check(); i++) await new Promise(resolve => setTimeout(resolve, 5));
  assert.ok(check());
}

const LOG = [
  '2026-01-01T00:00:00.000000001Z stdout F one\n',
  '2026-01-01T00:00:01.5+00:00 stdout P tw\n',
  '2026-01-01T00:00:01.6+00:00 stdout F o\n',
  'not a log line\n',
  '2026-01-01T00:00:02+01:00 stderr F \n',
  '2026-01-01T00:00:03Z stderr F:x three\n',
].join('');

test('lines are joined, stamped, filtered and cut', async () => {
  assert.equal(await read(LOG), 'one\ntwo\n\nthree\n');
  assert.equal(
    await read(LOG, { timestamps: true }),
    '2026-01-01T00:00:00.000000001Z one\n2026-01-01T00:00:01.500000000Z two\n' +
      '2026-01-01T00:00:02.000000000+01:00 \n2026-01-01T00:00:03.000000000Z three\n',
  );
  assert.equal(await read(LOG, { stream: 'stderr' }), '\nthree\n');
  assert.equal(await read(LOG, { limitBytes: 6 }), 'one\ntw');
  assert.equal(await read(LOG, { sinceNanos: parseNanos('2026-01-01T00:00:01.6Z')! }), 'o\nthree\n');
});

test('the last lines', async () => {
  assert.equal(await read(LOG, { tailLines: 0 }), '');
  assert.equal(await read(LOG, { tailLines: 1 }), 'three\n');
  assert.equal(await read(LOG, { tailLines: 100 }), 'one\ntwo\n\nthree\n');
  const many = Array.from({ length: 3000 }, (_, i) => `2026-01-01T00:00:00Z stdout F line ${i}\n`).join('');
  assert.equal((await read(many, { tailLines: 2500 })).split('\n')[0], 'line 500');
  assert.equal((await read(many)).length, many.length - 3000 * '2026-01-01T00:00:00Z stdout F '.length);
  // What is not ended by a newline is no line of its own.
  assert.equal(
    await read('2026-01-01T00:00:00Z stdout F a\n2026-01-01T00:00:00Z stdout F b', { tailLines: 1 }),
    'a\nb',
  );
});

test('lines written while the last ones are read are not added to them', async () => {
  const path = join(folder, 'growing.log');
  const line = (text: string) => `2026-01-01T00:00:00Z stdout F ${text}\n`;
  writeFileSync(path, line('a') + line('b') + line('c'));
  const file = await openLog(path);
  const { stat } = file;
  file.stat = (async () => {
    const seen = await stat.call(file);
    appendFileSync(path, line('later'));
    return seen;
  }) as typeof stat;
  const out = new PassThrough();
  const source = { path, isLive: async () => true, onChange: () => () => {} };
  await copyLog(file, source, { ...ALL, tailLines: 2 }, out, systemClock, new AbortController().signal);
  assert.equal(String(out.read()), 'b\nc\n');
});

test('following goes on through growth, torn writes, rotation and truncation, to the last words', async () => {
  const path = join(folder, 'follow.log');
  const line = (text: string) => `2026-01-01T00:00:00Z stdout F ${text}\n`;
  writeFileSync(path, line('a'));
  const reading = await start(path, { follow: true });
  await until(() => reading.text() === 'a\n');
  appendFileSync(path, line('b').slice(0, 10));
  await new Promise(resolve => setTimeout(resolve, 20));
  appendFileSync(path, line('b').slice(10));
  await until(() => reading.text() === 'a\nb\n');
  renameSync(path, `${path}.1`);
  appendFileSync(`${path}.1`, line('c'));
  writeFileSync(path, line('d'));
  await until(() => reading.text() === 'a\nb\nc\nd\n');
  writeFileSync(path, '');
  // Nothing tells when the reader has seen it empty.
  await new Promise(resolve => setTimeout(resolve, 250));
  appendFileSync(path, line('e'));
  await until(() => reading.text() === 'a\nb\nc\nd\ne\n');
  appendFileSync(path, line('f'));
  reading.end();
  await reading.done;
  assert.equal(reading.text(), 'a\nb\nc\nd\ne\nf\n');
});

test('times', () => {
  assert.equal(formatTimestamp('2026-01-01T00:00:00.12Z'), '2026-01-01T00:00:00.120000000Z');
  assert.equal(formatTimestamp('2026-01-01T00:00:00-07:00'), '2026-01-01T00:00:00.000000000-07:00');
  assert.equal(parseNanos('1970-01-01T01:00:00.000000005+01:00'), 5n);
  assert.equal(parseNanos('yesterday'), undefined);
});
