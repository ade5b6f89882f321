import assert from 'node:assert/strict';
import { issueCertificate, issueKeyPair, newKey } from '../../src/apiserver/certificates/certificate.ts';
import { deployment, it, pod, service, useCluster, useNamespace } from './cluster.ts';
import { eventually, outcomeOf } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'admission');
const k = (...args: string[]): Promise<string> => cluster.kubectl('-n', ns, ...args);

const create = async (object: object, ...args: string[]) =>
  outcomeOf(cluster.kubectlPath, ['-n', ns, 'create', '-f', '-', ...args], {
    input: JSON.stringify(object),
    env: cluster.env,
  });
const map = (name: string, data: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name },
  data,
});
const ONLY_HERE = { matchLabels: { 'kubernetes.io/metadata.name': ns } };

it('a webhook in a pod is reached through its Service', cluster, async () => {
  const validity = { notBeforeMs: Date.now() - 3_600_000, notAfterMs: Date.now() + 86_400_000 };
  const authority = newKey();
  const ca = issueCertificate(
    { subject: { commonName: 'hooks' }, usages: ['authority'], ...validity },
    authority.publicKey,
    {
      selfKey: authority.privateKey,
    },
  );
  const { key, certificate } = issueKeyPair(
    { subject: { commonName: 'hook' }, names: [`hook.${ns}.svc`], usages: ['server'], ...validity },
    { certificate: ca, privateKey: authority.privateKey },
  );
  const patch = Buffer.from('[{"op":"add","path":"/data/hooked","value":"yes"}]').toString('base64');
  const answer = (response: object) => JSON.stringify(JSON.stringify({ response })).replaceAll('$', '');
  // The older review needs no uid echoed, so that a web server's fixed replies do.
  const conf = `server {
    listen 8443 ssl;
    ssl_certificate /tls/tls.crt;
    ssl_certificate_key /tls/tls.key;
    default_type application/json;
    location /no { return 200 ${answer({ allowed: false, status: { message: 'not here' } })}; }
    location /patch { return 200 ${answer({ allowed: true, patch, patchType: 'JSONPatch', warnings: ['was hooked'] })}; }
    location / { return 404; }
  }`;
  await cluster.apply(ns, [
    map('hook-conf', { 'default.conf': conf }),
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'hook-tls' },
      type: 'kubernetes.io/tls',
      stringData: { 'tls.crt': certificate, 'tls.key': key },
    },
    deployment('hook', 'nginx:1.22', {
      container: {
        volumeMounts: [
          { name: 'conf', mountPath: '/etc/nginx/conf.d' },
          { name: 'tls', mountPath: '/tls' },
        ],
        readinessProbe: { tcpSocket: { port: 8443 }, periodSeconds: 1 },
      },
      podSpec: {
        volumes: [
          { name: 'conf', configMap: { name: 'hook-conf' } },
          { name: 'tls', secret: { secretName: 'hook-tls' } },
        ],
      },
    }),
    service('hook', 'hook', { ports: [{ port: 443, targetPort: 8443 }] }),
  ]);
  await cluster.readyPods(ns, 'app=hook', 1);
  const webhook = (path: string, label: string): object => ({
    name: `${label}.example.dev`,
    clientConfig: { service: { name: 'hook', namespace: ns, path }, caBundle: Buffer.from(ca).toString('base64') },
    rules: [{ operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['configmaps'] }],
    namespaceSelector: ONLY_HERE,
    matchConditions: [{ name: 'wanted', expression: `has(object.data) && '${label}' in object.data` }],
    sideEffects: 'None',
    admissionReviewVersions: ['v1beta1'],
  });
  const configuration = (kind: string, ...webhooks: object[]): object => ({
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind,
    metadata: { name: `${ns}-hooks` },
    webhooks,
  });
  try {
    await cluster.apply(ns, [
      configuration('ValidatingWebhookConfiguration', webhook('/no', 'refuse')),
      configuration('MutatingWebhookConfiguration', webhook('/patch', 'change')),
    ]);
    await eventually('the webhook answers', async () => {
      const refused = await create(map('refused', { refuse: '1' }));
      return /admission webhook "refuse.example.dev" denied the request: not here/.test(refused.stderr);
    });
    const changed = await create(map('changed', { change: '1' }));
    assert.equal(changed.code, 0, changed.stderr);
    assert.match(changed.stderr, /Warning: was hooked/);
    assert.equal((await cluster.json('-n', ns, 'get', 'configmap', 'changed')).data.hooked, 'yes');
    assert.equal((await create(map('other'))).code, 0);
    await k('delete', 'service', 'hook');
    await eventually('the missing webhook refuses', async () =>
      /failed calling webhook "refuse.example.dev"/.test((await create(map('late', { refuse: '1' }))).stderr),
    );
  } finally {
    await k(
      'delete',
      'validatingwebhookconfiguration,mutatingwebhookconfiguration',
      `${ns}-hooks`,
      '--ignore-not-found',
    );
  }
});

it('policies refuse, warn and change', cluster, async () => {
  const constraints = {
    namespaceSelector: ONLY_HERE,
    resourceRules: [
      { operations: ['CREATE', 'UPDATE'], apiGroups: ['apps'], apiVersions: ['v1'], resources: ['deployments'] },
    ],
  };
  const policy = (kind: string, name: string, spec: object): object => ({
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind,
    metadata: { name: `${ns}-${name}` },
    spec,
  });
  const policies = [
    policy('ValidatingAdmissionPolicy', 'replicas', {
      matchConstraints: constraints,
      validations: [
        {
          expression: 'object.spec.replicas <= 3',
          messageExpression: "'at most 3 replicas, not ' + string(object.spec.replicas)",
        },
      ],
    }),
    policy('ValidatingAdmissionPolicyBinding', 'replicas', {
      policyName: `${ns}-replicas`,
      validationActions: ['Deny'],
    }),
    policy('ValidatingAdmissionPolicy', 'owner', {
      matchConstraints: constraints,
      validations: [
        { expression: "'owner' in object.metadata.?labels.orValue({})", message: 'please label the owner' },
      ],
    }),
    policy('ValidatingAdmissionPolicyBinding', 'owner', { policyName: `${ns}-owner`, validationActions: ['Warn'] }),
    policy('MutatingAdmissionPolicy', 'mark', {
      matchConstraints: constraints,
      reinvocationPolicy: 'Never',
      failurePolicy: 'Fail',
      mutations: [
        {
          patchType: 'ApplyConfiguration',
          applyConfiguration: {
            expression: "Object{metadata: Object.metadata{annotations: {'marked-by': request.userInfo.username}}}",
          },
        },
      ],
    }),
    policy('MutatingAdmissionPolicyBinding', 'mark', { policyName: `${ns}-mark` }),
    // The options of a connection are what a policy makes of them.
    policy('MutatingAdmissionPolicy', 'words', {
      matchConstraints: {
        namespaceSelector: ONLY_HERE,
        resourceRules: [{ operations: ['CONNECT'], apiGroups: [''], apiVersions: ['v1'], resources: ['pods/exec'] }],
      },
      reinvocationPolicy: 'Never',
      mutations: [
        {
          patchType: 'JSONPatch',
          jsonPatch: {
            expression: "[JSONPatch{op: 'replace', path: '/command', value: ['echo', 'not', object.command[1]]}]",
          },
        },
      ],
    }),
    policy('MutatingAdmissionPolicyBinding', 'words', { policyName: `${ns}-words` }),
  ];
  try {
    await cluster.apply(ns, policies);
    await cluster.apply(ns, [pod('talks', 'busybox:1.35', { command: ['sleep', '600'] })]);
    await cluster.readyPod(ns, 'talks');
    assert.equal(await k('exec', 'talks', '--', 'echo', 'so'), 'not so\n');
    const many = await create(deployment('many', 'busybox:1.35', { replicas: 4 }));
    assert.match(
      many.stderr,
      // kubectl's own form of a refusal whose reason is Invalid.
      /The deployments "many" is invalid: : ValidatingAdmissionPolicy 'admission-replicas' with binding 'admission-replicas' denied request: at most 3 replicas, not 4/,
    );
    const few = await create(deployment('few', 'busybox:1.35', { replicas: 0 }));
    assert.equal(few.code, 0, few.stderr);
    assert.match(
      few.stderr,
      /Warning: Validation failed for ValidatingAdmissionPolicy 'admission-owner' .*please label the owner/,
    );
    const made = await cluster.json('-n', ns, 'get', 'deployment', 'few');
    assert.equal(made.metadata.annotations['marked-by'], 'kubernetes-admin');
  } finally {
    await cluster.kubectlWith(
      { input: policies.map(one => JSON.stringify(one)).join('\n---\n') },
      'delete',
      '--ignore-not-found',
      '-f',
      '-',
    );
  }
});

it('pod security standards', cluster, async () => {
  await k(
    'label',
    'namespace',
    ns,
    'pod-security.kubernetes.io/enforce=baseline',
    'pod-security.kubernetes.io/warn=restricted',
  );
  const bad = await create(pod('bad', 'busybox:1.35', { spec: { hostNetwork: true } }));
  assert.match(
    bad.stderr,
    /pods "bad" is forbidden: violates PodSecurity "baseline:latest": host namespaces \(hostNetwork=true\)/,
  );
  const fair = await create(pod('fair', 'busybox:1.35', { command: ['true'] }));
  assert.equal(fair.code, 0, fair.stderr);
  assert.match(
    fair.stderr,
    /Warning: would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false/,
  );
  const label = await cluster.tryKubectl(
    'label',
    'namespace',
    ns,
    '--overwrite',
    'pod-security.kubernetes.io/enforce=none',
  );
  assert.match(label.stderr, /must be one of privileged, baseline, restricted/);
  await k('label', 'namespace', ns, 'pod-security.kubernetes.io/enforce-', 'pod-security.kubernetes.io/warn-');
});

it('APIServices stand for every group', cluster, async () => {
  await eventually('the APIServices', async () => {
    const all = await k('get', 'apiservices');
    return /v1\.apps\s+Local\s+True/.test(all) && /v1\.\s+Local\s+True/.test(all);
  });
});
