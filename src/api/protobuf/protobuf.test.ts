import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeProtobuf } from './decoder.ts';
import { encodeProtobuf } from './encoder.ts';

const deployment = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: {
    name: 'web',
    namespace: 'default',
    labels: { app: 'web', '': 'ü' },
    creationTimestamp: '2026-01-02T03:04:05Z',
    generation: 3,
    finalizers: ['a', 'b'],
  },
  spec: {
    replicas: 0,
    selector: { matchLabels: { app: 'web' }, matchExpressions: [{ key: 'k', operator: 'In', values: ['x', 'y'] }] },
    strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: '25%', maxUnavailable: 1 } },
    template: {
      metadata: { labels: { app: 'web' } },
      spec: {
        containers: [
          {
            name: 'main',
            image: 'nginx',
            resources: { requests: { cpu: '100m', memory: '1Gi' } },
            ports: [{ containerPort: 80, protocol: 'TCP' }],
            livenessProbe: { httpGet: { path: '/', port: 'http' }, periodSeconds: -1 },
          },
        ],
        volumes: [
          { name: 'c', configMap: { name: 'cm', defaultMode: 420 } },
          { name: 'e', emptyDir: { sizeLimit: '1Mi' } },
        ],
        securityContext: { supplementalGroups: [1, 2, 300] },
      },
    },
  },
};

/** Drops what the encoder adds for Go's value structs. */
function withoutEmpty(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutEmpty);
  if (typeof value !== 'object' || value === null) return value;
  const kept = Object.entries(value)
    .map(([key, item]) => [key, withoutEmpty(item)] as const)
    .filter(
      ([, item]) =>
        !(typeof item === 'object' && item !== null && !Array.isArray(item) && Object.keys(item).length === 0),
    );
  return Object.fromEntries(kept);
}

test('an object survives the round trip: inlined sources, maps, quantities, times, negative numbers', () => {
  assert.deepEqual(withoutEmpty(decodeProtobuf(encodeProtobuf(deployment))), deployment);
});

test('binary data, embedded objects and named slices keep their form', () => {
  const secret = {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 's' },
    data: { k: Buffer.from([0, 255, 10]).toString('base64') },
  };
  assert.deepEqual(withoutEmpty(decodeProtobuf(encodeProtobuf(secret))), secret);
  const revision = {
    apiVersion: 'apps/v1',
    kind: 'ControllerRevision',
    metadata: { name: 'r' },
    data: { spec: { a: [1, 'x'] } },
    revision: 7,
  };
  assert.deepEqual(withoutEmpty(decodeProtobuf(encodeProtobuf(revision))), revision);
  const review = {
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SubjectAccessReview',
    metadata: { name: '' },
    spec: { user: 'u', extra: { scopes: ['a', 'b'], none: [] } },
  };
  assert.deepEqual((decodeProtobuf(encodeProtobuf(review)) as unknown as typeof review).spec.extra, review.spec.extra);
});

// runtime.Unknown with the TypeMeta given, and an object whose ObjectMeta is {name: "x"}.
function writtenByGo(apiVersion: string, kind: string): Buffer {
  const part = (key: number, bytes: Buffer) => Buffer.concat([Buffer.from([key, bytes.length]), bytes]);
  const meta = Buffer.concat([part(0x0a, Buffer.from(apiVersion)), part(0x12, Buffer.from(kind))]);
  const raw = Buffer.from('0a030a0178', 'hex');
  return Buffer.concat([Buffer.from('k8s\0'), part(0x0a, meta), part(0x12, raw), Buffer.from([0x1a, 0, 0x22, 0])]);
}

test('bytes as a Go client writes them: kubectl create namespace x', () => {
  const named = { metadata: { name: 'x' } };
  assert.deepEqual(decodeProtobuf(writtenByGo('v1', 'Namespace')), { apiVersion: 'v1', kind: 'Namespace', ...named });
  // No longer served, but what older clients evict with.
  const eviction = { apiVersion: 'policy/v1beta1', kind: 'Eviction' };
  assert.deepEqual(decodeProtobuf(writtenByGo(eviction.apiVersion, eviction.kind)), { ...eviction, ...named });
  assert.throws(() => decodeProtobuf(writtenByGo('policy/v1beta1', 'PodDisruptionBudget')), { code: 400 });
});

test('broken and foreign bytes are refused, never misread', () => {
  const good = encodeProtobuf(deployment);
  assert.throws(() => decodeProtobuf(Buffer.from('{"kind":"Pod"}')), /does not appear to be a protobuf message/);
  assert.throws(() => decodeProtobuf(good.subarray(0, good.length - 30)), /unexpected EOF/);
  assert.throws(
    () => decodeProtobuf(Buffer.concat([Buffer.from('k8s\0'), Buffer.from([0x0a, 0])])),
    /no kind "" is registered/,
  );
});
