import assert from 'node:assert/strict';
import test from 'node:test';
import { pod as kind } from './pod.ts';
import type { Pod } from './v1.gen.ts';

test('a pod keeps its own values of matchLabelKeys in the selectors of its spread, as since 1.34', () => {
  const spread = (labelSelector: object): Pod => {
    const made: Pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'web', namespace: 'default', labels: { app: 'web', hash: 'x1' } },
      spec: {
        containers: [{ name: 'c', image: 'nginx' }],
        topologySpreadConstraints: [
          {
            maxSkew: 1,
            topologyKey: 'zone',
            whenUnsatisfiable: 'DoNotSchedule',
            labelSelector,
            matchLabelKeys: ['hash', 'none'],
          },
        ],
      },
    };
    kind.defaults!(made);
    kind.prepareCreate!(made);
    return made;
  };
  const findings = (made: Pod) => kind.validate!(made).map(({ field, message }) => `${field}: ${message}`);
  const made = spread({ matchLabels: { app: 'web' } });
  assert.deepEqual(made.spec!.topologySpreadConstraints![0]!.labelSelector, {
    matchLabels: { app: 'web' },
    matchExpressions: [{ key: 'hash', operator: 'In', values: ['x1'] }],
  });
  assert.deepEqual(findings(made), []);
  assert.deepEqual(findings(spread({ matchLabels: { hash: 'x1' } })), [
    'spec.topologySpreadConstraints[0][0]: Invalid value: "hash": exists in both matchLabelKeys and labelSelector',
  ]);
});
