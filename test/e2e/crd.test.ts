import assert from 'node:assert/strict';
import { it, type Json, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

// Custom resources as stock kubectl sees them: definitions shaped like cert-manager's and the Gateway API's.
const cluster = useCluster();
const ns = useNamespace(cluster, 'crds');
const k = (...args: string[]): Promise<string> => cluster.kubectl('-n', ns, ...args);
const fails = async (...args: string[]): Promise<string> => {
  const outcome = await cluster.tryKubectl('-n', ns, ...args);
  assert.notEqual(outcome.code, 0, `${args.join(' ')} should fail`);
  return outcome.stderr;
};

const CERTIFICATES = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: certificates.certs.example.dev}
spec:
  group: certs.example.dev
  scope: Namespaced
  names: {kind: Certificate, listKind: CertificateList, plural: certificates, singular: certificate, shortNames: [excert], categories: [example]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.copies, statusReplicasPath: .status.copies}}
    selectableFields: [{jsonPath: .spec.secretName}]
    additionalPrinterColumns:
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    - {name: Secret, type: string, jsonPath: .spec.secretName}
    - {name: Issuer, type: string, priority: 1, jsonPath: .spec.issuerRef.name}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        description: A certificate to be issued.
        properties:
          spec:
            type: object
            required: [secretName, issuerRef]
            x-kubernetes-validations:
            - {rule: "has(self.commonName) || size(self.dnsNames) > 0", message: a common name or a DNS name is required}
            - {rule: "duration(self.renewBefore) < duration(self.duration)", messageExpression: "'renewBefore must be less than ' + self.duration"}
            properties:
              secretName:
                type: string
                description: Where the key goes.
                x-kubernetes-validations: [{rule: self == oldSelf, message: secretName is immutable}]
              commonName: {type: string, maxLength: 64}
              duration: {type: string, default: 2160h}
              renewBefore: {type: string, default: 360h}
              copies: {type: integer, minimum: 0, default: 1}
              dnsNames: {type: array, default: [], items: {type: string}, x-kubernetes-list-type: set}
              port: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}
              usages: {type: array, items: {type: string, enum: [server auth, client auth]}}
              issuerRef:
                type: object
                required: [name]
                properties: {name: {type: string}, kind: {type: string, default: Issuer}}
          status:
            type: object
            properties:
              copies: {type: integer}
              conditions:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [type]
                items:
                  type: object
                  required: [type, status]
                  properties: {type: {type: string}, status: {type: string, enum: ["True", "False", Unknown]}}
`;

const certificate = (name: string, spec: object): object => ({
  apiVersion: 'certs.example.dev/v1',
  kind: 'Certificate',
  metadata: { name },
  spec: { secretName: `${name}-tls`, issuerRef: { name: 'ca' }, commonName: 'a.example', ...spec },
});

it('a definition is served as soon as it is established', cluster, async () => {
  await cluster.apply(ns, CERTIFICATES);
  await k('wait', '--for', 'condition=established', 'crd/certificates.certs.example.dev', '--timeout=10s');
  await cluster.apply(ns, [certificate('one', { dnsNames: ['a', 'b'], port: 'https' })]);
  const one = await cluster.json('-n', ns, 'get', 'excert', 'one');
  assert.deepEqual(one.spec.issuerRef, { kind: 'Issuer', name: 'ca' });
  assert.equal(one.spec.duration, '2160h');
  assert.equal(one.metadata.generation, 1);
  assert.match(await k('get', 'example'), /^NAME\s+READY\s+SECRET\s+AGE\none\s+one-tls\s+\d+s/m);
  assert.match(await k('get', 'certificates.certs.example.dev', '-o', 'wide'), /ISSUER\s+AGE/);
  assert.match(await k('explain', 'certificate.spec.secretName'), /Where the key goes\./);
  assert.match(
    await k('api-resources', '--api-group', 'certs.example.dev'),
    /certificates\s+excert\s+certs.example.dev\/v1\s+true/,
  );
});

it('what does not fit is refused in the words of the API server', cluster, async () => {
  const refused = async (object: object, ...args: string[]): Promise<string> => {
    const outcome = await cluster
      .kubectlWith({ input: JSON.stringify(object) }, '-n', ns, 'create', ...args, '-f', '-')
      .then(
        () => '',
        (error: Error) => error.message,
      );
    assert.notEqual(outcome, '');
    return outcome;
  };
  assert.match(await refused(certificate('x', { commonName: undefined })), /a common name or a DNS name is required/);
  assert.match(await refused(certificate('x', { renewBefore: '9000h' })), /renewBefore must be less than 2160h/);
  assert.match(
    await refused(certificate('x', { copies: -1 })),
    /spec\.copies in body should be greater than or equal to 0/,
  );
  assert.match(
    await refused(certificate('x', { usages: ['all'] })),
    /Unsupported value: "all": supported values: "server auth", "client auth"/,
  );
  assert.match(await refused(certificate('x', { dnsNames: ['a', 'a'] })), /spec\.dnsNames\[1\]: Duplicate value: "a"/);
  assert.match(await refused(certificate('x', { unknown: 1 })), /strict decoding error: unknown field "spec.unknown"/);
  assert.match(
    await fails('patch', 'excert', 'one', '--type=merge', '-p', '{"spec":{"secretName":"y"}}'),
    /secretName is immutable/,
  );
  // A rule may not look through what it makes itself, which nothing bounds.
  const { spec } = JSON.parse(await k('get', 'crd', 'certificates.certs.example.dev', '-o', 'json')) as Json;
  const [version] = spec.versions;
  version.schema.openAPIV3Schema.properties.spec['x-kubernetes-validations'] = [
    { rule: "string(self.copies).matches('^1')", message: 'never said' },
  ];
  assert.match(
    await refused({
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name: 'dears.certs.example.dev' },
      spec: { ...spec, names: { kind: 'Dear', plural: 'dears' }, versions: [version] },
    }),
    /properties\[spec\]\.x-kubernetes-validations\[0\]\.rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x/,
  );
});

it('status, scale, selectors, apply and patches', cluster, async () => {
  await k(
    'patch',
    'excert',
    'one',
    '--subresource=status',
    '--type=merge',
    '-p',
    '{"status":{"copies":1,"conditions":[{"type":"Ready","status":"True"}]}}',
  );
  await k('wait', '--for=condition=Ready', 'excert/one', '--timeout=10s');
  await k('scale', 'excert/one', '--replicas=3');
  const one = await cluster.json('-n', ns, 'get', 'excert', 'one');
  assert.deepEqual([one.spec.copies, one.metadata.generation, one.status.copies], [3, 2, 1]);
  assert.match(await k('get', 'excert', '--field-selector', 'spec.secretName=one-tls', '-o', 'name'), /one/);
  assert.equal(await k('get', 'excert', '--field-selector', 'spec.secretName=none', '-o', 'name'), '');
  const apply = (manager: string, spec: object) =>
    cluster.kubectlWith(
      { input: JSON.stringify(certificate('ssa', spec)) },
      '-n',
      ns,
      'apply',
      '--server-side',
      '--field-manager',
      manager,
      '-f',
      '-',
    );
  await apply('one', { dnsNames: ['x'] });
  await apply('two', { dnsNames: ['y'] });
  const ssa = await cluster.json('-n', ns, 'get', 'excert', 'ssa');
  assert.deepEqual([...ssa.spec.dnsNames].sort(), ['x', 'y']);
  await assert.rejects(
    apply('two', { dnsNames: ['y'], commonName: 'b.example' }),
    /conflict with "one": \.spec\.commonName/,
  );
  assert.match(await fails('patch', 'excert', 'one', '-p', '{}'), /strategic-merge-patch\+json is not supported/);
  const table = JSON.parse(
    await k('get', '--raw', `/apis/certs.example.dev/v1/namespaces/${ns}/certificates?limit=1`),
  ) as Json;
  assert.equal(table.kind, 'CertificateList');
  assert.ok(table.metadata.continue);
});

it('owners, quotas and roles know custom resources', cluster, async () => {
  const { uid } = (await cluster.json('-n', ns, 'get', 'excert', 'ssa')).metadata as { uid: string };
  const owner = { apiVersion: 'certs.example.dev/v1', kind: 'Certificate', name: 'ssa', uid };
  await cluster.apply(ns, [
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'owned', ownerReferences: [owner] } },
    {
      apiVersion: 'v1',
      kind: 'ResourceQuota',
      metadata: { name: 'few' },
      spec: { hard: { 'count/certificates.certs.example.dev': '2' } },
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name: 'certs-view', labels: { 'rbac.authorization.k8s.io/aggregate-to-view': 'true' } },
      rules: [{ apiGroups: ['certs.example.dev'], resources: ['certificates'], verbs: ['get', 'list'] }],
    },
  ]);
  await eventually('quota counted', async () => {
    const { status } = await cluster.json('-n', ns, 'get', 'resourcequota', 'few');
    return status?.used?.['count/certificates.certs.example.dev'] === '2';
  });
  const third = await cluster.apply(ns, [certificate('third', {})]).then(
    () => '',
    (error: Error) => error.message,
  );
  assert.match(third, /exceeded quota: few, requested: count\/certificates.certs.example.dev=1/);
  await k('create', 'rolebinding', 'jane', '--clusterrole=view', '--user=jane');
  await eventually(
    'the aggregated role',
    async () =>
      (await cluster.tryKubectl('-n', ns, 'auth', 'can-i', 'list', 'certificates.certs.example.dev', '--as=jane'))
        .code === 0,
  );
  assert.notEqual(
    (await cluster.tryKubectl('-n', ns, 'auth', 'can-i', 'create', 'certificates.certs.example.dev', '--as=jane')).code,
    0,
  );
  await k('delete', 'excert', 'ssa');
  await eventually(
    'the owned object is collected',
    async () => (await cluster.tryKubectl('-n', ns, 'get', 'configmap', 'owned')).code !== 0,
  );
  await k('delete', 'clusterrole', 'certs-view');
});

const GATEWAYS = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: gateways.gateway.example.dev
spec:
  group: gateway.example.dev
  scope: Namespaced
  names: {kind: Gateway, plural: gateways, singular: gateway, shortNames: [exgtw]}
  versions:
  - &version
    name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [listeners]
            properties:
              listeners:
                type: array
                minItems: 1
                maxItems: 64
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                x-kubernetes-validations:
                - {rule: "self.all(l, l.protocol in ['HTTP', 'TCP'] ? !has(l.tls) : true)", message: "tls must not be specified for protocols ['HTTP', 'TCP']"}
                - {rule: "self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && (has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname : !has(l1.hostname) && !has(l2.hostname))))", message: "Combination of port, protocol and hostname must be unique for each listener"}
                items:
                  type: object
                  required: [name, port, protocol]
                  properties:
                    name: {type: string, minLength: 1, maxLength: 253, pattern: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}
                    port: {type: integer, format: int32, minimum: 1, maximum: 65535}
                    protocol: {type: string, maxLength: 255}
                    hostname: {type: string, maxLength: 253}
                    tls:
                      type: object
                      properties:
                        mode: {type: string, default: Terminate, enum: [Terminate, Passthrough]}
              infrastructure: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status:
            type: object
            default: {conditions: [{type: Accepted, status: Unknown}]}
            properties:
              conditions:
                type: array
                maxItems: 8
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [type]
                items: {type: object, required: [type, status], properties: {type: {type: string}, status: {type: string}}}
  - <<: *version
    name: v1beta1
    storage: false
    deprecated: true
    deprecationWarning: gateways of v1beta1 are old
`;

it('versions share their objects; deletion takes everything along', cluster, async () => {
  await cluster.apply(ns, GATEWAYS);
  await k('wait', '--for', 'condition=established', 'crd/gateways.gateway.example.dev', '--timeout=10s');
  const gateway = (version: string, name: string, listeners: object[]): object => ({
    apiVersion: `gateway.example.dev/${version}`,
    kind: 'Gateway',
    metadata: { name },
    spec: { listeners, infrastructure: { anything: [1, { a: null }] } },
  });
  const outcome = await cluster.kubectlWith(
    { input: JSON.stringify(gateway('v1beta1', 'old', [{ name: 'http', port: 80, protocol: 'HTTP' }])) },
    '-n',
    ns,
    'apply',
    '-f',
    '-',
  );
  assert.match(outcome, /old created/);
  assert.equal(
    (await cluster.json('-n', ns, 'get', 'gateways.v1.gateway.example.dev', 'old')).apiVersion,
    'gateway.example.dev/v1',
  );
  const bad = [{ name: 'a', port: 80, protocol: 'HTTP', tls: {} }];
  await assert.rejects(cluster.apply(ns, [gateway('v1', 'bad', bad)]), /tls must not be specified for protocols/);
  const twice = [
    { name: 'a', port: 80, protocol: 'HTTP' },
    { name: 'b', port: 80, protocol: 'HTTP' },
  ];
  await assert.rejects(cluster.apply(ns, [gateway('v1', 'bad', twice)]), /must be unique for each listener/);
  await k('create', 'namespace', 'crds-inner');
  await cluster.apply('crds-inner', [gateway('v1', 'inner', [{ name: 'http', port: 80, protocol: 'HTTP' }])]);
  await k('delete', 'namespace', 'crds-inner', '--timeout=60s');
  await k('delete', 'crd', 'gateways.gateway.example.dev', 'certificates.certs.example.dev', '--timeout=30s');
  assert.match(await fails('get', 'gateways.gateway.example.dev'), /the server doesn't have a resource type/);
  assert.ok(
    !JSON.parse(await k('get', '--raw', '/apis')).groups.some((group: Json) => group.name === 'gateway.example.dev'),
  );
});
