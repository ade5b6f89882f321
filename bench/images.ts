/**
 * Pull of one image from Debian's docker-registry on 127.0.0.1 into an image store: three layers of random files, gzipped. Floors in the
 * same output: the same layers fetched and thrown away, and unpacked by GNU tar from the disk. Prints the puller's peak memory too.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { buildImage, push, Registry, tarOf } from '../test/kubelet/registry.ts';
import { median } from './measure.ts';

const LAYERS = 3;
const FILES = 500;
const FILE_BYTES = 100_000;
const ROUNDS = 5;

const work = mkdtempSync(join(tmpdir(), 'cox-bench-images-'));
const registry = await Registry.start({ folder: join(work, 'content') });
try {
  // Half of each file is zeros: what programs compress to.
  const tars = Array.from({ length: LAYERS }, (_, layer) =>
    tarOf(
      Object.fromEntries(
        Array.from({ length: FILES }, (_, i) => [
          `layer${layer}/file${i}`,
          Buffer.concat([randomBytes(FILE_BYTES / 2), Buffer.alloc(FILE_BYTES / 2)]),
        ]),
      ),
    ),
  );
  const image = buildImage(tars);
  await push(registry.host, 'bench', ['1'], image);
  const megabytes = tars.reduce((sum, tar) => sum + tar.length, 0) / 1e6;
  const packed = [...image.blobs.values()].reduce((sum, blob) => sum + blob.length, 0) / 1e6;

  const timed = async (run: (round: number) => unknown): Promise<number> => {
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const began = performance.now();
      await run(round);
      times.push(performance.now() - began);
    }
    return median(times);
  };
  const fetched = await timed(() =>
    Promise.all(
      [...image.blobs.keys()].map(async digest => {
        const answer = await fetch(`http://${registry.host}/v2/bench/blobs/${digest}`);
        for await (const _ of answer.body!);
      }),
    ),
  );
  [...image.blobs.values()].slice(0, LAYERS).forEach((blob, i) => {
    writeFileSync(join(work, `${i}.tgz`), blob);
  });
  const unpacked = await timed(round => {
    for (let i = 0; i < LAYERS; i++) {
      mkdirSync(join(work, `tar${round}`), { recursive: true });
      execFileSync('tar', ['-C', join(work, `tar${round}`), '-xzf', join(work, `${i}.tgz`)]);
    }
  });
  let peak = 0;
  const pulled = await timed(round => {
    const code = `
      const { LocalPuller } = await import(${JSON.stringify(resolve(import.meta.dirname, '../src/kubelet/images/local-puller.ts'))});
      // The high mark that the system keeps is that of the parent at first.
      let peak = 0;
      const look = () => { peak = Math.max(peak, process.memoryUsage.rss()); };
      const timer = setInterval(look, 20);
      await new LocalPuller({ imageDir: ${JSON.stringify(join(work, `store${round}`))} })
        .pull({ reference: '${registry.host}/bench:1', credentials: [] }, { signal: new AbortController().signal });
      look();
      clearInterval(timer);
      console.log(peak);`;
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(stderr);
    peak = Math.max(peak, Number(stdout) / 2 ** 20);
  });
  const rate = (ms: number) => `${ms.toFixed(0)} ms, ${((megabytes / ms) * 1000).toFixed(0)} MB/s`;
  console.log(
    `image of ${LAYERS} layers, ${LAYERS * FILES} files, ${megabytes.toFixed(0)} MB, ${packed.toFixed(0)} MB packed`,
  );
  console.log(`  fetch only: ${rate(fetched)}; tar -xzf only: ${rate(unpacked)}`);
  console.log(
    `  cox pull, process start included: ${rate(pulled)}; ${((unpacked + fetched) / pulled).toFixed(2)} of fetch + tar; peak memory ${peak.toFixed(0)} MiB`,
  );
} finally {
  await registry.stop();
  rmSync(work, { recursive: true, force: true });
}
