import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import { test } from 'node:test';
import type { KubeObject } from '../../api/meta.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import type { Exchange } from '../exchange.ts';
import type { ReplyContext } from '../reply.ts';
import type { Reader } from '../request.ts';
import { ResourceMetrics } from './resource-metrics.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into objects freely
type Any = any;

const usage = (nano: number, bytes: number) => ({
  cpu: { time: '2026-01-01T00:00:00Z', usageNanoCores: nano },
  memory: { workingSetBytes: bytes },
});
const SUMMARY = {
  node: usage(250_000_000, 1024 * 1024),
  pods: [
    { podRef: { name: 'a', namespace: 'x', uid: 'a' }, containers: [{ name: 'c', ...usage(5_000_000, 4096) }] },
    { podRef: { name: 'gone', namespace: 'x', uid: 'g' }, containers: [{ name: 'c', ...usage(1, 1) }] },
  ],
};

function setUp() {
  const objects: Record<string, KubeObject[]> = {
    nodes: ['n1', 'dead'].map(name => ({ apiVersion: 'v1', kind: 'Node', metadata: { name, labels: { zone: name } } })),
    pods: [
      ['a', 'n1'],
      ['b', 'dead'],
    ].map(
      ([name, nodeName]) =>
        ({
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name, namespace: 'x', uid: name, labels: { app: name } },
          spec: { nodeName },
          status: { phase: 'Running' },
        }) as unknown as KubeObject,
    ),
  };
  let scrapes = 0;
  const metrics = new ResourceMetrics({
    reader: () => ({ list: (of: { resource: string }) => objects[of.resource] ?? [] }) as unknown as Reader,
    kubelets: {
      locate: name => ({ host: name, port: 1 }),
      request({ host }, _: RequestOptions, answered: (reply: IncomingMessage) => void) {
        scrapes++;
        const request = new EventEmitter() as ClientRequest;
        request.end = () => {
          setImmediate(() => {
            if (host === 'dead') return request.emit('error', new Error('no route to host'));
            const reply = new EventEmitter() as IncomingMessage;
            reply.statusCode = 200;
            answered(reply);
            reply.emit('data', Buffer.from(JSON.stringify(SUMMARY)));
            return reply.emit('end');
          });
          return request;
        };
        return request;
      },
    },
    clock: systemClock,
    log: silentLogger,
  });
  const get = async (path: string, accept = 'application/json'): Promise<Any> => {
    let body: Any;
    const exchange = {
      method: 'GET',
      url: `/apis/metrics.k8s.io/v1beta1${path}`,
      headers: { accept },
      reply: (_status: number, _headers: unknown, parts: readonly Buffer[]) =>
        (body = JSON.parse(Buffer.concat(parts).toString())),
    } as unknown as Exchange;
    await metrics.answer({ exchange, code: 0, warnings: undefined } as ReplyContext);
    return body;
  };
  return { get, scrapes: () => scrapes };
}

test('nodes and pods that answered are listed, with labels; kubelets are asked once for both', async () => {
  const { get, scrapes } = setUp();
  const nodes = await get('/nodes');
  assert.deepEqual(
    [nodes.kind, nodes.items.length, nodes.items[0].usage, nodes.items[0].metadata.labels],
    ['NodeMetricsList', 1, { cpu: '250000000n', memory: '1024Ki' }, { zone: 'n1' }],
  );
  const pods = await get('/pods');
  assert.deepEqual(
    pods.items.map((one: Any) => [one.metadata.name, one.containers]),
    [['a', [{ name: 'c', usage: { cpu: '5000000n', memory: '4Ki' } }]]],
  );
  assert.equal(scrapes(), 2);
});

test('selectors, single objects, tables and what is refused', async () => {
  const { get } = setUp();
  assert.equal((await get('/pods?labelSelector=app%3Da')).items.length, 1);
  assert.equal((await get('/pods?labelSelector=app%3Dz')).items.length, 0);
  assert.equal((await get('/namespaces/x/pods?fieldSelector=metadata.name%3Da')).items.length, 1);
  assert.equal((await get('/namespaces/y/pods')).items.length, 1, 'the reader of this test knows no namespaces');
  assert.equal((await get('/namespaces/x/pods/a')).kind, 'PodMetrics');
  assert.equal((await get('')).kind, 'APIResourceList');
  assert.deepEqual((await get('/pods', 'application/json;as=Table;g=meta.k8s.io;v=v1')).rows[0].cells, [
    'a',
    '5000000n',
    '4Ki',
    '10s',
  ]);
  await assert.rejects(get('/namespaces/x/pods/b'), { code: 404 });
  await assert.rejects(get('/secrets'), { code: 404 });
  await assert.rejects(get('/namespaces/x/nodes'), { code: 404 });
  await assert.rejects(get('/pods/a'), { code: 404 });
  await assert.rejects(get('/pods?fieldSelector=spec.nodeName%3Da'), { code: 400 });
});
