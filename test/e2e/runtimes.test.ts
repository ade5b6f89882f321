/** Other ways to run a node: containerd in the place of our runtime, and our kubelet by itself, known to the server by a kubeconfig only. */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { chooseRanges } from '../../src/app/cluster-ranges.ts';
import { openPki } from '../../src/app/pki.ts';
import { createNodeNamespace, nodeAddress } from '../../src/network/segment.ts';
import { before, freshCluster, isReady, root } from './cluster.ts';
import { eventually, pidsOf } from './process.ts';

const cluster = freshCluster('rt');
const BUSYBOX = 'busybox:1.35';

const idle = (name: string, spec: object = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name },
  spec: {
    terminationGracePeriodSeconds: 1,
    containers: [{ name: 'c', image: BUSYBOX, command: ['sh', '-c', 'echo begun; sleep 1000000'] }],
    ...spec,
  },
});

const namespaceOf = (node: string) => `cox-${cluster.name}-${node}`;

/** Processes of a node whose command line has the words. */
function processesOf(node: string, words: string): number[] {
  const { ino } = statSync(`/run/netns/${namespaceOf(node)}`);
  return pidsOf(command => command.includes(words)).filter(pid => {
    try {
      return readlinkSync(`/proc/${pid}/ns/net`) === `net:[${ino}]`;
    } catch {
      return false;
    }
  });
}

before(
  async () => {
    await cluster.up({ nodes: 1, extra: process.env['COX_E2E_RUNTIME'] ? [] : ['--runtime', 'containerd'] });
    await cluster.cox(['image', 'load', join(root, '.cache', 'images', 'busybox-1.35.tar')]);
    await eventually('service account', async () => {
      return (await cluster.tryKubectl('get', 'serviceaccount', 'default')).code === 0;
    });
  },
  { timeout: 200_000 },
);
after(async () => {
  await cluster.tryCox(['down'], { timeoutMs: 60_000 });
  rmSync(cluster.stateDir, { recursive: true, force: true });
});

test('containerd: a pod runs; log, exec with input and exit code, and its address', { timeout: 120_000 }, async () => {
  const { status } = await cluster.json('get', 'node', 'node-1');
  assert.match(status.nodeInfo.containerRuntimeVersion, /^containerd:\/\/\d/);
  await cluster.apply('default', [idle('first')]);
  const pod = await cluster.readyPod('default', 'first');
  assert.match(pod.status.containerStatuses[0].containerID, /^containerd:\/\/[0-9a-f]{64}$/);
  assert.match(pod.status.podIP, /^10\.244\./);
  assert.match(await cluster.exec('default', 'first', 'ip', 'addr', 'show', 'eth0'), new RegExp(pod.status.podIP));
  assert.equal(await cluster.kubectl('logs', 'first'), 'begun\n');
  const input = 'x'.repeat(200_000);
  assert.equal(await cluster.kubectlWith({ input }, 'exec', '-i', 'first', '--', 'cat'), input);
  assert.equal((await cluster.tryKubectl('exec', 'first', '--', 'sh', '-c', 'exit 7')).code, 7);
});

test('runtime classes: the node has several handlers, and says which it has not', { timeout: 120_000 }, async () => {
  const runtimeClass = (name: string, handler: string) => ({
    apiVersion: 'node.k8s.io/v1',
    kind: 'RuntimeClass',
    metadata: { name },
    handler,
  });
  await cluster.apply('default', [
    runtimeClass('ours', 'cox'),
    runtimeClass('runc', 'runc'),
    runtimeClass('none', 'nowhere'),
  ]);
  await cluster.apply('default', [
    idle('by-ours', { runtimeClassName: 'ours' }),
    idle('by-runc', { runtimeClassName: 'runc' }),
    idle('by-none', { runtimeClassName: 'none' }),
  ]);
  const uid = (await cluster.readyPod('default', 'by-ours')).metadata.uid;
  assert.ok(processesOf('node-1', '/conmon').some(pid => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(uid)));
  await cluster.readyPod('default', 'by-runc');
  assert.equal(await cluster.exec('default', 'by-ours', 'hostname'), 'by-ours\n');
  await eventually('the event', async () =>
    (await cluster.json('get', 'events', '--field-selector', 'involvedObject.name=by-none')).items.some(
      (event: { reason: string; message: string }) =>
        event.reason === 'FailedCreatePodSandBox' && event.message.includes('no runtime for "nowhere" is configured'),
    ),
  );
  await cluster.kubectl('delete', 'pod', 'by-ours', 'by-runc', 'by-none', '--wait=false');
});

test('containerd and the agent killed: the pod runs on, and new ones come', { timeout: 150_000 }, async () => {
  await cluster.apply('default', [idle('lasting')]);
  const was = (await cluster.readyPod('default', 'lasting')).status.containerStatuses[0];
  for (const words of ['/usr/bin/containerd --config', ' agent --config /']) {
    const killed = processesOf('node-1', words);
    assert.equal(killed.length, 1, words);
    process.kill(killed[0]!, 'SIGKILL');
    await eventually(`${words} again`, () => {
      const [pid] = processesOf('node-1', words);
      return pid !== undefined && pid !== killed[0];
    });
    await eventually('exec', async () => (await cluster.exec('default', 'lasting', 'echo', 'alive')) === 'alive\n', {
      timeoutMs: 60_000,
    });
  }
  await cluster.apply('default', [idle('later')]);
  await cluster.readyPod('default', 'later');
  const now = (await cluster.json('get', 'pod', 'lasting')).status.containerStatuses[0];
  assert.deepEqual([now.containerID, now.restartCount], [was.containerID, 0]);
});

test('cox kubelet: a node of its own, by a kubeconfig', { timeout: 150_000 }, async () => {
  const namespace = namespaceOf('node-9');
  const folder = join(cluster.stateDir, 'alone');
  const address = nodeAddress(9);
  createNodeNamespace({ switch: `cox-${cluster.name}`, name: namespace, ips: [address] });
  const pki = await openPki(cluster.stateDir, { addresses: [], ranges: chooseRanges({}) });
  const { certificate, key } = pki.issueServer({ commonName: 'system:node:alone', organizations: ['system:nodes'] }, [
    address,
  ]);
  const files = { kubeconfig: `${folder}.conf`, certificate: `${folder}.crt`, key: `${folder}.key` };
  writeFileSync(
    files.kubeconfig,
    readFileSync(cluster.kubeconfig, 'utf8').replace(/https:\/\/127\.0\.0\.1:\d+/, 'https://172.30.0.1:6443'),
  );
  writeFileSync(files.certificate, certificate);
  writeFileSync(files.key, key);
  const begin = (): ChildProcess =>
    spawn(
      'nsenter',
      [
        `--net=/run/netns/${namespace}`,
        ...['unshare', '--mount', '--propagation', 'private'],
        ...[join(root, 'cox'), 'kubelet', '--kubeconfig', files.kubeconfig, '--hostname-override', 'alone'],
        ...['--node-ip', address, '--root-dir', folder, '--run-dir', `${folder}-run`],
        ...['--tls-cert-file', files.certificate, '--tls-private-key-file', files.key],
        ...['--cluster-dns', '10.96.0.10', '--cluster-cidr', '10.244.0.0/16'],
      ],
      { stdio: process.env['COX_LOG'] ? 'inherit' : 'ignore' },
    );
  const kubelet = begin();
  const ended = new Promise<number | null>(resolve => kubelet.once('close', resolve));
  try {
    await eventually('the node', async () => isReady(await cluster.json('get', 'node', 'alone')), {
      timeoutMs: 60_000,
    });
    await cluster.apply('default', [
      idle('alone', { nodeName: 'alone', containers: [{ name: 'c', image: 'absent.invalid/x:1', command: ['true'] }] }),
    ]);
    await eventually('its pull to fail', async () => {
      const [state] = (await cluster.json('get', 'pod', 'alone')).status.containerStatuses ?? [];
      return ['ErrImagePull', 'ImagePullBackOff'].includes(state?.state.waiting?.reason);
    });
    await cluster.kubectl('delete', 'pod', 'alone', '--timeout=60s');
  } finally {
    for (const pid of processesOf('node-9', 'kubelet --kubeconfig')) process.kill(pid, 'SIGTERM');
    assert.equal(await ended, 0);
  }
});

test('down leaves nothing', { timeout: 60_000 }, async () => {
  await cluster.down();
  assert.deepEqual(
    pidsOf(command => command.includes(cluster.name) || command.includes(cluster.stateDir)),
    [],
  );
  assert.deepEqual(
    readdirSync('/run/netns').filter(name => name.includes(cluster.name)),
    [],
  );
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  assert.deepEqual(
    mounts.filter(line => line.includes(cluster.stateDir) || line.includes(cluster.name)),
    [],
  );
});
