/** The JavaScript client of the Kubernetes project, unchanged, as a judge: what its classes offer must work, informers above all. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { get } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { PassThrough, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import * as k8s from '@kubernetes/client-node';
import { before, deployment, HTTP_READY, it, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const namespace = useNamespace(cluster, 'client-node');
const kube = new k8s.KubeConfig();
let core: k8s.CoreV1Api;
let apps: k8s.AppsV1Api;
let podName: string;

before(
  async () => {
    kube.loadFromFile(cluster.kubeconfig);
    core = kube.makeApiClient(k8s.CoreV1Api);
    apps = kube.makeApiClient(k8s.AppsV1Api);
    const web = deployment('web', 'coxswain/echo:1', { container: HTTP_READY }) as k8s.KubernetesObject;
    web.metadata!.namespace = namespace;
    await k8s.KubernetesObjectApi.makeApiClient(kube).create(web);
    await eventually('web is ready', async () => {
      const { status } = await apps.readNamespacedDeployment({ namespace, name: 'web' });
      return status?.readyReplicas === 1;
    });
    const { items } = await core.listNamespacedPod({ namespace, labelSelector: 'app=web' });
    podName = items[0]!.metadata!.name!;
  },
  { timeout: 60_000 },
);

const typed = (type: string) => k8s.setHeaderOptions('Content-Type', type);

class Sink extends Writable {
  text = '';
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.text += chunk;
    done();
  }
}

it(
  'an informer sees additions, changes and deletions, and what it missed while its watch was gone',
  cluster,
  async () => {
    const seen: string[] = [];
    const list = () => core.listNamespacedConfigMap({ namespace });
    const informer = k8s.makeInformer(kube, `/api/v1/namespaces/${namespace}/configmaps`, list);
    const note = (what: string) => (object: k8s.V1ConfigMap) => {
      if (object.metadata!.name === 'watched') seen.push(`${what} ${object.data?.['k'] ?? ''}`);
    };
    informer.on('add', note('add'));
    informer.on('update', note('update'));
    informer.on('delete', note('delete'));
    // Its own `stop` is one.
    informer.on('error', error => error?.name !== 'AbortError' && seen.push(`error ${error}`));
    await informer.start();
    const name = 'watched';
    await core.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { k: '1' } } });
    await eventually('added', () => seen.at(-1) === 'add 1');
    await core.patchNamespacedConfigMap({ namespace, name, body: [{ op: 'replace', path: '/data/k', value: '2' }] });
    await eventually('updated', () => seen.at(-1) === 'update 2');
    assert.equal(informer.get(name, namespace)?.data?.['k'], '2');
    await informer.stop();
    await core.patchNamespacedConfigMap({ namespace, name, body: [{ op: 'replace', path: '/data/k', value: '3' }] });
    await informer.start();
    await eventually('updated meanwhile', () => seen.at(-1) === 'update 3');
    await core.deleteNamespacedConfigMap({ namespace, name });
    await eventually('deleted', () => seen.at(-1)?.startsWith('delete'));
    await informer.stop();
    assert.deepEqual(seen, ['add 1', 'update 2', 'update 3', seen.at(-1)!]);
    assert.match(seen.at(-1)!, /^delete/);
  },
);

it('patches of all four kinds', cluster, async () => {
  const name = 'patched';
  const at = { namespace, name };
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { a: '1' } } });
  const { JsonPatch, MergePatch, StrategicMergePatch, ServerSideApply } = k8s.PatchStrategy;
  const json = [{ op: 'add', path: '/data/b', value: '2' }];
  await core.patchNamespacedConfigMap({ ...at, body: json }, typed(JsonPatch));
  await core.patchNamespacedConfigMap({ ...at, body: { data: { a: null, c: '3' } } }, typed(MergePatch));
  await core.patchNamespacedConfigMap({ ...at, body: { data: { d: '4' } } }, typed(StrategicMergePatch));
  const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { e: '5' } };
  const applied = await core.patchNamespacedConfigMap({ ...at, body, fieldManager: 'judge' }, typed(ServerSideApply));
  assert.deepEqual(applied.data, { b: '2', c: '3', d: '4', e: '5' });
  assert.ok(
    applied.metadata!.managedFields!.some(({ manager, operation }) => `${manager} ${operation}` === 'judge Apply'),
  );
});

it('a watch ends in good order, with bookmarks; a list is paged; errors are those of the API', cluster, async () => {
  const types: string[] = [];
  let end: (error: unknown) => void = () => {};
  const ended = new Promise(resolve => (end = resolve));
  const options = {
    allowWatchBookmarks: true,
    sendInitialEvents: true,
    resourceVersionMatch: 'NotOlderThan',
    timeoutSeconds: 2,
  };
  await new k8s.Watch(kube).watch(`/api/v1/namespaces/${namespace}/pods`, options, type => types.push(type), end);
  assert.equal((await ended) ?? undefined, undefined);
  assert.deepEqual(types.slice(0, 2), ['ADDED', 'BOOKMARK']);
  const pages: string[] = [];
  for (let next: string | undefined; pages.length === 0 || next; ) {
    const page = await core.listNamespacedEvent({ namespace, limit: 1, ...(next ? { _continue: next } : {}) });
    pages.push(page.items[0]!.metadata!.name!);
    next = page.metadata!._continue;
  }
  assert.ok(pages.length > 2);
  assert.equal(new Set(pages).size, pages.length);
  await assert.rejects(
    core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'Bad_Name' } } }),
    (error: k8s.ApiException<string>) => error.code === 422 && error.body.includes('Invalid value: \\"Bad_Name\\"'),
  );
});

it('logs, exec with its exit code, attach, forwarded ports', cluster, async () => {
  assert.match(await core.readNamespacedPodLog({ namespace, name: podName }), /start worker process/);
  const output = new Sink();
  const failures = new Sink();
  const input = new PassThrough();
  input.end('by stdin');
  const status = await new Promise<k8s.V1Status>((resolve, reject) => {
    const command = ['sh', '-c', 'cat; echo problem >&2; exit 3'];
    new k8s.Exec(kube).exec(namespace, podName, 'main', command, output, failures, input, false, resolve).catch(reject);
  });
  assert.equal(status.reason, 'NonZeroExitCode');
  assert.equal(status.details!.causes![0]!.message, '3');
  assert.deepEqual([output.text, failures.text], ['by stdin', 'problem\n']);
  const attached = await new k8s.Attach(kube).attach(namespace, podName, 'main', output, failures, null, false);
  attached.close();
  const forwarding = new k8s.PortForward(kube);
  const local = createServer(socket => void forwarding.portForward(namespace, podName, [80], socket, null, socket));
  await once(local.listen(0, '127.0.0.1'), 'listening');
  const { port } = local.address() as AddressInfo;
  const page = await new Promise<string>((resolve, reject) => {
    get({ host: '127.0.0.1', port, agent: false }, response => resolve(text(response))).once('error', reject);
  });
  local.close();
  assert.match(page, new RegExp(podName));
});

it('scale, usage, tokens, who asks, health, custom resources', cluster, async () => {
  const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'web' });
  scale.spec!.replicas = 2;
  await apps.replaceNamespacedDeploymentScale({ namespace, name: 'web', body: scale });
  const usage = new k8s.Metrics(kube);
  await eventually('usage of both pods', async () => (await usage.getPodMetrics(namespace)).items.length === 2, {
    timeoutMs: 60_000,
  });
  assert.equal((await k8s.topNodes(core)).length, 2);
  const token = { namespace, name: 'default', body: { spec: { audiences: ['somebody'], expirationSeconds: 600 } } };
  assert.match((await core.createNamespacedServiceAccountToken(token)).status!.token!, /^[\w-]+\.[\w-]+\.[\w-]+$/);
  const review = await kube.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
  assert.ok(review.status!.userInfo!.groups!.includes('system:masters'));
  assert.ok(await new k8s.Health(kube).readyz({}));
  const group = 'judges.example.com';
  const body: k8s.V1CustomResourceDefinition = {
    metadata: { name: `verdicts.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: { plural: 'verdicts', singular: 'verdict', kind: 'Verdict' },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          schema: { openAPIV3Schema: { type: 'object', x_kubernetes_preserve_unknown_fields: true } },
        },
      ],
    },
  };
  const definitions = kube.makeApiClient(k8s.ApiextensionsV1Api);
  await definitions.createCustomResourceDefinition({ body });
  const custom = kube.makeApiClient(k8s.CustomObjectsApi);
  const verdicts = { group, version: 'v1', namespace, plural: 'verdicts' };
  const verdict = { apiVersion: `${group}/v1`, kind: 'Verdict', metadata: { name: 'first' }, spec: { guilty: true } };
  await eventually('it is served', () => custom.createNamespacedCustomObject({ ...verdicts, body: verdict }));
  const patch = [{ op: 'replace', path: '/spec/guilty', value: false }];
  const patched = await custom.patchNamespacedCustomObject({ ...verdicts, name: 'first', body: patch });
  assert.equal(patched.spec.guilty, false);
  await definitions.deleteCustomResourceDefinition({ name: `verdicts.${group}` });
});
