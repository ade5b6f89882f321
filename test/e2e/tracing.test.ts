/** Traces of the API server and a kubelet, as a collector gets them. The cluster is one of its own: both are told where to when they start. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Collector } from '../../src/app/tracing/collector-bed.ts';
import { type Cluster, freshCluster, pod } from './cluster.ts';
import { eventually } from './process.ts';

test('traces of the API server and of a kubelet reach a collector', { timeout: 150_000 }, async () => {
  const cluster = freshCluster('traces');
  try {
    await traces(cluster);
  } finally {
    await cluster.tryCox(['down'], { timeoutMs: 60_000 });
    rmSync(cluster.stateDir, { recursive: true, force: true });
  }
});

async function traces(cluster: Cluster): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'cox-e2e-traces-'));
  // The API server finds its collector on the machine's own loopback, the node by a file.
  const [ofServer, ofKubelet] = await Promise.all([Collector.open(), Collector.open(join(folder, 'collector.sock'))]);
  try {
    const file = (name: string, text: string) => {
      writeFileSync(join(folder, name), text);
      return join(folder, name);
    };
    const tracing = (endpoint: string, rate: number) =>
      file(
        'tracing.yaml',
        `{apiVersion: apiserver.config.k8s.io/v1, kind: TracingConfiguration, endpoint: "${endpoint}", samplingRatePerMillion: ${rate}}`,
      );
    const kubelet = file(
      'kubelet.yaml',
      `{apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration, tracing: {endpoint: "unix://${folder}/collector.sock", samplingRatePerMillion: 1000000}}`,
    );
    const up = (path: string) =>
      cluster.up({
        nodes: 1,
        extra: ['--kube-apiserver-arg', `tracing-config-file=${path}`, '--kubelet-config', kubelet],
      });
    await assert.rejects(
      up(tracing('http://localhost:4317', 1_000_000)),
      /tracing-config-file: .*endpoint: Invalid value: "http:\/\/localhost:4317": unsupported scheme: http\./,
    );
    await assert.rejects(up(tracing('localhost:4317', 1_000_001)), /must be less than or equal to one million/);
    await up(tracing(`localhost:${ofServer.port}`, 1_000_000));
    await cluster.loadImages();
    await eventually(
      'service account',
      async () => (await cluster.tryKubectl('get', 'serviceaccount', 'default')).code === 0,
    );
    await cluster.apply('default', [
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'traced' } },
      pod('traced', 'coxswain/echo:1', {}),
    ]);
    await cluster.readyPod('default', 'traced');

    const named = 'POST /api/v1/namespaces/{:namespace}/configmaps';
    const write = await ofServer.find(
      ({ name, attributes }) =>
        name === 'Create etcd3' && String(attributes['key']).endsWith('/configmaps/default/traced'),
    );
    const request = await ofServer.find(({ name, traceId }) => name === named && traceId === write.traceId);
    assert.equal(request.resource['service.name'], 'apiserver');
    assert.match(String(request.resource['service.instance.id']), /^apiserver-[a-z2-7]{26}$/);
    assert.match(String(request.attributes['user_agent.original']), /^kubectl\//);
    assert.equal(request.attributes['http.response.status_code'], 201);
    await ofServer.find(({ spanId }) => spanId === request.parentId);
    await ofServer.find(({ spanId }) => spanId === write.parentId);
    assert.deepEqual(ofServer.pathOf(write), [
      ...['authentication', named, 'audit', 'impersonation', 'priorityandfairness', 'authorization'],
      ...['Create', 'Create etcd3'],
    ]);

    // What the scheduler asks in the same process is traced too.
    const bound = await ofServer.find(({ name }) => name.endsWith('/pods/{:name}/binding'));
    assert.equal(bound.attributes['user_agent.original'], 'kube-scheduler');

    const sync = await ofKubelet.find(
      ({ name, attributes }) => name === 'syncPod' && attributes['k8s.pod'] === 'default/traced',
    );
    assert.deepEqual([sync.resource['service.name'], sync.resource['host.name']], ['kubelet', 'node-1']);
    assert.equal(sync.attributes['k8s.pod.update_type'], 'create');
    // What the kubelet asks, the API server knows whose it was, and makes a trace of its own: a kubelet is no administrator.
    const status = await ofKubelet.find(
      ({ name, attributes }) => name === 'HTTP PATCH' && String(attributes['url.full']).includes('/pods/traced/status'),
    );
    const served = await ofServer.find(({ links }) => links.some(({ spanId }) => spanId === status.spanId));
    assert.equal(served.name, 'PATCH /api/v1/namespaces/{:namespace}/pods/{:name}/status');
    assert.equal(served.parentId, '');
    assert.notEqual(served.traceId, status.traceId);

    await cluster.kubectl('exec', 'traced', '--', 'true');
    const session = await ofKubelet.find(({ name }) => name.startsWith('/exec/'));
    assert.equal(session.name, '/exec/{podNamespace}/{podID}/{containerName}');
    const upgraded = await ofServer.find(({ name }) => name.endsWith('/pods/{:name}/exec'));
    assert.equal(upgraded.attributes['http.response.status_code'], 101);
    assert.equal(upgraded.attributes['network.protocol.version'], '1.1');
    if (process.env['COX_E2E_RUNTIME'] === 'containerd') {
      const call = await ofKubelet.find(
        ({ name, traceId }) => name === 'runtime.v1.RuntimeService/RunPodSandbox' && traceId === sync.traceId,
      );
      assert.equal(call.parentId, sync.spanId);
      assert.equal(call.attributes['rpc.grpc.status_code'], 0);
    }
    await cluster.kubectl('delete', 'pod', 'traced');
    await ofKubelet.find(({ name }) => name === 'syncTerminatingPod');
    await ofKubelet.find(({ name }) => name === 'syncTerminatedPod');
    assert.match(await cluster.kubectl('get', '--raw', '/metrics'), /^coxswain_tracing_exported_spans_total [1-9]/m);
  } finally {
    await Promise.all([ofServer.close(), ofKubelet.close()]);
    rmSync(folder, { recursive: true, force: true });
  }
}
