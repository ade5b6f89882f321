import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { giveToGroup } from './ownership.ts';

test('a volume with so many files that giving them to the group takes long is told of, until it is done', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'ownership-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'pods/u-1/volumes/v');
  mkdirSync(path, { recursive: true });
  for (let file = 0; file < 250; file++) writeFileSync(join(path, `f${file}`), '');
  // Time passes while the walk, which gives the thread back after 200 entries, is under way.
  const timers = new Map<number, () => void>();
  const after = (delayMs: number, callback: () => void) => {
    timers.set(delayMs, callback);
    return { cancel: () => timers.delete(delayMs) };
  };
  const passes = (delayMs: number) => {
    const callback = timers.get(delayMs);
    timers.delete(delayMs);
    callback?.();
  };
  const events: string[] = [];
  const event = (...words: string[]) => void events.push(words.join(' '));
  const context = { clock: { ...systemClock, after }, event, pod: { metadata: { name: 'p', uid: 'u-1' } } as never };
  const about = 'Warning VolumePermissionChangeInProgress Setting volume ownership for u-1/volumes/v';

  const walk = giveToGroup(path, { fsGroup: process.getgid!(), isReadOnly: false, context });
  assert.deepEqual(events, []);
  passes(30_000);
  assert.match(
    events.join(),
    new RegExp(`^${about} is taking longer than expected, consider using OnRootMismatch - https:`),
  );
  passes(60_000);
  assert.deepEqual(events.slice(1), [`${about}, processed 200 files.`]);
  await walk;
  assert.equal(timers.size, 0);
});
