import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readHugePages } from './huge-pages.ts';

const folder = mkdtempSync(join(tmpdir(), 'cox-pages-'));
after(() => rmSync(folder, { recursive: true }));

test('sizes of huge pages are named as resources and as control groups name them', () => {
  for (const [kib, count] of [
    [64, 7],
    [2048, 3],
    [1048576, 0],
    [16777216, 1],
  ] as const) {
    mkdirSync(join(folder, `hugepages-${kib}kB`));
    writeFileSync(join(folder, `hugepages-${kib}kB`, 'nr_hugepages'), `${count}\n`);
  }
  const found = readHugePages(folder).map(({ size, kernelSize, pageBytes, count }) => [
    size,
    kernelSize,
    pageBytes,
    count,
  ]);
  assert.deepEqual(found, [
    ['1Gi', '1GB', 2 ** 30, 0],
    ['16Gi', '16GB', 2 ** 34, 1],
    ['2Mi', '2MB', 2 ** 21, 3],
    ['64Ki', '64KB', 2 ** 16, 7],
  ]);
  assert.deepEqual(readHugePages(join(folder, 'none')), []);
});
