import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { heatPaths } from './spec.ts';

test('the heat of processors is hidden, where they tell it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'heat-'));
  try {
    mkdirSync(join(folder, 'cpu0/thermal_throttle'), { recursive: true });
    mkdirSync(join(folder, 'cpu1'));
    mkdirSync(join(folder, 'cpufreq/thermal_throttle'), { recursive: true });
    assert.deepEqual(heatPaths(folder), [`${folder}/cpu0/thermal_throttle`]);
    assert.deepEqual(heatPaths(join(folder, 'none')), []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
