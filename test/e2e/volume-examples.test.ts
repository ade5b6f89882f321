/** Every manifest of `examples/volumes` does what its head says: lines `# expect POD: TEXT` are found in the pods' logs. */

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it, root, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'volume-examples');
const folder = join(root, 'examples', 'volumes');
/** What needs a server of its own, or a network, is run by the tests that have one. */
const ELSEWHERE = new Set(['cephfs.yaml', 'git-repo.yaml', 'glusterfs.yaml', 'iscsi.yaml', 'nfs.yaml']);

for (const file of readdirSync(folder).filter(name => name.endsWith('.yaml'))) {
  const text = readFileSync(join(folder, file), 'utf8');
  if (ELSEWHERE.has(file)) continue;
  it(`examples/volumes/${file}`, cluster, async () => {
    const expected = [...text.matchAll(/^# expect (\S+): (.+)$/gm)].map(([, name, words]) => ({
      name: name!,
      words: words!,
    }));
    assert.ok(expected.length > 0, 'it says what to expect');
    await cluster.apply(ns, text);
    try {
      for (const { name, words } of expected)
        await eventually(
          `pod ${name} says ${JSON.stringify(words)}`,
          async () => (await cluster.tryKubectl('-n', ns, 'logs', name, '--all-containers')).stdout.includes(words),
          { timeoutMs: 60_000 },
        );
    } finally {
      await cluster.kubectlWith({ input: text }, '-n', ns, 'delete', '-f', '-', '--wait=false', '--ignore-not-found');
    }
  });
}
