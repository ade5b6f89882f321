/**
 * Durable 1 KB commits with 32 writers through the LMDB store, beside the floor: LMDB alone, appending the same bytes.
 * Prints the median of several rounds and the ratio. Budget: 45 000/s for the floor, and at most a third lost above it.
 */

import { open } from 'lmdb';
import { LmdbStore } from '../src/store/lmdb.ts';
import { inDirectory, median, printRow } from './measure.ts';

const WRITERS = 32;
const COMMITS = 20_000;
const ROUNDS = 3;
const value = Buffer.alloc(1024, 'x');

async function rate(commit: (index: number) => Promise<unknown>): Promise<number> {
  let next = 0;
  const start = performance.now();
  await Promise.all(
    Array.from({ length: WRITERS }, async () => {
      while (next < COMMITS) await commit(next++);
    }),
  );
  return (COMMITS / (performance.now() - start)) * 1000;
}

async function storeRate(directory: string): Promise<number> {
  const store = await LmdbStore.open(directory);
  const result = await rate(i =>
    store.commit({ type: 'put', key: `/registry/core/configmaps/default/c${i}`, value, expect: 'absent' }),
  );
  await store.close();
  return result;
}

async function floorRate(directory: string): Promise<number> {
  const database = open<Buffer, Buffer>({
    path: directory,
    encoding: 'binary',
    keyEncoding: 'binary',
    overlappingSync: false,
  });
  const result = await rate(i => {
    const key = Buffer.allocUnsafe(6);
    key.writeUIntBE(i, 0, 6);
    return database.put(key, value);
  });
  await database.close();
  return result;
}

const rates: number[] = [];
const floors: number[] = [];
for (let round = 0; round < ROUNDS; round++) {
  floors.push(await inDirectory(floorRate));
  rates.push(await inDirectory(storeRate));
}
printRow('durable commits, 1 KB, 32 writers', { rate: median(rates), floor: median(floors), floorName: 'LMDB alone' });
