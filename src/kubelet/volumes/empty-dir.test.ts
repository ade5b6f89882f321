import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { emptyDirVolume } from './empty-dir.ts';
import type { VolumeContext, VolumeTarget } from './volume.ts';

test('a medium of huge pages without a size of its own is refused', async () => {
  const path = join(tmpdir(), `cox-empty-dir-${process.pid}`);
  const mount = (medium: string, limits: Record<string, string>) =>
    emptyDirVolume.mount(
      { medium },
      { path } as VolumeTarget,
      { pod: { spec: { containers: [{ name: 'c', resources: { limits } }] } } } as unknown as VolumeContext,
    );
  await assert.rejects(mount('HugePages', {}), /there is no resource request for huge pages$/);
  await assert.rejects(mount('HugePages-1Gi', { 'hugepages-2Mi': '2Mi' }), /no resource request for hugepages-1Gi$/);
  await assert.rejects(
    mount('HugePages', { 'hugepages-2Mi': '2Mi', 'hugepages-1Gi': '1Gi' }),
    /asks for hugepages-2Mi and hugepages-1Gi: say medium HugePages-SIZE$/,
  );
  await assert.rejects(mount('HugePagesOfMine', { 'hugepages-2Mi': '2Mi' }), /"HugePagesOfMine" is not supported/);
  assert.equal(existsSync(path), false);
});
