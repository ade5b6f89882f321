import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod, Service } from '../../api/core/v1.gen.ts';
import { ADDRESSES_MAX, endpointSubsets } from './subsets.ts';

const service = {
  metadata: { name: 's', namespace: 'd' },
  spec: { clusterIP: '10.96.0.1', selector: { a: 'b' }, ports: [{ port: 80, targetPort: 'web', protocol: 'TCP' }] },
} as unknown as Service;
const pod = (i: number, facts: { ready?: boolean; port?: number } = {}): Pod =>
  ({
    metadata: { name: `p${i}`, namespace: 'd', uid: `u${i}` },
    spec: { nodeName: 'n', containers: [{ name: 'c', ports: [{ name: 'web', containerPort: facts.port ?? 8080 }] }] },
    status: {
      phase: 'Running',
      podIPs: [{ ip: `10.0.${i >> 8}.${i & 255}` }],
      conditions: [{ type: 'Ready', status: facts.ready === false ? 'False' : 'True' }],
    },
  }) as unknown as Pod;

test('a thousand addresses at most, ready ones first, and it says when some were cut off', () => {
  const ready = Array.from({ length: ADDRESSES_MAX }, (_, i) => pod(i));
  const waiting = Array.from({ length: 5 }, (_, i) => pod(2000 + i, { ready: false }));
  const [subset] = endpointSubsets(service, [...waiting, ...ready]).subsets;
  assert.equal(subset!.addresses!.length, 1000);
  assert.equal(subset!.notReadyAddresses, undefined);
  assert.equal(endpointSubsets(service, [...waiting, ...ready]).truncated, true);
  assert.equal(endpointSubsets(service, ready).truncated, false);
});

test('pods that give a named port different numbers are in different subsets', () => {
  const { subsets } = endpointSubsets(service, [pod(1), pod(2, { port: 9090 }), pod(3)]);
  assert.deepEqual(
    subsets.map(({ addresses, ports }) => `${addresses!.map(({ ip }) => ip)} ${ports!.map(({ port }) => port)}`).sort(),
    ['10.0.0.1,10.0.0.3 8080', '10.0.0.2 9090'],
  );
});
