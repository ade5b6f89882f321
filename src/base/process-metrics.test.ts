import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FEATURE_GATES } from './feature-gates.ts';
import { metrics } from './metrics.ts';
import { followProcess } from './process-metrics.ts';

test('features are told by name and stage, each once', () => {
  followProcess();
  followProcess();
  const page = metrics.render();
  const all = Object.values(FEATURE_GATES).flatMap(({ on, off }) => [...on, ...off]);
  const told = [...page.matchAll(/^kubernetes_feature_enabled\{name="(\w+)",stage="(?:|BETA|ALPHA)"\} [01]$/gm)];
  assert.deepEqual(
    told.map(([, name]) => name),
    [...new Set(all)],
  );
  assert.match(page, /^# TYPE kubernetes_feature_enabled gauge$/m);
  for (const line of [
    'kubernetes_feature_enabled{name="SidecarContainers",stage=""} 1',
    'kubernetes_feature_enabled{name="APIServerTracing",stage=""} 1',
    'kubernetes_feature_enabled{name="WatchList",stage="BETA"} 1',
    'kubernetes_feature_enabled{name="HPAScaleToZero",stage="ALPHA"} 0',
  ])
    assert.ok(page.includes(`\n${line}\n`), line);
});
