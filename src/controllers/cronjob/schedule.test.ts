import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSchedule } from './schedule.ts';

const next = (text: string, after: string, zone?: string) => {
  const atMs = parseSchedule(text, zone).next(Date.parse(after));
  return atMs === undefined ? undefined : new Date(atMs).toISOString().slice(0, 16);
};

test('next times', () => {
  assert.equal(next('* * * * *', '2026-01-01T00:00:30Z'), '2026-01-01T00:01');
  assert.equal(next('*/15 * * * *', '2026-01-01T00:15:00Z'), '2026-01-01T00:30');
  assert.equal(next('0 3 * * *', '2026-01-01T03:00:00Z'), '2026-01-02T03:00');
  assert.equal(next('30 12 1 * *', '2026-01-15T00:00:00Z'), '2026-02-01T12:30');
  assert.equal(next('0 0 * * mon-fri', '2026-01-02T12:00:00Z'), '2026-01-05T00:00');
  assert.equal(next('0 0 13 * 5', '2026-01-01T12:00:00Z'), '2026-01-02T00:00');
  assert.equal(next('@daily', '2026-01-01T12:00:00Z'), '2026-01-02T00:00');
  assert.equal(next('0 0 30 feb *', '2026-01-01T00:00:00Z'), undefined);
});

test('in a time zone', () => {
  assert.equal(next('0 9 * * *', '2026-01-01T00:00:00Z', 'Asia/Kolkata'), '2026-01-01T03:30');
  assert.equal(next('0 9 * * *', '2026-07-01T00:00:00Z', 'America/New_York'), '2026-07-01T13:00');
});

test('what is no schedule is refused', () => {
  for (const text of ['', '* * * *', '60 * * * *', '* * * * mo', '*/0 * * * *', '5-2 * * * *'])
    assert.throws(() => parseSchedule(text), text);
  assert.throws(() => parseSchedule('* * * * *', 'Mars/Olympus'));
});
