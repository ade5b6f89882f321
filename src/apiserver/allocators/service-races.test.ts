/** Services written at once through the API: no address or port twice, none lost, whoever wins. */

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Service } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import { seededRandom } from '../../base/random.ts';
import { SERVICES } from '../../client/resources.ts';
import { ensurePki } from '../certificates/pki.ts';
import { openSecured } from '../security-bed.ts';
import { clusterIpsOf } from './service-fields.ts';

const namespace = 'default';
const target = (name: string) => ({ of: SERVICES, namespace, name });
const make = (name: string, spec: Service['spec'] = {}): KubeObject =>
  ({ apiVersion: 'v1', kind: 'Service', metadata: { name }, spec: { ports: [{ port: 80 }], ...spec } }) as KubeObject;

test('creates, patches of type and family, and deletions at once leave each address and port with one Service', async t => {
  const directory = await mkdtemp(join(tmpdir(), 'cox-races-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const { server, root: api } = await openSecured({
    pki: await ensurePki(directory, { sans: [] }),
    // Small, so that they collide and run out.
    serviceCidrs: ['10.96.0.0/27', 'fd00:10:96::/123'],
    nodePortRange: { first: 30000, last: 30019 },
  });
  const random = seededRandom(11);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random.next() * from.length)]!;
  const specs = [
    { type: 'NodePort' },
    { type: 'ClusterIP', ipFamilyPolicy: 'SingleStack' },
    { ipFamilyPolicy: 'PreferDualStack' },
    { ipFamilyPolicy: 'RequireDualStack' },
    { type: 'LoadBalancer', externalTrafficPolicy: 'Local' },
    { type: 'LoadBalancer', externalTrafficPolicy: 'Cluster' },
    { type: 'ExternalName', externalName: 'x.example' },
    { type: 'ClusterIP', externalName: null },
    { clusterIP: '10.96.0.9' },
    { ports: [{ port: 80, nodePort: 30007 }] },
  ] as Service['spec'][];
  const merge = 'application/merge-patch+json';
  const acts = [
    (name: string) => api.create(target(name), make(name, pick(specs))),
    (name: string) => api.patch(target(name), { spec: pick(specs) }, merge),
    (name: string) => api.patch(target(name), { spec: pick(specs) }, merge, { dryRun: true }),
    (name: string) => api.delete(target(name)),
  ];
  let done = 0;
  for (let round = 0; round < 40; round++) {
    await Promise.all(
      Array.from({ length: 25 }, async () => {
        try {
          await pick(acts)(`s${Math.floor(random.next() * 30)}`);
          done++;
        } catch (error) {
          assert.ok(
            isReason(error, 'AlreadyExists', 'NotFound', 'Invalid', 'Conflict') || /range is full/.test(String(error)),
            String(error),
          );
        }
      }),
    );
    const services = server.reader.list(SERVICES) as readonly Service[];
    const addresses = services.flatMap(clusterIpsOf);
    assert.equal(new Set(addresses).size, addresses.length, 'an address twice');
    const owners = new Map<number, string>();
    // An ExternalName may name a node port, which leads nowhere and is nobody's.
    for (const { metadata, spec } of services)
      for (const port of [...(spec?.ports ?? []).map(({ nodePort }) => nodePort), spec?.healthCheckNodePort])
        if (port && spec?.type !== 'ExternalName') {
          assert.equal(owners.get(port) ?? metadata.name, metadata.name, `port ${port} twice`);
          owners.set(port, metadata.name);
        }
  }
  assert.ok(done > 200, `only ${done} writes succeeded`);
  // Nothing was lost: as many as the ranges hold can be claimed again.
  for (const { metadata } of server.reader.list(SERVICES))
    if (!['kubernetes', 'kube-dns'].includes(metadata.name)) await api.delete(target(metadata.name));
  for (let i = 0; i < 20; i++) await api.create(target(`port-${i}`), make(`port-${i}`, { type: 'NodePort' }));
  // 30 of the range without the Service kubernetes' own.
  for (let i = 20; i < 29; i++) await api.create(target(`ip-${i}`), make(`ip-${i}`));
  await assert.rejects(api.create(target('more'), make('more')), /failed to allocate a serviceIP: range is full/);
  await server.close();
});
