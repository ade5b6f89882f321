import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { VirtualClock } from '../../base/clock.ts';
import { createLogger } from '../../base/log.ts';
import type { Transport } from '../../client/transport.ts';
import { ClaimDrivers } from './claim-drivers.ts';

test('what a driver offered that does not come back is taken back after half a minute', async () => {
  const rootDir = mkdtempSync(join(tmpdir(), 'cox-drivers-'));
  const clock = new VirtualClock();
  const stop = new AbortController();
  const deleted: string[] = [];
  const asked: (string | undefined)[] = [];
  const transport = {
    list: async (_: unknown, options?: { fieldSelector?: string }) => {
      asked.push(options?.fieldSelector);
      return { items: [{ metadata: { name: 'slice' }, spec: { driver: 'gone.example', nodeName: 'n' } }] };
    },
    delete: async ({ name }: { name: string }) => void deleted.push(name),
  } as unknown as Transport;
  const drivers = new ClaimDrivers({
    rootDir,
    nodeName: 'n',
    transport,
    clock,
    log: createLogger('test', { level: 'error' }),
  });
  const running = drivers.run(stop.signal);
  try {
    await clock.advance(29_000);
    assert.deepEqual(deleted, []);
    await clock.advance(2000);
    assert.deepEqual(deleted, ['slice']);
    assert.deepEqual(asked, ['spec.nodeName=n']);
  } finally {
    stop.abort();
    await running;
    rmSync(rootDir, { recursive: true, force: true });
  }
});
