/**
 * Volumes on one node: a storm of refreshes (a ConfigMap of 10 000 keys that changes; 100 pods of which each has one of 100 keys), and how
 * soon an agent that starts again knows the mounts of 200 pods. API server and kubelet are this process, so processor times are of
 * both. The floor of a refresh is writing the same files into an empty folder in memory. As root: `node26 bench/volumes-node.ts [pods]`.
 */

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeObject } from '../src/api/meta.ts';
import { CONFIG_MAPS } from '../src/client/resources.ts';
import { mountTmpfs, unmount } from '../src/sys/mount.ts';
import { isReady, TestNode } from '../test/kubelet/node.ts';

const KEYS = 10_000;
const STORM_PODS = 100;
const PODS = Number(process.argv[2] ?? 200);
const AT_ONCE = 8;

const node = new TestNode({ isolated: true, configuration: { maxPods: PODS + STORM_PODS + 10 } });
const keys = (count: number, value: string) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`key-${i}`, `${value} ${i} `.padEnd(40, 'x')]));
const spec = (map: string) => ({
  terminationGracePeriodSeconds: 0,
  containers: [
    {
      name: 'c',
      image: 'busybox:1',
      command: ['sleep', '100000'],
      volumeMounts: [
        { name: 'map', mountPath: '/map' },
        { name: 'memory', mountPath: '/memory' },
        { name: 'disk', mountPath: '/disk' },
      ],
    },
  ],
  volumes: [
    { name: 'map', configMap: { name: map } },
    { name: 'memory', emptyDir: { medium: 'Memory' } },
    { name: 'disk', emptyDir: {} },
  ],
});
const setMap = (name: string, data: Record<string, string>) =>
  node.api.patch(
    { of: CONFIG_MAPS, namespace: 'default', name },
    { data } as unknown as KubeObject,
    'application/merge-patch+json',
  );
async function pods(names: readonly string[], map: string): Promise<string[]> {
  const uids: string[] = [];
  for (let from = 0; from < names.length; from += AT_ONCE)
    uids.push(
      ...(await Promise.all(
        names.slice(from, from + AT_ONCE).map(async name => {
          const { metadata } = await node.create(name, spec(map));
          await node.until(name, isReady, 120_000);
          return metadata.uid!;
        }),
      )),
    );
  return uids;
}
const file = (uid: string, key: string) => join(node.root, 'run/p', uid, 'volumes/kubernetes.io~configmap/map', key);
async function untilAll(uids: readonly string[], key: string, text: string): Promise<void> {
  const left = new Set(uids);
  for (;;) {
    for (const uid of left) if (readFileSync(file(uid, key), 'utf8').startsWith(text)) left.delete(uid);
    if (left.size === 0) return;
    await sleep(5);
  }
}
async function measured(what: string, step: () => Promise<unknown>): Promise<void> {
  const before = process.cpuUsage();
  const startMs = performance.now();
  await step();
  const ms = performance.now() - startMs;
  const { user, system } = process.cpuUsage(before);
  console.log(`${what}: ${ms.toFixed(0)} ms, ${((user + system) / 1000).toFixed(0)} ms of processor`);
}

try {
  await node.start();
  await node.configMap('big', keys(KEYS, 'first'));
  const [big] = await pods(['big'], 'big');
  await measured(`floor: ${KEYS} files written`, async () => {
    const folder = join(node.root, 'floor');
    mountTmpfs(folder);
    mkdirSync(join(folder, 'new'));
    for (const [name, text] of Object.entries(keys(KEYS, 'floor'))) writeFileSync(join(folder, 'new', name), text);
    renameSync(join(folder, 'new'), join(folder, 'now'));
    unmount(folder);
  });
  for (const round of ['second', 'third'])
    await measured(`a ConfigMap of ${KEYS} keys changed, until its pod has all of it`, async () => {
      await setMap('big', keys(KEYS, round));
      await untilAll([big!], `key-${KEYS - 1}`, round);
    });
  await measured('one key of it changed', async () => {
    await setMap('big', { 'key-0': 'one' });
    await untilAll([big!], 'key-0', 'one');
  });

  await node.configMap('small', keys(KEYS / STORM_PODS, 'first'));
  const storm = await pods(
    Array.from({ length: STORM_PODS }, (_, i) => `storm-${i}`),
    'small',
  );
  await measured(
    `${STORM_PODS} pods with ${KEYS / STORM_PODS} keys each, all changed, until all have them`,
    async () => {
      await setMap('small', keys(KEYS / STORM_PODS, 'second'));
      await untilAll(storm, 'key-0', 'second');
    },
  );

  const all = [
    ...storm,
    ...(await pods(
      Array.from({ length: PODS - STORM_PODS }, (_, i) => `more-${i}`),
      'small',
    )),
  ];
  await node.stopKubelet();
  await setMap('small', { 'key-0': 'while away' });
  await measured(
    `agent started with ${PODS} pods of 3 volumes, until a change made while it was away is in all`,
    async () => {
      node.startKubelet();
      await untilAll(all, 'key-0', 'while away');
    },
  );
  await measured('a pod created then, until Ready', () => pods(['after'], 'small'));
} finally {
  await node.close();
}
