/**
 * Volumes as a user meets them: a pod's time to Ready without a volume, with one claim of cox-local (made for it) and with twenty, and
 * 1 000 claims bound to volumes that are there. The floor is what the programs alone take that make one disk (fallocate, losetup,
 * mkfs, mount). Run as root: `node26 bench/volumes.ts`. Images: tools/images/build.ts (busybox).
 */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const root = resolve(import.meta.dirname, '..');
const cox = join(root, 'cox');
const name = 'bench-volumes';
const ROUNDS = 5;
const stateDir = mkdtempSync(join(tmpdir(), 'cox-bench-volumes-'));
const run = (...args: string[]): string =>
  execFileSync(cox, [...args, '--name', name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
let kubeconfig = '';
const kubectl = (input: string | undefined, ...args: string[]): string =>
  execFileSync('kubectl', args, {
    encoding: 'utf8',
    env: { ...process.env, KUBECONFIG: kubeconfig },
    ...(input === undefined ? {} : { input }),
  });
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

const claim = (id: string, extra: object = {}) => ({
  apiVersion: 'v1',
  kind: 'PersistentVolumeClaim',
  metadata: { name: id },
  spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '16Mi' } }, ...extra },
});
const pod = (id: string, claims: readonly string[]) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: id },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [
      {
        name: 'main',
        image: 'busybox:1.35',
        command: ['sleep', '3600'],
        volumeMounts: claims.map(one => ({ name: one, mountPath: `/mnt/${one}` })),
      },
    ],
    volumes: claims.map(one => ({ name: one, persistentVolumeClaim: { claimName: one } })),
  },
});
const list = (items: readonly object[]) => JSON.stringify({ apiVersion: 'v1', kind: 'List', items });

/** Milliseconds from the pod's creation to its Ready condition, by a kubectl that watches. */
function timeReady(id: string, volumes: number): number {
  const claims = Array.from({ length: volumes }, (_, i) => `${id}-${i}`);
  const start = performance.now();
  kubectl(list([...claims.map(one => claim(one)), pod(id, claims)]), 'create', '-f', '-');
  kubectl(undefined, 'wait', '--for=condition=Ready', `pod/${id}`, '--timeout=120s');
  const ms = performance.now() - start;
  kubectl(undefined, 'delete', 'pod', id, '--wait=false');
  if (claims.length) kubectl(undefined, 'delete', 'pvc', ...claims, '--wait=false');
  return ms;
}

function diskFloor(): number {
  const file = join(stateDir, 'floor.img');
  const target = mkdtempSync(join(stateDir, 'floor-'));
  const program = (...[command, ...args]: [string, ...string[]]) =>
    execFileSync(command, args, { encoding: 'utf8' }).trim();
  const start = performance.now();
  program('fallocate', '-l', '16M', file);
  const device = program('losetup', '--find', '--show', file);
  program('mkfs.ext4', '-q', '-F', '-m0', device);
  program('mount', device, target);
  const ms = performance.now() - start;
  program('umount', target);
  program('losetup', '--detach', device);
  rmSync(file);
  return ms;
}

try {
  run('up', '--nodes', '1', '--api-port', '0', '--state-dir', stateDir);
  kubeconfig = run('kubeconfig', '--path').trim();
  run('image', 'load', join(root, '.cache', 'images', 'busybox-1.35.tar'));
  const rounds = (volumes: number, count: number) =>
    median(Array.from({ length: count }, (_, i) => timeReady(`v${volumes}-${i}`, volumes)));
  const none = rounds(0, ROUNDS);
  const one = rounds(1, ROUNDS);
  const twenty = rounds(20, 3);
  const floor = median(Array.from({ length: ROUNDS }, diskFloor));
  const ms = (value: number) => `${value.toFixed(0)} ms`;
  console.log(`pod without a volume, create to Ready (two kubectls included): ${ms(none)}`);
  console.log(
    `pod with 1 claim made for it: ${ms(one)}, of which the volume ${ms(one - none)}; its disk alone ${ms(floor)}`,
  );
  console.log(`pod with 20 claims made for it: ${ms(twenty)}; 20 disks alone ${ms(20 * floor)}`);

  const bulk = Array.from({ length: 1000 }, (_, i) => i);
  const spec = { storageClassName: 'bulk' };
  const volumes = bulk.map(i => ({
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: `bulk-${i}` },
    spec: { ...spec, capacity: { storage: '1Gi' }, accessModes: ['ReadWriteOnce'], hostPath: { path: '/tmp' } },
  }));
  kubectl(list(volumes), 'create', '-f', '-');
  const start = performance.now();
  kubectl(list(bulk.map(i => claim(`bulk-${i}`, spec))), 'create', '-f', '-');
  const createdMs = performance.now() - start;
  for (;;) {
    const phases = kubectl(undefined, 'get', 'pvc', '-o', 'jsonpath={range .items[*]}{.status.phase}{"\\n"}{end}');
    if (phases.split('\n').filter(phase => phase === 'Bound').length >= 1000) break;
    await sleep(100);
  }
  console.log(
    `1 000 claims bound: ${ms(performance.now() - start)} (kubectl took ${ms(createdMs)} to create them, one after the other)`,
  );
} finally {
  run('down');
  rmSync(stateDir, { recursive: true, force: true });
}
