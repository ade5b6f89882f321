import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import type { Pod } from '../../api/core/v1.gen.ts';
import { VirtualClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import type { ContainerState } from '../runtime.ts';
import { diskExcess, hasDiskLimits } from './disk-limits.ts';
import { LogRotation } from './log-rotation.ts';

function scratch(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'cox-disk-'));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

const pod = (volumes: object[], limit?: string) =>
  ({
    metadata: { name: 'p' },
    spec: { volumes, containers: [{ name: 'c', resources: limit ? { limits: { 'ephemeral-storage': limit } } : {} }] },
  }) as unknown as Pod;

test('usage beyond a limit is told in upstream words', async t => {
  const dir = scratch(t);
  const [volume, layerPath, logs] = ['volume', 'layer', 'logs'].map(name => join(dir, name)) as [
    string,
    string,
    string,
  ];
  for (const folder of [volume, layerPath, logs]) mkdirSync(join(folder, 'deep'), { recursive: true });
  writeFileSync(join(volume, 'deep/file'), Buffer.alloc(300_000));
  writeFileSync(join(layerPath, 'file'), Buffer.alloc(300_000));
  const containers = [{ name: 'c', layerPath, logPath: join(logs, '0.log') }] as unknown as ContainerState[];
  const look = (one: Pod) => diskExcess(one, { containers, volumePath: () => volume });
  const sized = (sizeLimit?: string) => [{ name: 'v', emptyDir: { sizeLimit } }];
  assert.equal(await look(pod(sized('1Mi'))), undefined);
  assert.equal(await look(pod(sized('100Ki'))), 'Usage of EmptyDir volume "v" exceeds the limit "100Ki". ');
  assert.equal(await look(pod([], '200Ki')), 'Container c exceeded its local ephemeral storage limit "200Ki". ');
  assert.equal(
    await look(pod(sized(), '400Ki')),
    'Pod ephemeral local storage usage exceeds the total limit of containers 400Ki. ',
  );
  assert.equal(await look(pod(sized(), '1Mi')), undefined);
  assert.equal(hasDiskLimits(pod(sized())), false);
  assert.equal(hasDiskLimits(pod([{ name: 'm', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } }])), false);
  assert.ok(hasDiskLimits(pod(sized('1Mi'))) && hasDiskLimits(pod([], '1Mi')));
});

test('a full log is moved away, pieces are compressed, only so many are kept', async t => {
  const dir = scratch(t);
  const logPath = join(dir, '0.log');
  const clock = new VirtualClock(Date.parse('2026-01-02T03:04:00Z'));
  const reopened: string[] = [];
  const rotation = new LogRotation({
    clock,
    log: silentLogger,
    filesMax: 5,
    bytesMax: 10,
    runtime: {
      async reopenLog(id) {
        reopened.push(id);
        writeFileSync(logPath, '');
      },
    },
  });
  const containers = [{ id: 'x', state: 'running', logPath }] as unknown as ContainerState[];
  await rotation.check(containers);
  for (let i = 0; i < 7; i++) {
    writeFileSync(logPath, `text number ${i}`);
    await rotation.check(containers);
    await rotation.check(containers);
    await clock.advance(1000);
  }
  assert.equal(reopened.length, 7);
  const pieces = readdirSync(dir).sort();
  assert.deepEqual(pieces, [
    '0.log',
    '0.log.20260102-030403.gz',
    '0.log.20260102-030404.gz',
    '0.log.20260102-030405.gz',
    '0.log.20260102-030406',
  ]);
  assert.equal(gunzipSync(readFileSync(join(dir, pieces[1]!))).toString(), 'text number 3');
});
