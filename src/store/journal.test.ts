import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Journal } from './journal.ts';
import type { LogRecord } from './log-store.ts';

const record = (revision: number, value: string | undefined = `value ${revision}`): LogRecord => ({
  revision,
  key: `/k/ü${revision}`,
  createRevision: revision,
  previous: 0,
  value: value === undefined ? undefined : Buffer.from(value),
});
const shown = (records: readonly LogRecord[]) =>
  records.map(({ value, ...rest }) => ({ ...rest, value: value && Buffer.from(value).toString() }));

async function withPath(use: (path: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cox-journal-'));
  try {
    await use(join(directory, 'journal'));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function write(path: string, ...batches: LogRecord[][]): Promise<void> {
  const { journal } = Journal.open(path);
  for (const batch of batches) await journal.append(batch);
  journal.close();
}

function read(path: string): LogRecord[] {
  const { journal, records } = Journal.open(path);
  journal.close();
  return records;
}

test('journal: what was appended is there again, and goes on where it ended', async () => {
  await withPath(async path => {
    const deletion: LogRecord = { ...record(3), value: undefined, previous: 2 };
    await write(path, [record(1), record(2)], [deletion]);
    await write(path, [record(4)]);
    assert.deepEqual(shown(read(path)), shown([record(1), record(2), deletion, record(4)]));
  });
});

test('journal: a frame that is cut off anywhere does not count, and is written over', async () => {
  await withPath(async path => {
    await write(path, [record(1)]);
    const whole = readFileSync(path).length;
    await write(path, [record(2), record(3)]);
    const both = readFileSync(path);
    for (let length = whole; length < both.length; length += 7) {
      writeFileSync(path, both);
      truncateSync(path, length);
      assert.deepEqual(shown(read(path)), shown([record(1)]), `${length} bytes`);
    }
    await write(path, [record(2, 'again')]);
    assert.deepEqual(shown(read(path)), shown([record(1), record(2, 'again')]));
  });
});

test('journal: a changed byte anywhere in a frame makes it and what follows not count', async () => {
  await withPath(async path => {
    await write(path, [record(1)]);
    const whole = readFileSync(path).length;
    await write(path, [record(2)], [record(3)]);
    const all = readFileSync(path);
    for (let at = whole; at < whole + 40; at++) {
      const broken = Buffer.from(all);
      broken[at] = broken[at]! ^ 0x55;
      writeFileSync(path, broken);
      assert.deepEqual(shown(read(path)), shown([record(1)]), `byte ${at}`);
    }
  });
});

test('journal: what an earlier use left behind does not count', async () => {
  await withPath(async path => {
    const { journal } = Journal.open(path);
    // Frames of one size, so that the old ones begin where the new ones end.
    for (let i = 1; i <= 9; i++) await journal.append([record(100 + i)]);
    journal.restart();
    for (let i = 1; i <= 3; i++) await journal.append([record(200 + i)]);
    assert.equal(journal.last, 203);
    journal.close();
    assert.deepEqual(
      read(path).map(({ revision }) => revision),
      [201, 202, 203],
    );
  });
});
