import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Pod } from '../../api/core/v1.gen.ts';
import { DeviceAllocations } from './device-allocations.ts';
import type { DevicePlugins } from './device-plugins.ts';

const GPU = 'example.com/gpu';

test('a plugin is not asked for what the claim of the pod serves', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-devices-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const devices = new DeviceAllocations(join(folder, 'devices.json'));
  // A plugin that has registered, and is gone.
  const plugins: Partial<DevicePlugins> = { has: () => true, plugin: () => undefined, healthy: () => [] };
  devices.connect(plugins as DevicePlugins);
  const resources = { requests: { [GPU]: '1' }, limits: { [GPU]: '1' } };
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace: 'default', uid: 'u' },
    spec: { containers: [{ name: 'c', image: 'x', resources }] },
  };
  assert.match((await devices.admit(pod))!.message, /no healthy devices present; cannot allocate unhealthy devices/);
  const requestMappings = [{ containerName: 'c', resourceName: GPU, requestName: 'container-0-request-0' }];
  const status = { extendedResourceClaimStatus: { resourceClaimName: 'made', requestMappings } };
  assert.equal(await devices.admit({ ...pod, status }), undefined);
});
