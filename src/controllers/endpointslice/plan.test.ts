import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Node, Pod, Service } from '../../api/core/v1.gen.ts';
import type { Endpoint, EndpointSlice } from '../../api/discovery/v1.gen.ts';
import { desiredGroups } from './desired.ts';
import { ENDPOINTS_PER_SLICE_MAX, planSlices, type SlicePlan } from './plan.ts';

const ports = [{ name: 'http', port: 80, protocol: 'TCP' }];
const endpoint = (index: number, ready = true): Endpoint => ({
  addresses: [`10.0.${index >> 8}.${index & 255}`],
  conditions: { ready, serving: ready, terminating: false },
  targetRef: { kind: 'Pod', name: `p${index}`, uid: `u${index}` },
});
const plan = (existing: EndpointSlice[], indexes: number[]) =>
  planSlices(existing, indexes.length ? [{ ports, endpoints: indexes.map(index => endpoint(index)) }] : [], {
    metadataDiffers: () => false,
  });
let sequence = 0;
function apply(existing: EndpointSlice[], { create, update, delete: remove }: SlicePlan): EndpointSlice[] {
  const kept = existing
    .filter(slice => !remove.includes(slice))
    .map(slice => {
      const change = update.find(({ slice: changed }) => changed === slice);
      return change ? { ...slice, endpoints: [...change.endpoints] } : slice;
    });
  return [
    ...kept,
    ...create.map(content => ({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: `s${sequence++}` },
      addressType: 'IPv4',
      ports: [...content.ports],
      endpoints: [...content.endpoints],
    })),
  ];
}

test('any sequence of changes leaves every endpoint in exactly one slice, none overfull, and a second pass writes nothing', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uniqueArray(fc.integer({ min: 0, max: 400 }), { maxLength: 300 }), { minLength: 1, maxLength: 4 }),
      rounds => {
        let slices: EndpointSlice[] = [];
        for (const indexes of rounds) {
          slices = apply(slices, plan(slices, indexes));
          assert.deepEqual(
            slices.flatMap(slice => slice.endpoints!.map(({ targetRef }) => targetRef!.uid)).sort(),
            indexes.map(index => `u${index}`).sort(),
          );
          assert.ok(slices.every(slice => slice.endpoints!.length <= ENDPOINTS_PER_SLICE_MAX));
          const again = plan(slices, indexes);
          assert.equal(again.create.length + again.update.length + again.delete.length, 0);
        }
      },
    ),
    { seed: 7, numRuns: 60 },
  );
});

test('one endpoint more costs one write', () => {
  const slices = apply(
    [],
    plan(
      [],
      Array.from({ length: 150 }, (_, i) => i),
    ),
  );
  assert.equal(slices.length, 2);
  const next = plan(
    slices,
    Array.from({ length: 151 }, (_, i) => i),
  );
  assert.deepEqual([next.create.length, next.update.length, next.delete.length], [0, 1, 0]);
});

test('conditions, named ports, zones and hostnames of endpoints', () => {
  const service = {
    metadata: { name: 'db', namespace: 'd' },
    spec: {
      clusterIP: 'None',
      selector: { a: 'b' },
      ports: [{ name: 'sql', port: 5432, targetPort: 'sql', protocol: 'TCP' }],
    },
  } as unknown as Service;
  const pod = (facts: { ready: boolean; deleting?: boolean; ip?: string }): Pod =>
    ({
      metadata: { name: 'db-0', namespace: 'd', uid: 'u', ...(facts.deleting ? { deletionTimestamp: 'x' } : {}) },
      spec: {
        nodeName: 'n',
        hostname: 'db-0',
        subdomain: 'db',
        containers: [{ name: 'c', ports: [{ name: 'sql', containerPort: 6000 }] }],
      },
      status: {
        phase: 'Running',
        podIPs: facts.ip === undefined ? [{ ip: '10.0.0.1' }] : [],
        conditions: [{ type: 'Ready', status: facts.ready ? 'True' : 'False' }],
      },
    }) as unknown as Pod;
  const node = { metadata: { name: 'n', labels: { 'topology.kubernetes.io/zone': 'z' } } } as unknown as Node;
  const of = (target: Pod, facts: Partial<Service['spec']> = {}) =>
    desiredGroups({ ...service, spec: { ...service.spec, ...facts } } as Service, [target], {
      addressType: 'IPv4',
      nodeOf: () => node,
    }).groups;
  const [group] = of(pod({ ready: true, deleting: true }));
  assert.deepEqual(group!.ports, [{ name: 'sql', protocol: 'TCP', port: 6000 }]);
  assert.deepEqual(group!.endpoints[0], {
    addresses: ['10.0.0.1'],
    conditions: { ready: false, serving: true, terminating: true },
    hostname: 'db-0',
    targetRef: { kind: 'Pod', namespace: 'd', name: 'db-0', uid: 'u' },
    nodeName: 'n',
    zone: 'z',
  });
  assert.deepEqual(of(pod({ ready: false }), { publishNotReadyAddresses: true })[0]!.endpoints[0]!.conditions, {
    ready: true,
    serving: false,
    terminating: false,
  });
  assert.deepEqual(of(pod({ ready: true }), { trafficDistribution: 'PreferClose' })[0]!.endpoints[0]!.hints, {
    forZones: [{ name: 'z' }],
  });
  assert.equal(of(pod({ ready: true, ip: '' })).length, 0);
});
