/** Every manifest of `examples/volumes` does what its head says: lines `# expect POD: TEXT` are found in the pods' logs, `# expect event …` in events. */

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { it, type Json, root, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'volume-examples');
const folder = join(root, 'examples', 'volumes');
/** What needs a server of its own, or a network, is run by the tests that have one. */
const ELSEWHERE = new Set([
  ...['cephfs.yaml', 'flex-volume.yaml', 'git-repo.yaml', 'glusterfs.yaml', 'iscsi.yaml', 'nfs.yaml'],
]);

for (const file of readdirSync(folder).filter(name => name.endsWith('.yaml'))) {
  const text = readFileSync(join(folder, file), 'utf8');
  if (ELSEWHERE.has(file)) continue;
  it(`examples/volumes/${file}`, cluster, async () => {
    const expected = [...text.matchAll(/^# expect (?:(event) )?(\S+): (.+)$/gm)].map(([, event, name, words]) => ({
      isEvent: event !== undefined,
      name: name!,
      words: words!,
    }));
    assert.ok(expected.length > 0, 'it says what to expect');
    await cluster.apply(ns, text);
    try {
      for (const { isEvent, name, words } of expected)
        await eventually(
          `${isEvent ? 'event' : 'pod'} ${name} says ${JSON.stringify(words)}`,
          async () =>
            isEvent
              ? (await cluster.json('-n', ns, 'get', 'events')).items.some(
                  (one: Json) => one.reason === name && one.message.includes(words),
                )
              : (await cluster.tryKubectl('-n', ns, 'logs', name, '--all-containers')).stdout.includes(words),
          { timeoutMs: 60_000 },
        );
    } finally {
      await cluster.kubectlWith({ input: text }, '-n', ns, 'delete', '-f', '-', '--wait=false', '--ignore-not-found');
    }
  });
}
