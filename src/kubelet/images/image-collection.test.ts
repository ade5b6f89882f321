import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { VirtualClock } from '../../base/clock.ts';
import { createLogger } from '../../base/log.ts';
import { ImageCollection } from './image-collection.ts';
import { ImageStore } from './image-store.ts';
import { PullRecords } from './pull-records.ts';

const work = mkdtempSync(join(tmpdir(), 'cox-collect-'));
after(() => rmSync(work, { recursive: true, force: true }));
let folders = 0;

async function bed(settings = '') {
  const folder = join(work, String(folders++));
  const store = new ImageStore(folder);
  if (settings) writeFileSync(join(folder, 'images.yaml'), settings);
  const clock = new VirtualClock();
  const disk = { capacityBytes: 1000, availableBytes: 500 };
  const warnings: string[] = [];
  const records = new PullRecords(folder);
  const collection = new ImageCollection({
    store,
    records,
    folder,
    disk: () => disk,
    warn: (reason, message) => warnings.push(`${reason}: ${message}`),
    clock,
    log: createLogger('test', { level: 'error' }),
  });
  const add = async (name: string) => {
    const config = Buffer.from(JSON.stringify({ rootfs: { type: 'layers', diff_ids: [] }, created: name }));
    return (
      await store.add({ config, layers: [], references: [`docker.io/library/${name}:1`], manifestDigest: undefined })
    ).id;
  };
  const left = () =>
    store
      .list()
      .flatMap(({ references }) => references.map(name => name.replace(/.*\/(.*):1/, '$1')))
      .sort();
  return { store, clock, disk, warnings, collection, records, add, left };
}

test('below the mark nothing goes; above it all that is unused and old enough, never what is used', async () => {
  const { store, clock, disk, warnings, collection, records, add, left } = await bed();
  const used = await add('used');
  const old = await add('old');
  store.hold(used, 'container');
  records.add(old, 'docker.io/library/old', undefined);
  await collection.collect();
  await clock.advance(130_000);
  await add('young');
  await collection.collect();
  assert.deepEqual(left(), ['old', 'used', 'young']);
  disk.availableBytes = 100;
  await assert.rejects(collection.collect(), /Insufficient free disk space/);
  assert.deepEqual(left(), ['used', 'young']);
  assert.deepEqual(warnings, [
    "FreeDiskSpaceFailed: Insufficient free disk space on the node's image filesystem (90% of 1000 B used). Failed to free sufficient space by deleting unused images (freed 0 bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
  ]);
  store.release(used, 'container');
  await clock.advance(130_000);
  await assert.rejects(collection.collect());
  assert.deepEqual(left(), []);
});

test('the greatest age, and settings that are refused', async () => {
  const { clock, collection, add, left, store } = await bed('imageMaximumGCAge: 1h');
  const id = await add('a');
  await add('b');
  await collection.collect();
  store.hold(id, 'c');
  await clock.advance(3_700_000);
  await collection.collect();
  assert.deepEqual(left(), ['a']);
  const broken = await bed('imageGCHighThresholdPercent: 101');
  await assert.rejects(broken.collection.collect(), /must be a whole number from 0 to 100/);
});
