import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PodSpec } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { ApiError } from '../../base/errors.ts';
import { NAMESPACES, PODS } from '../../client/resources.ts';
import { FakeReader } from '../fake-reader.ts';
import type { AdmissionRequest } from '../request.ts';
import type { AdmissionContext } from './context.ts';
import { podSecurity } from './pod-security.ts';
import { violations } from './pod-security-checks.ts';

const spec = (change: object = {}, container: object = {}): PodSpec =>
  ({ containers: [{ name: 'c', image: 'i', ...container }], ...change }) as unknown as PodSpec;
const baseline = (pod: PodSpec, minor = 36) => violations({ annotations: {}, spec: pod }, 'baseline', minor);
const restricted = (pod: PodSpec, minor = 36) => violations({ annotations: {}, spec: pod }, 'restricted', minor);

test('baseline, in upstream words', () => {
  assert.equal(baseline(spec()), undefined);
  assert.equal(
    baseline(spec({ hostNetwork: true, hostPID: true })),
    'host namespaces (hostNetwork=true, hostPID=true)',
  );
  assert.equal(
    baseline(spec({}, { securityContext: { privileged: true } })),
    'privileged (container "c" must not set securityContext.privileged=true)',
  );
  assert.equal(baseline(spec({ volumes: [{ name: 'v', hostPath: { path: '/' } }] })), 'hostPath volumes (volume "v")');
  assert.equal(
    baseline(spec({}, { ports: [{ containerPort: 80, hostPort: 8080 }] })),
    'hostPort (container "c" uses hostPort 8080)',
  );
  assert.equal(
    baseline(spec({}, { securityContext: { capabilities: { add: ['NET_ADMIN', 'CHOWN'] } } })),
    'non-default capabilities (container "c" must not include "NET_ADMIN" in securityContext.capabilities.add)',
  );
  assert.equal(
    baseline(spec({ securityContext: { sysctls: [{ name: 'kernel.msgmax', value: '1' }] } })),
    'forbidden sysctls (kernel.msgmax)',
  );
  assert.equal(
    baseline(spec({ securityContext: { seLinuxOptions: { type: 'spc_t', role: 'x' } } })),
    'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; role may not be set)',
  );
  assert.equal(
    baseline(spec({ securityContext: { seccompProfile: { type: 'Unconfined' } } })),
    'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
  );
  assert.equal(
    baseline(spec({}, { livenessProbe: { httpGet: { host: '10.0.0.1', port: 80 } } })),
    'probe or lifecycle host (container "c" uses probe or lifecycle host "10.0.0.1")',
  );
  assert.equal(baseline(spec({}, { livenessProbe: { httpGet: { host: '10.0.0.1', port: 80 } } }), 33), undefined);
});

const SAFE = {
  allowPrivilegeEscalation: false,
  capabilities: { drop: ['ALL'] },
  runAsNonRoot: true,
  seccompProfile: { type: 'RuntimeDefault' },
};

test('restricted says everything that is missing', () => {
  assert.equal(
    restricted(spec()),
    'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")',
  );
  assert.equal(restricted(spec({}, { securityContext: SAFE })), undefined);
  assert.equal(
    restricted(spec({ volumes: [{ name: 'v', nfs: {} }] }, { securityContext: { ...SAFE, runAsUser: 0 } })),
    'restricted volume types (volume "v" uses restricted volume type "nfs"), runAsUser=0 (container "c" must not set runAsUser=0)',
  );
});

function setup(labels: Record<string, string>) {
  const reader = new FakeReader();
  reader.put(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'ns', labels } });
  const plugin = podSecurity({ reader: () => reader } as unknown as AdmissionContext, {
    exemptions: { usernames: ['exempt'] },
  });
  const warnings: string[] = [];
  const ask = (resource: string, object: object, more: object = {}) =>
    plugin.validate!({
      operation: 'CREATE',
      attributes: { user: { name: 'u', groups: [] }, group: '', resource, subresource: '', namespace: 'ns', name: 'x' },
      info: { group: '', version: 'v1', kind: 'Namespace' },
      object: { metadata: { name: 'x' }, ...object },
      warn: (text: string) => warnings.push(text),
      ...more,
    } as unknown as AdmissionRequest);
  return { reader, ask, warnings };
}

test('enforce refuses pods, warn also looks at templates', () => {
  const { ask, warnings } = setup({
    'pod-security.kubernetes.io/enforce': 'baseline',
    'pod-security.kubernetes.io/warn': 'restricted',
    'pod-security.kubernetes.io/warn-version': 'v1.30',
  });
  ask('pods', { spec: spec({}, { securityContext: SAFE }) });
  assert.deepEqual(warnings, []);
  assert.throws(
    () => ask('pods', { spec: spec({ hostNetwork: true }) }),
    (error: unknown) =>
      error instanceof ApiError &&
      error.code === 403 &&
      error.message ===
        'pods "x" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)',
  );
  ask('replicationcontrollers', { spec: { template: { spec: spec({ hostNetwork: true }) } } });
  assert.match(
    warnings[0]!,
    /^would violate PodSecurity "restricted:v1.30": allowPrivilegeEscalation != false .*host namespaces/,
  );
  ask(
    'pods',
    { spec: spec({ hostNetwork: true }) },
    {
      attributes: {
        user: { name: 'exempt', groups: [] },
        group: '',
        resource: 'pods',
        subresource: '',
        namespace: 'ns',
      },
    },
  );
});

test('labels are checked, and growing stricter names the pods that would not do', () => {
  const { reader, ask, warnings } = setup({});
  reader.put(PODS, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace: 'x' },
    spec: spec({ hostPID: true }),
  } as unknown as KubeObject);
  const labels = (level: string) => ({
    metadata: { name: 'x', labels: { 'pod-security.kubernetes.io/enforce': level } },
  });
  assert.throws(
    () => ask('namespaces', labels('strict')),
    /Invalid value: "strict": must be one of privileged, baseline, restricted/,
  );
  ask('namespaces', labels('baseline'), { operation: 'UPDATE', oldObject: { metadata: { name: 'x' } } });
  assert.deepEqual(warnings, [
    'existing pods in namespace "x" violate the new PodSecurity enforce level "baseline:latest"',
    'p: host namespaces (hostPID=true)',
  ]);
});
