import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { VirtualClock } from '../../base/clock.ts';
import { metrics } from '../../base/metrics.ts';
import { GRPC, GrpcError, serveGrpc } from '../../csi/grpc.ts';
import { DriverClient, pluginName, timeOperation } from './operation-metrics.ts';

const page = () => metrics.render({ prefixes: ['storage_operation', 'csi_operations'] });
const told = (line: string) => assert.ok(page().includes(`${line}\n`), `${line}\n${page()}`);

test('operations on volumes are timed by plugin, driver and end', async () => {
  const clock = new VirtualClock();
  const mount = { name: 'volume_mount', plugin: 'kubernetes.io/csi', driver: 'd.example', isMigrated: true } as const;
  const slow = timeOperation(mount, clock, () => clock.sleep(2000));
  await clock.advance(2000);
  await slow;
  await assert.rejects(timeOperation(mount, clock, () => Promise.reject(new Error('no'))));
  await timeOperation({ name: 'volume_unmount', plugin: pluginName('kubernetes.io~empty-dir') }, clock, () => {});
  const at = (plugin: string, rest: string) => `{volume_plugin="kubernetes.io/${plugin}",${rest}}`;
  const name = 'storage_operation_duration_seconds';
  const csi = 'operation_name="volume_mount",status="success",migrated="true"';
  told(`${name}_sum${at('csi:d.example', csi)} 2`);
  told(`${name}_count${at('csi:d.example', csi.replace('success', 'fail-unknown'))} 1`);
  told(`${name}_count${at('empty-dir', 'operation_name="volume_unmount",status="success",migrated="false"')} 1`);
});

test('calls of drivers are timed by method and code', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-calls-'));
  const socket = join(folder, 's');
  const server = await serveGrpc(socket, {
    probe: () => Promise.resolve({ ready: true }),
    nodeGetInfo: () => Promise.reject(new GrpcError(GRPC.NOT_FOUND, 'none')),
  } as never);
  const client = new DriverClient('d.example', socket, new VirtualClock());
  try {
    await client.call('probe', {});
    await assert.rejects(client.call('nodeGetInfo', {}), /NotFound/);
    const at = (method: string, code: string) =>
      `csi_operations_seconds_count{driver_name="d.example",method_name="/csi.v1.${method}",grpc_status_code="${code}",migrated="false"} 1`;
    told(at('Identity/Probe', 'OK'));
    told(at('Node/NodeGetInfo', 'NotFound'));
  } finally {
    client.close();
    await server.close();
    rmSync(folder, { recursive: true });
  }
});
