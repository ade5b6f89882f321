import { strict as assert } from 'node:assert';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { CSINode, VolumeAttachment } from '../../../api/storage/v1.gen.ts';
import { VirtualClock } from '../../../base/clock.ts';
import { notFound } from '../../../base/errors.ts';
import { silentLogger } from '../../../base/log.ts';
import type { InformerFactory } from '../../../client/informer.ts';
import { CSI_NODES } from '../../../client/resources.ts';
import type { Transport } from '../../../client/transport.ts';
import { GRPC, serveGrpc } from '../../../csi/grpc.ts';
import type { VolumeContext } from '../volume.ts';
import { AttachLimitExceeded, waitForAttachment } from './attachment.ts';
import { CsiDrivers } from './drivers.ts';

const rootDir = mkdtempSync(join(tmpdir(), 'cox-drivers-'));
const abort = new AbortController();
const clock = new VirtualClock();
const closers: (() => Promise<unknown>)[] = [];
after(async () => {
  abort.abort();
  for (const close of closers) await close();
  rmSync(rootDir, { recursive: true, force: true });
});

let limit = 3;
let csiNode: CSINode | undefined;
const transport = {
  get: ({ of, name }: { of: unknown; name: string }) =>
    of === CSI_NODES
      ? csiNode
        ? Promise.resolve(structuredClone(csiNode))
        : Promise.reject(notFound({ group: 'storage.k8s.io', resource: 'csinodes' }, name))
      : Promise.resolve({ metadata: { name, uid: 'u' } }),
  create: (_: unknown, object: CSINode) => Promise.resolve((csiNode = object)),
  update: (_: unknown, object: CSINode) => Promise.resolve((csiNode = object)),
  patch: () => Promise.resolve({}),
} as unknown as Transport;
const objects = {
  synced: Promise.resolve(),
  get: (name: string) => ({ spec: name === 'asked' ? { nodeAllocatableUpdatePeriodSeconds: 60 } : {} }),
};
const drivers = new CsiDrivers({
  nodeName: 'n',
  rootDir,
  transport,
  informers: { get: () => objects } as unknown as InformerFactory,
  clock,
  log: silentLogger,
});
const counts = () => Object.fromEntries((csiNode?.spec.drivers ?? []).map(one => [one.name, one.allocatable?.count]));

async function until(check: () => boolean): Promise<void> {
  const endMs = Date.now() + 20_000;
  while (!check()) {
    if (Date.now() > endMs) assert.fail('not in time');
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

test('how many volumes the node takes is asked again when the driver wants that, and only then', async () => {
  mkdirSync(drivers.folder, { recursive: true });
  for (const name of ['asked', 'once']) {
    const endpoint = join(rootDir, `${name}.s`);
    const servers = [
      await serveGrpc(endpoint, {
        nodeGetInfo: () => ({ nodeId: 'id', maxVolumesPerNode: limit }),
        nodeGetCapabilities: () => ({ capabilities: [] }),
      }),
      await serveGrpc(join(drivers.folder, `${name}.sock`), {
        registrationInfo: () => ({ type: 'CSIPlugin', name, endpoint, supportedVersions: ['1.0.0'] }),
        registrationStatus: () => ({}),
      }),
    ];
    closers.push(...servers.map(server => () => server.close()));
  }
  const running = drivers.run(abort.signal);
  closers.unshift(() => running);
  await until(() => counts()['asked'] === 3 && counts()['once'] === 3);
  limit = 2;
  const endMs = Date.now() + 20_000;
  while (counts()['asked'] !== 2 && Date.now() < endMs) {
    await clock.advance(1000);
    await new Promise(resolve => setTimeout(resolve, 2));
  }
  assert.deepEqual(counts(), { asked: 2, once: 3 });
  assert.ok(clock.monotonic() >= 60_000, `asked again after ${clock.monotonic()} ms`);
});

test('a node that takes no more: the limit is asked for, and the pod is told, for drivers that want that', async () => {
  limit = 1;
  const exhausted = { message: 'no slot', errorCode: GRPC.RESOURCE_EXHAUSTED };
  const wait = async (driver: string, attachError: object) => {
    const context = {
      clock,
      signal: abort.signal,
      volumes: { csi: drivers },
      fetch: () => Promise.resolve({ metadata: {}, status: { attached: false, attachError } } as VolumeAttachment),
    } as unknown as VolumeContext;
    let result: unknown;
    void waitForAttachment(context, { name: 'a', driver, handle: 'h' }).catch(error => {
      result = error;
    });
    while (result === undefined) {
      await clock.advance(1000);
      await new Promise(resolve => setTimeout(resolve, 1));
    }
    return result as Error;
  };
  const refused = await wait('asked', exhausted);
  assert.ok(refused instanceof AttachLimitExceeded);
  assert.match(refused.message, /timed out waiting for external-attacher of asked CSI driver .*: no slot$/);
  assert.equal(counts()['asked'], 1);
  assert.ok(!((await wait('once', exhausted)) instanceof AttachLimitExceeded));
  assert.ok(!((await wait('asked', { message: 'away', errorCode: GRPC.UNAVAILABLE })) instanceof AttachLimitExceeded));
});
