import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Pod } from '../api/core/v1.gen.ts';
import { type Asked, ask, type Bed, openBed } from '../apiserver/who-bed.ts';
import { systemClock } from '../base/clock.ts';
import '../scheduler/metrics.ts';
import { podResourceMetrics } from '../scheduler/pod-resource-metrics.ts';
import { kubeletPages } from './component-pages.ts';
import { componentPorts } from './component-ports.ts';

let bed: Bed;
const problem: { text: string | undefined } = { text: undefined };
const ports: Record<string, number> = {};
const pod = (name: string, spec: object, phase = 'Running'): Pod =>
  ({
    metadata: { name, namespace: 'd' },
    spec: { nodeName: 'n', schedulerName: 's', ...spec },
    status: { phase },
  }) as Pod;
const uses = (requests: object, limits: object = {}) => ({
  containers: [{ name: 'c', resources: { requests, limits } }],
});

before(async () => {
  bed = await openBed(() => ['--anonymous-auth=true']);
  const pods = [
    pod('a', { ...uses({ cpu: '250m', memory: '1Mi', 'x.io/gpu': '2' }, { 'hugepages-2Mi': '4Mi' }), priority: 7 }),
    pod('done', uses({ cpu: '1' }), 'Succeeded'),
    pod('waits', { ...uses({ cpu: '1' }), nodeName: undefined }),
  ];
  const all = componentPorts({
    scheduler: { problem: () => problem.text, podResources: () => podResourceMetrics(pods) },
    controllers: { problem: () => undefined },
    ranges: { podCidrs: ['10.244.0.0/16'], serviceCidrs: ['10.96.0.0/12'], nodeMaskSizes: [24] },
    clock: systemClock,
  });
  const tls = { key: bed.pki.server.key, cert: bed.pki.server.certificate, ca: bed.pki.ca };
  for (const { port, pages } of all)
    ports[port] = (await bed.server.listenFor(pages, { host: '127.0.0.1', port: 0 }, tls)).port;
});
after(() => bed.close());

const at = (port: number, asked: Asked) => ask(ports[port]!, bed.pki.ca, asked);
const SCHEDULER = 10_259;
const MANAGER = 10_257;

test('health is told to everybody, and nothing else', async () => {
  assert.equal((await at(SCHEDULER, { path: '/healthz' })).status, 200);
  assert.equal((await at(MANAGER, { path: '/healthz' })).status, 200);
  assert.equal((await at(MANAGER, { path: '/livez' })).status, 404);
  problem.text = 'not yet';
  assert.equal((await at(SCHEDULER, { path: '/readyz' })).status, 500);
  assert.equal((await at(SCHEDULER, { path: '/livez' })).status, 200);
  problem.text = undefined;
  assert.equal((await at(SCHEDULER, { path: '/readyz' })).status, 200);
  for (const path of [
    '/metrics',
    '/metrics/resources',
    '/statusz',
    '/flagz',
    '/readyz/ping',
    '/nothing',
    '/api/v1/pods',
  ]) {
    const { status, json } = await at(SCHEDULER, { path });
    assert.equal(status, 403, path);
    assert.match(json.message, /^forbidden: User "system:anonymous" cannot get path "\//);
  }
  assert.equal((await at(SCHEDULER, { path: '/metrics', token: 'nobody' })).status, 401);
});

test('metrics are the component’s own; pods are told with what they ask for', async () => {
  const page = async (port: number, path: string) => (await at(port, { path, as: bed.admin })).json as string;
  assert.match(await page(SCHEDULER, '/metrics'), /^# TYPE scheduler_pending_pods gauge$/m);
  assert.doesNotMatch(await page(SCHEDULER, '/metrics'), /apiserver_|workqueue_/);
  assert.doesNotMatch(await page(MANAGER, '/metrics'), /apiserver_|scheduler_/);
  assert.equal((await at(MANAGER, { path: '/metrics/resources', as: bed.admin })).status, 404);
  assert.equal((await at(SCHEDULER, { path: '/api/v1/pods', as: bed.admin })).status, 404);
  const lines = (await page(SCHEDULER, '/metrics/resources')).split('\n').filter(line => line && !line.startsWith('#'));
  const labels = (name: string, priority: string, rest: string) =>
    `{namespace="d",pod="${name}",node="${name === 'waits' ? '' : 'n'}",scheduler="s",priority="${priority}",${rest}}`;
  assert.deepEqual(lines, [
    `kube_pod_resource_request${labels('a', '7', 'resource="cpu",unit="cores"')} 0.25`,
    `kube_pod_resource_request${labels('a', '7', 'resource="memory",unit="bytes"')} 1048576`,
    `kube_pod_resource_request${labels('a', '7', 'resource="x.io/gpu",unit=""')} 2`,
    `kube_pod_resource_request${labels('waits', '', 'resource="cpu",unit="cores"')} 1`,
    `kube_pod_resource_limit${labels('a', '7', 'resource="hugepages-2Mi",unit="bytes"')} 4194304`,
  ]);
});

test('statusz and flagz of each component', async () => {
  const page = (port: number, path: string, accept?: string) =>
    at(port, { path, as: bed.admin, ...(accept ? { headers: { accept } } : {}) });
  assert.match(
    (await page(SCHEDULER, '/statusz')).json,
    /^\nkube-scheduler statusz\nWarning: .*\n\nStarted: .*\nUp: 0 hr 00 min \d\d sec\nGo version: .*\nBinary version: 1\.36.*\nEmulation version: 1\.36\nPaths: \/flagz \/healthz \/livez \/metrics \/readyz\n$/,
  );
  assert.match(
    (await page(MANAGER, '/flagz')).json,
    /^\nkube-controller-manager flagz\nWarning: .*\nallocate-node-cidrs=true\ncluster-cidr=10\.244\.0\.0\/16\nleader-elect=false\n/,
  );
  const { json } = await page(MANAGER, '/statusz', 'application/json;v=v1beta1;g=config.k8s.io;as=Statusz');
  assert.deepEqual(json.metadata, { name: 'kube-controller-manager' });
  assert.deepEqual(json.paths, ['/flagz', '/healthz', '/metrics']);
  assert.equal((await page(SCHEDULER, '/flagz', 'application/json')).status, 406);
  const kubelet = kubeletPages({ config: undefined, 'node-ip': ['10.0.0.1', 'fd00::1'], port: 10250 }, systemClock);
  const flags = await kubelet.find('/flagz', undefined);
  assert.match(String(await flags?.bytes), /^\nkubelet flagz\nWarning: .*\nnode-ip=10\.0\.0\.1,fd00::1\nport=10250\n$/);
  assert.equal(await kubelet.find('/pods', undefined), undefined);
});
