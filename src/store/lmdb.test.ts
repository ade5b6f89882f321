import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { storeContract } from './contract.ts';
import { LmdbStore } from './lmdb.ts';

const directories: string[] = [];
function newDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'cox-store-'));
  directories.push(directory);
  return directory;
}
after(() => {
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});

storeContract('lmdb', async () => LmdbStore.open(newDirectory()));

test('lmdb: everything is there after it was opened again', async () => {
  const directory = newDirectory();
  let store = await LmdbStore.open(directory);
  for (const value of ['1', '2']) await store.commit({ type: 'put', key: '/a', value: Buffer.from(value) });
  await store.commit({ type: 'put', key: '/b', value: Buffer.from('b') });
  await store.commit({ type: 'delete', key: '/b' });
  await store.close();
  store = await LmdbStore.open(directory);
  assert.equal(store.revision(), 4);
  assert.equal(Buffer.from((await store.get('/a', 1))!.value).toString(), '1');
  assert.equal(await store.get('/b'), undefined);
  await store.compact(4);
  await store.close();
  store = await LmdbStore.open(directory);
  assert.equal(store.revision(), 4);
  assert.equal((await store.list('/')).entries.length, 1);
  await assert.rejects(store.get('/a', 1));
  assert.equal(await store.commit({ type: 'put', key: '/b', value: Buffer.from('again'), expect: 'absent' }), 5);
  assert.ok(store.bytesOnDisk() >= 4096, String(store.bytesOnDisk()));
  await store.close();
});

test('lmdb: overwriting does not grow the file once history is compacted', async () => {
  const directory = newDirectory();
  const store = await LmdbStore.open(directory);
  const value = Buffer.alloc(1000, 'x');
  let sizeEarly = 0;
  for (let round = 0; round < 12; round++) {
    await Promise.all(Array.from({ length: 500 }, (_, i) => store.commit({ type: 'put', key: `/k/${i}`, value })));
    await store.compact(store.revision());
    if (round === 3) sizeEarly = statSync(join(directory, 'data.mdb')).size;
  }
  const size = statSync(join(directory, 'data.mdb')).size;
  assert.ok(size <= sizeEarly * 1.3, `${size} bytes after 12 rounds, ${sizeEarly} after 4`);
  await store.close();
});

const writer = `
import { LmdbStore } from ${JSON.stringify(join(import.meta.dirname, 'lmdb.ts'))};
const store = await LmdbStore.open(process.argv[1]);
let next = 0;
const work = async () => {
  for (;;) {
    const i = next++;
    const revision = await store.commit({ type: 'put', key: '/k/' + i, value: Buffer.from('value ' + i), expect: 'absent' });
    process.stdout.write(i + ' ' + revision + '\\n');
  }
};
for (let i = 0; i < 64; i++) void work();
`;

test('lmdb: what was acknowledged survives kill -9', async () => {
  const directory = newDirectory();
  const child: ChildProcess = spawn(process.execPath, ['--input-type=module', '-e', writer, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const acknowledged: [key: string, revision: number][] = [];
  for await (const line of createInterface({ input: child.stdout! })) {
    const [index, revision] = line.split(' ');
    if (revision) acknowledged.push([`/k/${index}`, Number(revision)]);
    if (acknowledged.length === 2000) child.kill('SIGKILL');
  }
  assert.ok(acknowledged.length >= 2000);
  const store = await LmdbStore.open(directory);
  for (const [key, revision] of acknowledged) {
    const entry = await store.get(key);
    assert.equal(entry?.modRevision, revision);
    assert.equal(Buffer.from(entry!.value).toString(), `value ${key.slice(3)}`);
  }
  assert.equal((await store.list('/k/')).entries.length, store.revision());
  await store.close();
});

test('lmdb: killed again and again, at any point between journals and database, it loses nothing', async () => {
  const directory = newDirectory();
  let count = 0;
  // A journal takes 4096 records: some are in the database, some on their way, some in each journal.
  for (const more of [200, 4200, 300]) {
    const acknowledged: number[] = [];
    const source = writer.replace('let next = 0', `let next = ${count}`);
    const child = spawn(process.execPath, ['--input-type=module', '-e', source, directory], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    for await (const line of createInterface({ input: child.stdout! })) {
      const [index, revision] = line.split(' ');
      if (revision) acknowledged.push(Number(index));
      if (acknowledged.length === more) child.kill('SIGKILL');
    }
    const store = await LmdbStore.open(directory);
    const { entries } = await store.list('/k/');
    assert.equal(entries.length, store.revision());
    const keys = new Set(entries.map(({ key }) => key));
    for (const index of acknowledged) assert.ok(keys.has(`/k/${index}`), `/k/${index} is lost`);
    count = entries.length;
    for (let i = 0; i < count; i++) assert.ok(keys.has(`/k/${i}`), `/k/${i} is missing`);
    await store.close();
  }
});

test('lmdb: compaction right after writes keeps what is current, also when it is killed then', async () => {
  const directory = newDirectory();
  const source = `
import { LmdbStore } from ${JSON.stringify(join(import.meta.dirname, 'lmdb.ts'))};
const store = await LmdbStore.open(process.argv[1]);
await store.commit({ type: 'put', key: '/gone', value: Buffer.from('x') });
for (let i = 0; i < 50; i++) await store.commit({ type: 'put', key: '/k/' + (i % 5), value: Buffer.from('value ' + i) });
await store.commit({ type: 'delete', key: '/gone' });
await store.compact(store.revision());
await store.commit({ type: 'put', key: '/later', value: Buffer.from('later') });
process.kill(process.pid, 'SIGKILL');
`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', source, directory], { stdio: 'inherit' });
  await new Promise(ended => child.once('exit', ended));
  const store = await LmdbStore.open(directory);
  assert.equal(store.revision(), 53);
  const { entries } = await store.list('/');
  assert.deepEqual(
    entries.map(({ key, value }) => `${key} ${Buffer.from(value)}`),
    [...Array.from({ length: 5 }, (_, i) => `/k/${i} value ${45 + i}`), '/later later'],
  );
  assert.equal(await store.commit({ type: 'put', key: '/gone', value: Buffer.from('new'), expect: 'absent' }), 54);
  await store.close();
});
