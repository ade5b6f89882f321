import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readConfigurationFile } from './configuration-file.ts';

const read = (fields: string) =>
  readConfigurationFile(`apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n${fields}`, 'k.yaml');

test('what is set differs from the defaults', () => {
  assert.deepEqual(read(''), {});
  assert.deepEqual(
    read(`maxPods: 250
podPidsLimit: 100
evictionHard: { memory.available: 200Mi, nodefs.available: 5% }
evictionSoft: { memory.available: 400Mi }
evictionSoftGracePeriod: { memory.available: 1m30s }
evictionMaxPodGracePeriod: 60
evictionMinimumReclaim: { nodefs.available: 1Gi }
evictionPressureTransitionPeriod: 30s
kubeReserved: { cpu: 100m, memory: 100Mi }
containerLogMaxSize: 1Mi
crashLoopBackOff: { maxContainerRestartPeriod: 20s }
cgroupDriver: cgroupfs
cpuManagerPolicy: static
cpuManagerPolicyOptions: { full-pcpus-only: "true" }
reservedSystemCPUs: 0-1
topologyManagerPolicy: single-numa-node
memoryManagerPolicy: Static
reservedMemory: [{ numaNode: 0, limits: { memory: 300Mi } }]
userNamespaces: { idsPerPod: 131072 }
tracing: { endpoint: 'unix:///run/otel.sock', samplingRatePerMillion: 100 }
registerWithTaints: [{ key: a, value: b, effect: NoSchedule }]`),
    {
      maxPods: 250,
      podPidsLimit: 100,
      evictionHard: { 'memory.available': '200Mi', 'nodefs.available': '5%' },
      evictionSoft: { 'memory.available': '400Mi' },
      evictionSoftGracePeriodSeconds: { 'memory.available': 90 },
      evictionMaxPodGracePeriod: 60,
      evictionMinimumReclaim: { 'nodefs.available': '1Gi' },
      evictionPressureTransitionPeriodSeconds: 30,
      kubeReserved: { cpu: '100m', memory: '100Mi' },
      containerLogMaxBytes: 1024 * 1024,
      crashLoopBackOffSecondsMax: 20,
      cpuManagerPolicy: 'static',
      cpuManagerPolicyOptions: { 'full-pcpus-only': 'true' },
      reservedSystemCPUs: '0-1',
      topologyManagerPolicy: 'single-numa-node',
      memoryManagerPolicy: 'Static',
      reservedMemory: [{ numaNode: 0, limits: { memory: '300Mi' } }],
      idsPerPod: 131072,
      tracing: { endpoint: 'unix:///run/otel.sock', samplingRatePerMillion: 100 },
      registerWithTaints: [{ key: 'a', value: 'b', effect: 'NoSchedule' }],
    },
  );
});

test('mistakes and what is not followed are refused, with their place', () => {
  for (const [fields, what] of [
    ['maxPod: 3', /k\.yaml: maxPod: unknown field "maxPod"/],
    ['reservedMemory: [{ numaNode: 0, limits: { memory: 0 } }]', /limits\[memory\]: Invalid value: 0/],
    ['tracing: { rate: 3 }', /k\.yaml: tracing\.rate: unknown field/],
    ['tracing: { samplingRatePerMillion: 0.5 }', /tracing\.samplingRatePerMillion: Invalid value: 0\.5/],
    [
      'tracing: { samplingRatePerMillion: -1 }',
      /tracing\.samplingRatePerMillion: Invalid value: -1: sampling rate must be positive/,
    ],
    [
      'tracing: { endpoint: "https://collector" }',
      /tracing\.endpoint: Invalid value: "https:\/\/collector": unsupported scheme: https\./,
    ],
    ['maxPods: many', /k\.yaml: maxPods: Invalid value: "many": must be a whole number/],
    ['evictionHard: { memory.free: 1Mi }', /unknown eviction signal "memory.free"/],
    ['evictionHard: { memory.available: -1Mi }', /evictionHard\[memory.available\]: Invalid value/],
    ['evictionSoft: { memory.available: 1Gi }', /grace period must be specified for the soft eviction threshold/],
    ['evictionSoftGracePeriod: { memory.available: 1m }', /there is no soft eviction threshold/],
    ['topologyManagerPolicy: two-numa-nodes', /topologyManagerPolicy: Unsupported value/],
    ['reservedSystemCPUs: 3-1', /reservedSystemCPUs: Invalid value: .* is no list of CPUs/],
    ['cpuManagerPolicyOptions: { align-by-socket: "true" }', /does not follow it yet/],
    ['userNamespaces: { idsPerPod: 1000 }', /idsPerPod: Invalid value: 1000/],
    ['protectKernelDefaults: true', /protectKernelDefaults: is false here and cannot be/],
    ['clusterDNS: [10.0.0.10]', /clusterDNS: cannot be set here/],
    ['podsPerCore: 5', /podsPerCore: this kubelet does not follow it yet/],
    ['cpuManagerPolicy: dynamic', /cpuManagerPolicy: Unsupported value/],
    ['kubeReserved: { disk: 1Gi }', /cannot reserve "disk"/],
    ['crashLoopBackOff: { maxContainerRestartPeriod: 10m }', /between 1s and 300s/],
    ['maxPods: 1\nmaxPods: 2', /k\.yaml: .*unique/],
  ] as const)
    assert.throws(() => read(fields), what, fields);
  assert.throws(() => readConfigurationFile('maxPods: 3', 'k.yaml'), /must have apiVersion/);
});

test('who may use the port: what kubeadm writes, where no time means the default', () => {
  assert.deepEqual(
    read(`authentication:
  anonymous: { enabled: false }
  webhook: { cacheTTL: 0s, enabled: true }
  x509: { clientCAFile: /etc/kubernetes/pki/ca.crt }
authorization: { mode: Webhook, webhook: { cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 10s } }`),
    {
      authentication: {
        anonymous: false,
        webhook: true,
        cacheSeconds: 120,
        clientCaFile: '/etc/kubernetes/pki/ca.crt',
      },
      authorization: { mode: 'Webhook', allowedSeconds: 300, refusedSeconds: 10 },
    },
  );
  assert.throws(() => read('authorization: { mode: RBAC }'), /authorization.mode: Unsupported value: "RBAC"/);
  assert.throws(() => read('authentication: { basic: {} }'), /authentication.basic: unknown field/);
});
