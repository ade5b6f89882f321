import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endpointSlice } from '../discovery/endpoint-slice.ts';
import type { Kind } from '../kind.ts';
import { forgiveOldForms } from '../machinery/address-forms.ts';
import type { KubeObject } from '../meta.ts';
import { ingress, ingressClass } from '../networking/ingress.ts';
import { networkPolicy } from '../networking/network-policy.ts';
import { runtimeClass } from '../node/runtime-class.ts';
import { resourceSlice } from '../resource/resource-claim.ts';
import { csiDriver, csiNode, csiStorageCapacity, volumeAttachment } from '../storage/csi.ts';
import { storageClass, volumeAttributesClass } from '../storage/storage-class.ts';
import { configMap } from './config-map.ts';
import { endpoints } from './endpoints.ts';
import { node } from './node.ts';
import { persistentVolume } from './persistent-volume.ts';
import { persistentVolumeClaim } from './persistent-volume-claim.ts';
import { pod } from './pod.ts';
import { resourceQuota } from './resource-quota.ts';
import { service } from './service.ts';

const object = (parts: object): KubeObject => ({ metadata: { name: 'x' }, ...parts }) as unknown as KubeObject;

test('a pod with gates says so from the start', () => {
  const gated = object({ spec: { containers: [], schedulingGates: [{ name: 'a.b/c' }] } }) as KubeObject & {
    status?: { conditions?: { type: string; reason: string }[] };
  };
  pod.prepareCreate!(gated);
  assert.deepEqual(
    gated.status!.conditions!.map(({ type, reason }) => [type, reason]),
    [['PodScheduled', 'SchedulingGated']],
  );
});

test('who writes a status without generations does not take them away', () => {
  const at = (observedGeneration: number) => ({ observedGeneration });
  const conditions = [
    { type: 'A', status: 'True', ...at(2) },
    { type: 'A', status: 'True', ...at(3) },
    { type: 'B', status: 'True', ...at(3) },
  ];
  const old = object({ spec: { containers: [] }, status: { ...at(3), conditions } });
  const next = object({
    status: { conditions: ['A', 'A', 'B', 'C'].map(type => ({ type, status: 'False' })) },
  }) as KubeObject & {
    status: { observedGeneration?: number; conditions: { observedGeneration?: number }[] };
  };
  next.status.conditions[2]!.observedGeneration = 4;
  pod.prepareStatusUpdate!(next, old);
  assert.deepEqual(
    [next.status, ...next.status.conditions].map(({ observedGeneration }) => observedGeneration),
    [3, 2, 3, 4, undefined],
  );
});

test('a range that a node has does not change by its old name either', () => {
  const ranges = (podCIDR: string) => object({ spec: { podCIDR, podCIDRs: ['10.244.0.0/24'] } });
  const changed = ranges('1.2.3.0/24');
  node.defaults!(changed);
  assert.deepEqual(
    node.validateUpdate!(changed, ranges('10.244.0.0/24')).map(({ field, message }) => `${field}: ${message}`),
    ['spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'],
  );
});

test('a config map that is too large is at fault as a whole', () => {
  const [error] = configMap.validate!(object({ data: { a: 'x'.repeat(1024 * 1024 + 1) } }));
  assert.equal(`${error!.field}: ${error!.message}`, '[]: Too long: may not be more than 1048576 bytes');
});

const told = (errors: readonly { field: string; message: string }[]): string[] =>
  errors.map(({ field, message }) => `${field}: ${message}`);
const check = (kind: object, parts: object): string[] => told((kind as Kind<KubeObject>).validate!(object(parts)));
const change = (kind: object, now: object, old: object): string[] =>
  told((kind as Kind<KubeObject>).validateUpdate!(object(now), object(old)));
const changeStatus = (kind: object, now: object): string[] =>
  told((kind as Kind<KubeObject>).validateStatusUpdate!(object(now), object(now)));
const warn = (kind: object, parts: object): readonly string[] =>
  (kind as Kind<KubeObject>).warnings!(object(parts), undefined);

test("volumes: one source, checked in upstream's order, and what it needs beside the fields that pods have", () => {
  const volume = (source: object): string[] =>
    check(persistentVolume, { spec: { accessModes: ['ReadWriteOnce'], capacity: { storage: '1Gi' }, ...source } });
  const iscsi = { targetPortal: '1.2.3.4:3260', iqn: 'iqn.2014-12.example:a', lun: 0 };
  const cases: [source: object, ...expected: string[]][] = [
    [{ iscsi }],
    [
      { nfs: { server: 'a', path: '/b' }, hostPath: { path: '/c' } },
      'spec.nfs: Forbidden: may not specify more than 1 volume type',
    ],
    [{ gcePersistentDisk: {} }, 'spec.persistentDisk.pdName: Required value'],
    [{ iscsi: { ...iscsi, secretRef: {} } }, 'spec.iscsi.secretRef.name: Required value'],
    [
      { iscsi: { ...iscsi, targetPortal: 'a'.repeat(63), initiatorName: 'iqn.2014-12.example:a' } },
      `spec.iscsi.targetportal: Invalid value: "${'a'.repeat(63)}": Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.`,
    ],
    [{ cinder: { volumeID: 'a', secretRef: { name: 'b' } } }, 'spec.cinder.secretRef.namespace: Required value'],
    [
      { storageos: { volumeName: 'a', secretRef: {} } },
      'spec.storageos.secretRef.name: Required value',
      'spec.storageos.secretRef.namespace: Required value',
    ],
    [
      { glusterfs: { endpoints: 'a', path: 'b', endpointsNamespace: '' } },
      'spec.glusterfs.endpointsNamespace: Invalid value: "": if the endpointnamespace is set, it must be a valid namespace name',
    ],
    [
      { azureFile: { secretName: 'a', shareName: 'b', secretNamespace: '' } },
      'spec.azureFile.secretNamespace: Required value',
    ],
  ];
  for (const [source, ...expected] of cases) assert.deepEqual(volume(source), expected, JSON.stringify(source));
});

test('the status of a claim that grows', () => {
  const status = (status: object): string[] =>
    changeStatus(persistentVolumeClaim, { spec: { accessModes: ['ReadWriteOnce'] }, status });
  const states =
    '"ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending"';
  assert.deepEqual(
    status({
      capacity: { storage: '1Gi' },
      allocatedResourceStatuses: { storage: 'NodeResizePending', 'a.io/b': 'NodeResizePending' },
      allocatedResources: { storage: '2Gi' },
    }),
    [],
  );
  assert.deepEqual(
    status({
      capacity: { storage: '-1' },
      allocatedResourceStatuses: { storage: 'Growing' },
      allocatedResources: { cpu: '1', storage: '-2' },
    }),
    [
      'status.capacity[storage]: Invalid value: -1: must be a valid resource quantity',
      `status.allocatedResourceStatuses: Unsupported value: "storage": supported values: ${states}`,
      'status.allocatedResources: Unsupported value: "cpu": supported values: "storage"',
      'status.allocatedResources[storage]: Invalid value: -2: must be a valid resource quantity',
    ],
  );
});

test('kinds of storage', () => {
  const attach = { attacher: 'a.io', nodeName: 'n' };
  const cases: [findings: string[], ...expected: string[]][] = [
    [check(volumeAttachment, { spec: { ...attach, source: { persistentVolumeName: 'a' } } })],
    [
      check(volumeAttachment, { spec: { ...attach, source: { persistentVolumeName: 'a', inlineVolumeSpec: {} } } }),
      'spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName',
    ],
    [
      check(volumeAttachment, {
        spec: {
          ...attach,
          source: {
            inlineVolumeSpec: {
              accessModes: ['ReadWriteOnce'],
              capacity: { storage: '1Gi' },
              volumeMode: 'Block',
              csi: { driver: 'a.io', volumeHandle: 'b' },
            },
          },
        },
      }),
      'spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes',
      'spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes',
    ],
    [
      changeStatus(volumeAttachment, { status: { attached: false, attachError: { errorCode: -1 } } }),
      'status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive',
    ],
    [
      check(csiDriver, {
        spec: {
          attachRequired: true,
          podInfoOnMount: true,
          storageCapacity: true,
          nodeAllocatableUpdatePeriodSeconds: 9,
          serviceAccountTokenInSecrets: true,
        },
      }),
      'spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds',
      'spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified',
    ],
    [
      change(
        csiNode,
        { spec: { drivers: [{ name: 'a.io', nodeID: 'two', allocatable: { count: 2 } }] } },
        { spec: { drivers: [{ name: 'a.io', nodeID: 'one' }] } },
      ),
      'spec.drivers: Invalid value: {"name":"a.io","nodeID":"two"}: field is immutable',
    ],
    [
      check(csiStorageCapacity, { storageClassName: 'a', capacity: '-1' }),
      'capacity: Invalid value: "-1": must be greater than or equal to 0',
    ],
    [
      check(storageClass, {
        provisioner: 'a.io/b',
        allowedTopologies: [
          { matchLabelExpressions: [{ key: 'zone', values: ['a', 'b', 'a'] }] },
          { matchLabelExpressions: [{ key: 'zone' }] },
        ],
      }),
      'allowedTopologies[0].matchLabelExpressions[0].values[2]: Duplicate value: "a"',
      'allowedTopologies[1].matchLabelExpressions[0].values: Required value',
    ],
    [
      change(
        volumeAttributesClass,
        { driverName: 'a', parameters: { x: '1' } },
        { driverName: 'b', parameters: { x: '2' } },
      ),
      'driverName: Forbidden: updates to driverName are forbidden.',
      'parameters: Forbidden: updates to parameters are forbidden.',
    ],
    [
      check(runtimeClass, {
        handler: 'runc',
        scheduling: { tolerations: [{ operator: 'Exists' }, { operator: 'Exists' }] },
      }),
      'scheduling.tolerations[1]: Duplicate value: {"operator":"Exists"}',
    ],
    [change(node, { spec: { externalID: 'a' } }, { spec: {} }), 'spec.externalID: Forbidden: may not be updated'],
  ];
  for (const [findings, ...expected] of cases) assert.deepEqual(findings, expected);
});

test('ingresses', () => {
  const rule = (item: object): object => ({ spec: { rules: [{ http: { paths: [item] } }] } });
  const path = 'spec.rules[0].http.paths[0]';
  const backend = { service: { name: 'a', port: { number: 80 } } };
  const classes = (ingressClassName: string): object => ({
    metadata: { name: 'x', annotations: { 'kubernetes.io/ingress.class': 'a' } },
    spec: { ingressClassName, defaultBackend: backend },
  });
  const cases: [findings: string[], ...expected: string[]][] = [
    [check(ingress, classes('a'))],
    [
      check(ingress, classes('b')),
      'annotations.kubernetes.io/ingress.class: Invalid value: "a": must match `ingressClassName` when both are specified',
    ],
    [check(ingress, rule({})), `${path}.pathType: Required value: pathType must be specified`],
    [
      check(ingress, rule({ pathType: '', backend })),
      `${path}.pathType: Unsupported value: "": supported values: "Exact", "ImplementationSpecific", "Prefix"`,
    ],
    [
      check(ingress, rule({ pathType: 'Exact', path: '/', backend: { resource: { kind: 'a/b' } } })),
      `${path}.backend.resource.kind: Invalid value: "a/b": may not contain '/'`,
      `${path}.backend.resource.name: Required value: name is required`,
    ],
    [
      changeStatus(ingress, { status: { loadBalancer: { ingress: [{ ip: 'a' }, { hostname: '1.2.3.4' }] } } }),
      'status.loadBalancer.ingress[0].ip: Invalid value: "a": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
      'status.loadBalancer.ingress[1].hostname: Invalid value: "1.2.3.4": must be a DNS name, not an IP address',
    ],
    [
      check(ingressClass, {
        spec: { controller: 'a.io/b', parameters: { apiGroup: 'A', kind: 'K', name: 'n', scope: 'Cluster' } },
      }).map(text => text.slice(0, 47)),
      'spec.parameters.apiGroup: Invalid value: "A": a',
    ],
  ];
  for (const [findings, ...expected] of cases) assert.deepEqual(findings, expected);
});

test('addresses in forms that are going out of use: refused when new, kept where they were, warned of', () => {
  const policy = (cidr: string, ...except: string[]): object => ({
    spec: { podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr, except } }] }] },
  });
  const at = 'spec.ingress[0].from[0].ipBlock';
  const cases: [findings: string[], ...expected: string[]][] = [
    [check(networkPolicy, policy('10.0.0.0/8', '10.1.0.0/16'))],
    [
      check(networkPolicy, policy('10.0.0.1/8', '10.0.0.0/8')),
      `${at}.cidr: Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix length`,
      `${at}.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of \`cidr\``,
    ],
    [
      check(networkPolicy, policy('010.0.0.0/8')),
      `${at}.cidr: Invalid value: "010.0.0.0/8": must not have leading 0s in IP or prefix length`,
    ],
    [
      check(networkPolicy, policy('::ffff:10.0.0.0/104')),
      `${at}.cidr: Invalid value: "::ffff:10.0.0.0/104": must not have an IPv4-mapped IPv6 address`,
    ],
    [
      check(endpointSlice, {
        addressType: 'IPv4',
        endpoints: [
          { addresses: ['010.1.2.3'], hints: { forNodes: [{ name: 'a' }, { name: 'a' }] } },
          { addresses: ['::ffff:1.2.3.4'] },
          { addresses: ['2001:db8::1'] },
        ],
      }),
      'endpoints[0].addresses[0]: Invalid value: "010.1.2.3": must not have leading 0s',
      'endpoints[0].hints.forNodes[1].name: Duplicate value: "a"',
      'endpoints[1].addresses[0]: Invalid value: "::ffff:1.2.3.4": must not be an IPv4-mapped IPv6 address',
      'endpoints[2].addresses: Invalid value: "2001:db8::1": must be an IPv4 address',
    ],
  ];
  for (const [findings, ...expected] of cases) assert.deepEqual(findings, expected);

  const errors = (parts: object) => (networkPolicy as Kind<KubeObject>).validate!(object(parts));
  const forgiven = (now: object, old: object): string[] =>
    told(forgiveOldForms(errors(now), () => errors(old))).map(text => text.slice(0, text.indexOf(':')));
  const odd = policy('10.0.0.0/8', '10.1.0.1/16');
  assert.deepEqual(forgiven(odd, odd), []);
  assert.deepEqual(forgiven(policy('10.0.0.0/8', '10.2.0.0/16', '10.1.0.1/16'), odd), []);
  assert.deepEqual(forgiven(policy('10.0.0.0/8', '10.1.0.2/16'), odd), [`${at}.except[0]`]);
  assert.deepEqual(forgiven(policy('x'), policy('x')), [`${at}.cidr`]);

  assert.deepEqual(warn(networkPolicy, policy('2001:DB8::/32')), [
    `${at}.cidr: IPv6 CIDR value "2001:DB8::/32" should be in RFC 5952 canonical format ("2001:db8::/32")`,
  ]);
  assert.deepEqual(warn(endpoints, { subsets: [{ addresses: [{ ip: '2001:DB8::1' }, { ip: '::ffff:1.2.3.4' }] }] }), [
    'subsets[0].addresses[0].ip: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")',
    'subsets[0].addresses[1].ip: non-standard IP address "::ffff:1.2.3.4" will be considered invalid in a future Kubernetes release: use "1.2.3.4"',
  ]);
  assert.deepEqual(warn(endpointSlice, { addressType: 'FQDN' }), ['spec.addressType: FQDN endpoints are deprecated']);
  assert.deepEqual(warn(service, { spec: { type: 'LoadBalancer', loadBalancerSourceRanges: ['FD00::/8'] } }), [
    'spec.loadBalancerSourceRanges[0]: IPv6 CIDR value "FD00::/8" should be in RFC 5952 canonical format ("fd00::/8")',
  ]);
});

test('a bound claim may lose its class of attributes, as since 1.34, until its volume has one', () => {
  const claim = (volumeAttributesClassName?: string, currentVolumeAttributesClassName?: string): KubeObject =>
    ({
      metadata: { name: 'c' },
      spec: {
        accessModes: ['ReadWriteOnce'],
        resources: { requests: { storage: '1Gi' } },
        volumeName: 'v',
        ...(volumeAttributesClassName === undefined ? {} : { volumeAttributesClassName }),
      },
      status: { phase: 'Bound', capacity: { storage: '1Gi' }, currentVolumeAttributesClassName },
    }) as unknown as KubeObject;
  const update = (next: KubeObject, old: KubeObject) =>
    persistentVolumeClaim.validateUpdate!(next as never, old as never).map(({ message }) => message);
  assert.deepEqual(update(claim(), claim('gold')), []);
  assert.deepEqual(update(claim('gold'), claim()), []);
  assert.deepEqual(update(claim(''), claim('gold')), []);
  for (const [name, what] of [
    ['', 'empty string'],
    [undefined, 'nil'],
  ] as const)
    assert.deepEqual(update(claim(name, 'gold'), claim('gold', 'gold')), [
      `Forbidden: update to ${what} is forbidden when status.currentVolumeAttributesClassName is not nil`,
    ]);
});

test('the class annotation of a claim stays, but where the field takes its place', () => {
  const annotation = 'volume.beta.kubernetes.io/storage-class';
  const claim = (annotated?: string, storageClassName?: string): object => ({
    metadata: { name: 'c', annotations: annotated === undefined ? {} : { [annotation]: annotated } },
    spec: { accessModes: ['ReadWriteOnce'], storageClassName },
  });
  const update = (now: object, old: object): string[] => change(persistentVolumeClaim, now, old);
  const refused = (value: string): string[] => [
    `metadata.annotations.${annotation}: Invalid value: "${value}": field is immutable`,
  ];
  assert.deepEqual(update(claim(undefined, 'a'), claim('a')), []);
  assert.deepEqual(update(claim(undefined, 'a'), claim()), []);
  assert.deepEqual(update(claim('b', 'a'), claim()), refused('b'));
  assert.deepEqual(update(claim('b', 'a'), claim('a')), refused('b'));
  assert.deepEqual(update(claim(undefined), claim('a')), refused(''));
});

test('the nodes of a volume stay, but for labels that have new names', () => {
  const volume = (keys: string[] | undefined, more: object = {}): object => ({
    spec: {
      ...(keys && {
        nodeAffinity: {
          required: {
            nodeSelectorTerms: [{ matchExpressions: keys.map(key => ({ key, operator: 'In', values: ['x'] })) }],
          },
        },
      }),
      ...more,
    },
  });
  const fields = (now: object, old: object): string[] =>
    change(persistentVolume, now, old).map(text => text.replace(/Invalid value: [^n]\S*:/, 'Invalid value:'));
  const zone = 'failure-domain.beta.kubernetes.io/zone';
  const newZone = 'topology.kubernetes.io/zone';
  assert.deepEqual(fields(volume([newZone, 'a']), volume([zone, 'a'])), []);
  assert.deepEqual(fields(volume([zone]), volume(undefined)), []);
  assert.match(
    fields(volume([zone]), volume([newZone])).join(),
    /^nodeAffinity: .*field is immutable, except for updating from beta label to GA$/,
  );
  assert.deepEqual(fields(volume(undefined), volume([zone])), [
    'nodeAffinity: Invalid value: null: field is immutable',
  ]);
  assert.deepEqual(fields(volume(undefined), volume(undefined, { volumeAttributesClassName: 'gold' })), [
    'spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden',
  ]);
});

test('endpoints as older versions took them stay until they change', () => {
  const at = (address: string, port: number): object => ({
    subsets: [{ addresses: [{ ip: address }], ports: [{ port, protocol: 'TCP' }] }],
  });
  assert.deepEqual(change(endpoints, at('127.0.0.1', 80), at('127.0.0.1', 80)), []);
  assert.deepEqual(change(endpoints, at('127.0.0.1', 81), at('127.0.0.1', 80)), [
    'subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
  ]);
  const slice = (address: string, more: object = {}): object => ({
    addressType: 'IPv4',
    endpoints: [{ addresses: [address] }],
    ...more,
  });
  assert.deepEqual(change(endpointSlice, slice('127.0.0.1', { ports: [] }), slice('127.0.0.1')), []);
  assert.deepEqual(change(endpointSlice, slice('127.0.0.2'), slice('127.0.0.1')), [
    'endpoints[0].addresses[0]: Invalid value: "127.0.0.2": may not be in the loopback range (127.0.0.0/8, ::1/128)',
  ]);
});

test('names in place of addresses of endpoints', () => {
  const of = (address: string): string[] =>
    check(endpointSlice, { addressType: 'FQDN', endpoints: [{ addresses: [address] }] }).map(text =>
      text.replace('endpoints[0].addresses[0]: ', '').replace(/ must consist of.*/, ''),
    );
  const cases: [address: string, ...expected: string[]][] = [
    ['a.example'],
    ['a.example.'],
    ['', 'Required value'],
    ['a', 'Invalid value: "a": should be a domain with at least two segments separated by dots'],
    ['A.b', 'Invalid value: "A.b": a lowercase RFC 1123 subdomain'],
    [`${'a'.repeat(64)}.b`, `Invalid value: "${'a'.repeat(64)}": must be no more than 63 bytes`],
  ];
  for (const [address, ...expected] of cases) assert.deepEqual(of(address), expected, address);
});

test('features that a node declares, its swap and taints in its annotations', () => {
  const features = (...declaredFeatures: string[]): string[] =>
    check(node, { status: { declaredFeatures } }).map(text =>
      text.replace('status.declaredFeatures', '').replace(/must start with an .*/, '…'),
    );
  assert.deepEqual(features('A', 'B/c', 'B/d'), []);
  assert.deepEqual(features('B', 'A', 'A'), [
    '[1]: Invalid value: "A": list must be sorted alphabetically',
    '[2]: Duplicate value: "A"',
  ]);
  assert.deepEqual(features('a-b'), ['[0]: Invalid value: "a-b": invalid feature name "a-b": …']);
  assert.deepEqual(check(node, { status: { nodeInfo: { swap: { capacity: 0 } } } }), [
    'metadata.nodeSwapStatus.capacity: Invalid value: 0: must be greater than zero',
  ]);
  const annotation = 'scheduler.alpha.kubernetes.io/taints';
  const annotated = (text: string): string[] =>
    check(node, { metadata: { name: 'n', annotations: { [annotation]: text } } });
  assert.deepEqual(annotated('[{"key":"a","effect":"NoSchedule"}]'), []);
  assert.deepEqual(annotated('[{"key":"a"}]'), [`metadata.annotations.${annotation}[0].effect: Required value`]);
  assert.match(
    annotated('{').join(),
    /^metadata.annotations: Invalid value: "scheduler.alpha.kubernetes.io\/taints": /,
  );
});

test('scopes of quotas are for what pods compute with, and their number', () => {
  const of = (scope: string, ...resources: string[]): string[] =>
    check(resourceQuota, { spec: { hard: Object.fromEntries(resources.map(name => [name, '1'])), scopes: [scope] } });
  const refused = (scope: string, what = 'unsupported scope applied to resource'): string =>
    `spec.scopes: Invalid value: ["${scope}"]: ${what}`;
  for (const scope of [
    'Terminating',
    'NotTerminating',
    'NotBestEffort',
    'PriorityClass',
    'CrossNamespacePodAffinity',
  ]) {
    assert.deepEqual(of(scope, 'pods', 'cpu', 'requests.memory', 'limits.cpu'), [], scope);
    for (const resource of ['requests.ephemeral-storage', 'hugepages-2Mi', 'requests.hugepages-2Mi', 'services'])
      assert.deepEqual(of(scope, resource), [refused(scope)], resource);
  }
  assert.deepEqual(of('BestEffort', 'pods'), []);
  assert.deepEqual(of('BestEffort', 'cpu'), [refused('BestEffort')]);
  assert.deepEqual(of('Other', 'services'), [refused('Other', 'unsupported scope')]);
});

test('what a claim is filled from: both fields say the same, and what upstream drops is dropped', () => {
  type Spec = { dataSource?: object; dataSourceRef?: object };
  const other = { apiGroup: 'example.com', kind: 'Populator', name: 'p' };
  const claim = { kind: 'PersistentVolumeClaim', name: 'c' };
  const snapshot = { apiGroup: 'snapshot.storage.k8s.io', kind: 'VolumeSnapshot', name: 's' };
  const both = (source: object): Spec => ({ dataSource: source, dataSourceRef: source });
  const cases: [spec: Spec, expected: Spec, old?: Spec][] = [
    [{ dataSource: claim }, both(claim)],
    [{ dataSource: snapshot }, both(snapshot)],
    [{ dataSource: other }, {}],
    [{ dataSource: { ...claim, apiGroup: 'example.com' } }, {}],
    [{ dataSourceRef: other }, both(other)],
    [{ dataSourceRef: { ...claim, namespace: 'n' } }, { dataSourceRef: { ...claim, namespace: 'n' } }],
    [
      { dataSource: claim, dataSourceRef: other },
      { dataSource: claim, dataSourceRef: other },
    ],
    [{ dataSource: other }, both(other), both(other)],
  ];
  for (const [spec, expected, old] of cases) {
    const made = object({ spec: structuredClone(spec) }) as KubeObject & { spec: Spec };
    if (old) persistentVolumeClaim.prepareUpdate!(made as never, object({ spec: old, status: {} }) as never);
    else persistentVolumeClaim.prepareCreate!(made as never);
    assert.deepEqual(made.spec, expected, JSON.stringify(spec));
  }
  const stored = { accessModes: ['ReadWriteOnce'], dataSourceRef: other };
  assert.deepEqual(change(persistentVolumeClaim, { spec: { ...stored, dataSource: other } }, { spec: stored }), []);
});

test('fields of features that are off', () => {
  const grouped = object({ spec: { containers: [], schedulingGroup: { podGroupName: 'g' } } }) as KubeObject & {
    spec: object;
  };
  pod.defaults!(grouped);
  assert.equal('schedulingGroup' in grouped.spec, false);
  const slice = object({
    spec: { devices: [{ name: 'd', attributes: { a: { strings: ['x'] } }, nodeAllocatableResourceMappings: {} }] },
  }) as KubeObject & { spec: { devices: object[] } };
  (resourceSlice as Kind<KubeObject>).defaults!(slice);
  assert.deepEqual(slice.spec.devices, [{ name: 'd', attributes: { a: {} } }]);
});

test('what a runtime uses itself is as valid as the limits of a container', () => {
  const of = (podFixed: object): string[] => check(runtimeClass, { handler: 'a', overhead: { podFixed } });
  assert.deepEqual(of({ cpu: '1', memory: '64Mi', 'hugepages-2Mi': '4Mi' }), []);
  assert.deepEqual(of({ cpu: '1', 'hugepages-2Mi': '3Mi' }), [
    'overhead.podFixed.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi',
  ]);
});
