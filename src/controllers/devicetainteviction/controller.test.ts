import assert from 'node:assert/strict';
import { test } from 'node:test';
import { giveUpTime } from './controller.ts';

test('a device is given up at the first NoExecute taint whose tolerations end', () => {
  const now = Date.parse('2030-01-01T00:00:10Z');
  const taint = (key: string, effect = 'NoExecute') => ({ key, effect, timeAdded: '2030-01-01T00:00:00Z' });
  const added = now - 10_000;
  const tolerating = (key: string, tolerationSeconds?: number) => ({
    key,
    operator: 'Exists',
    ...(tolerationSeconds === undefined ? {} : { tolerationSeconds }),
  });
  assert.equal(giveUpTime([], [], now), undefined);
  assert.equal(giveUpTime([taint('a', 'NoSchedule'), taint('a', 'None')], [], now), undefined);
  assert.equal(giveUpTime([taint('a')], [], now), added);
  assert.equal(giveUpTime([{ key: 'a', effect: 'NoExecute' }], [], now), now);
  assert.equal(giveUpTime([taint('a')], [tolerating('a')], now), undefined);
  assert.equal(giveUpTime([taint('a')], [tolerating('a', 60), tolerating('a', 30)], now), added + 30_000);
  assert.equal(giveUpTime([taint('a')], [tolerating('a', -5)], now), added);
  assert.equal(giveUpTime([taint('a'), taint('b')], [tolerating('a'), tolerating('b', 5)], now), added + 5000);
});
