/** What the API server says in `Warning:` headers; the words are upstream's. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deployment } from '../apps/deployment.ts';
import { statefulSet } from '../apps/stateful-set.ts';
import { cronJob } from '../batch/cron-job.ts';
import { job } from '../batch/job.ts';
import type { Kind } from '../kind.ts';
import type { KubeObject } from '../meta.ts';
import { ingress } from '../networking/ingress.ts';
import { runtimeClass } from '../node/runtime-class.ts';
import { csiStorageCapacity } from '../storage/csi.ts';
import { storageClass } from '../storage/storage-class.ts';
import { node } from './node.ts';
import { persistentVolume } from './persistent-volume.ts';
import { persistentVolumeClaim } from './persistent-volume-claim.ts';
import { pod } from './pod.ts';
import { secret } from './secret.ts';
import { serviceAccount } from './service-account.ts';

const named = (fields: object): KubeObject => ({ metadata: { name: 'x' }, ...fields }) as unknown as KubeObject;
const warn = (kind: Kind, fields: object, old?: object): readonly string[] =>
  kind.warnings!(named(fields), old && named(old));
const inPod = (spec: object, metadata: object = {}) =>
  warn(pod, { metadata: { name: 'x', ...metadata }, spec: { containers: [], ...spec } });

test('a pod: where it goes, how it is named, what it mounts', () => {
  assert.deepEqual(inPod({}, { name: 'a.b' }), [
    "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
  ]);
  const term = { matchExpressions: [{ key: 'beta.kubernetes.io/arch', operator: 'In', values: ['-'] }] };
  const arch = 'deprecated since v1.14; use "kubernetes.io/arch" instead';
  const at = 'spec.affinity.nodeAffinity';
  const found = inPod({
    nodeSelector: { 'beta.kubernetes.io/arch': 'x' },
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [term] },
        preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 1, preference: term }],
      },
      podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 1, podAffinityTerm: {} }] },
    },
    topologySpreadConstraints: [{ topologyKey: 'failure-domain.beta.kubernetes.io/zone' }],
  });
  assert.deepEqual(
    found.map(text => text.replace(/ is invalid, .*/, ' is invalid, …')),
    [
      `spec.nodeSelector[beta.kubernetes.io/arch]: ${arch}`,
      `${at}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/arch is ${arch}`,
      `${at}.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: beta.kubernetes.io/arch is ${arch}`,
      `${at}.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[0]: - is invalid, …`,
      'spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
      'spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod',
      'spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod',
    ],
  );
  const claim = { spec: { resources: { requests: { storage: '100m' } } } };
  assert.deepEqual(
    inPod({
      volumes: [
        { name: 'v', storageos: {} },
        { name: 'w', ephemeral: { volumeClaimTemplate: claim } },
      ],
    }),
    [
      'spec.volumes[0].storageOS: deprecated in v1.22, non-functional in v1.25+',
      'spec.volumes[1].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value "100m" is invalid, must be an integer',
    ],
  );
});

test("a pod: files of a volume in each other's way", () => {
  const items = (...paths: string[]) => ({ items: paths.map(path => ({ key: 'k', path })) });
  assert.deepEqual(
    inPod({
      volumes: [
        { name: 'a', configMap: { name: 'm', ...items('x', 'xy', 'x/y/') } },
        {
          name: 'b',
          projected: {
            sources: [{}, { secret: { name: 's', ...items('t') } }, { serviceAccountToken: { path: 't' } }],
          },
        },
      ],
    }),
    [
      'volume "a" (ConfigMap "m"): overlapping paths: "x/y" with "x"',
      'volume "b" (Projected) has no sources provided',
      'volume "b" (Projected): overlapping paths: "t" (ServiceAccountToken) with "t" (Secret "s")',
    ],
  );
});

test('a pod: twins, fractions, hidden variables, ports', () => {
  const port = (fields: object) => ({ containerPort: 80, protocol: 'TCP', ...fields });
  assert.deepEqual(
    inPod(
      {
        hostAliases: [{ ip: '10.0.0.1' }, { ip: '10.0.0.1' }, { ip: 'FD00::1' }],
        imagePullSecrets: [{ name: 's' }, { name: 's' }, {}],
        overhead: { memory: '1500m' },
        terminationGracePeriodSeconds: -1,
        initContainers: [{ name: 'i', ports: [port({ name: 'web' })] }],
        containers: [
          {
            name: 'c',
            resources: { limits: { memory: '1', 'ephemeral-storage': '0.5' } },
            env: [
              { name: 'A', value: '1' },
              { name: 'A', value: '$(A)2' },
              { name: 'A', value: '$(A)' },
              { name: 'A', valueFrom: {} },
            ],
            ports: [
              port({ name: 'web', hostIP: '10.0.0.1' }),
              port({ hostPort: 8 }),
              port({ hostPort: 8, hostIP: '10.0.0.1' }),
            ],
          },
        ],
      },
      { annotations: { 'seccomp.security.alpha.kubernetes.io/pod': 'x', 'security.alpha.kubernetes.io/sysctls': 'y' } },
    ),
    [
      'metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional in v1.11+; use the "sysctls" field instead',
      'spec.hostAliases[1].ip: duplicate ip "10.0.0.1"',
      'spec.imagePullSecrets[1].name: duplicate name "s"',
      'spec.imagePullSecrets[2].name: invalid empty name ""',
      'spec.overhead[memory]: fractional byte value "1500m" is invalid, must be an integer',
      'metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead',
      'spec.containers[0].resources.limits[ephemeral-storage]: fractional byte value "0.5" is invalid, must be an integer',
      'spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply',
      'spec.containers[0].env[3]: hides previous definition of "A", which may be dropped when using apply',
      'spec.containers[0].ports[0]: hostIP set without hostPort: {Name:web HostPort:0 ContainerPort:80 Protocol:TCP HostIP:10.0.0.1}',
      'spec.containers[0].ports[0]: overlapping port definition with spec.initContainers[0].ports[0]',
      'spec.containers[0].ports[1]: overlapping port definition with spec.initContainers[0].ports[0]',
      'spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]',
      'spec.containers[0].ports[2]: overlapping port definition with spec.initContainers[0].ports[0]',
      'spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]',
      'spec.containers[0].ports[2]: dangerously ambiguous port definition with spec.containers[0].ports[1]',
      'spec.containers[0].ports[0]: duplicate port name "web" with spec.initContainers[0].ports[0], services and probes that select ports by name will use spec.initContainers[0].ports[0]',
      'spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1',
      'spec.hostAliases[2].ip: IPv6 address "FD00::1" should be in RFC 5952 canonical format ("fd00::1")',
    ],
  );
});

test('templates are warned of when they are made or are others than before; names when they are made', () => {
  const template = { metadata: {}, spec: { containers: [], nodeSelector: { 'beta.kubernetes.io/os': 'linux' } } };
  const label = (path: string) =>
    `${path}.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`;
  const metadata = { name: 'a.b', generation: 1 };
  const [name, ofTemplate] = warn(deployment, { metadata, spec: { template } });
  assert.match(name!, /^metadata\.name: this is used in Pod names and hostnames, which can result in surprising/);
  assert.equal(ofTemplate, label('spec.template'));
  assert.deepEqual(warn(deployment, { metadata, spec: { template } }, { metadata }), []);
  const next = { name: 'a.b', generation: 2 };
  assert.deepEqual(warn(deployment, { metadata: next, spec: { template } }, { metadata }), [label('spec.template')]);
  assert.deepEqual(warn(job, { spec: { template } }), [label('spec.template')]);
  const nested = { schedule: 'TZ=UTC * * * * *', jobTemplate: { spec: { template } } };
  assert.deepEqual(
    warn(cronJob, { spec: nested }).map(text => text.slice(0, 55)),
    [label('spec.jobTemplate.spec.template').slice(0, 55), 'cannot use TZ or CRON_TZ in spec.spec.schedule, use tim'],
  );
  const completions = { completionMode: 'Indexed', completions: 100_001, parallelism: 10_001 };
  assert.match(
    warn(job, { spec: completions })[0]!,
    /^spec: In Indexed Jobs with a number of completions higher than 10\^5 /,
  );
  const claims = [{ spec: { resources: { requests: { storage: '0.5' } } } }];
  assert.deepEqual(warn(statefulSet, { spec: { volumeClaimTemplates: claims, revisionHistoryLimit: -1 } }), [
    'spec.volumeClaimTemplates[0].Spec.resources.requests[storage]: fractional byte value "0.5" is invalid, must be an integer',
    'spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended',
  ]);
});

test('volumes, classes, nodes, accounts, ingresses and secrets', () => {
  const zone = 'failure-domain.beta.kubernetes.io/zone';
  const zoned = 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead';
  const annotated = { metadata: { name: 'x', annotations: { 'volume.beta.kubernetes.io/storage-class': 'c' } } };
  const classed =
    'metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use "storageClassName" attribute instead';
  assert.deepEqual(warn(persistentVolumeClaim, annotated), [classed]);
  const options = { 'volume.beta.kubernetes.io/mount-options': 'ro' };
  const both = { ...annotated.metadata, annotations: { ...annotated.metadata.annotations, ...options } };
  assert.deepEqual(
    warn(persistentVolume, { metadata: both, spec: { persistentVolumeReclaimPolicy: 'Recycle', rbd: {} } }),
    [
      classed,
      'metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use "mountOptions" attribute instead',
      'spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.',
      'spec.rbd: deprecated in v1.28, non-functional in v1.31+',
    ],
  );
  assert.deepEqual(warn(storageClass, { allowedTopologies: [{ matchLabelExpressions: [{ key: zone }] }] }), [
    `allowedTopologies[0].matchLabelExpressions[0].key: ${zoned}`,
  ]);
  assert.deepEqual(warn(csiStorageCapacity, { nodeTopology: { matchLabels: { [zone]: 'z' } } }), [
    `nodeTopology.matchLabels.${zone}: ${zoned}`,
  ]);
  assert.deepEqual(warn(runtimeClass, { scheduling: { nodeSelector: { [zone]: 'z' } } }), [
    `scheduling.nodeSelector[${zone}]: ${zoned}`,
  ]);
  assert.deepEqual(warn(node, { spec: { externalID: 'e' } }), [
    'spec.externalID: this field is deprecated, and is unused by Kubernetes',
  ]);
  const enforced = { metadata: { name: 'x', annotations: { 'kubernetes.io/enforce-mountable-secrets': 'true' } } };
  assert.equal(warn(serviceAccount, enforced).length, 1);
  assert.deepEqual(warn(serviceAccount, enforced, enforced), []);
  const old = { metadata: { name: 'x', annotations: { 'kubernetes.io/ingress.class': 'c' } } };
  assert.deepEqual(warn(ingress, old), [
    'annotation "kubernetes.io/ingress.class" is deprecated, please use \'spec.ingressClassName\' instead',
  ]);
  assert.deepEqual(warn(ingress, old, old), []);
  assert.deepEqual(warn(secret, { type: 'kubernetes.io/tls', data: { 'tls.crt': '' } }), [
    'tls: failed to find any PEM data in certificate input',
  ]);
  assert.deepEqual(warn(secret, { type: 'Opaque' }), []);
});

test('updates of pods are not warned of, statuses only of their addresses', () => {
  const old = { spec: { containers: [], terminationGracePeriodSeconds: -1 } };
  assert.deepEqual(warn(pod, old, old), []);
  assert.deepEqual(pod.statusWarnings!(named({ ...old, status: { podIPs: [{ ip: 'FD00::1' }] } }), named(old)), [
    'status.podIPs[0].ip: IPv6 address "FD00::1" should be in RFC 5952 canonical format ("fd00::1")',
  ]);
});
