import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLogger } from '../../../base/log.ts';
import { decode, encode } from '../../../csi/protobuf.ts';
import { ImageStore } from '../../images/image-store.ts';
import type { ContainerConfig, SandboxConfig } from '../../runtime.ts';
import { ImageSupply, PAUSE_IMAGE } from './image-supply.ts';
import { CONTAINER_CONFIG, type CRI_CALLS, NAMESPACE_MODE, SANDBOX_CONFIG } from './messages.ts';
import { containerMessage, keptContainer, keptSandbox, resourcesMessage, sandboxMessage } from './translation.ts';

const sandbox: SandboxConfig = {
  podUid: 'u',
  namespace: 'ns',
  name: 'p',
  attempt: 0,
  hostname: 'p',
  hostNetwork: false,
  hostPid: false,
  hostIpc: false,
  cgroupParent: '/x',
  labels: {},
};
const config: ContainerConfig = {
  name: 'c',
  attempt: 1,
  imageId: 'sha256:1',
  imageRef: 'busybox:1',
  command: ['sh'],
  args: [],
  env: [['A', 'b']],
  mounts: [{ hostPath: '/h', containerPath: '/c', readOnly: true, noExec: true, propagation: 'slave' }],
  logPath: '/var/log/p/c/1.log',
  stdin: false,
  stdinOnce: false,
  tty: false,
  user: { uid: 0, additionalGids: [7, 300] },
  capabilities: { add: ['NET_ADMIN'], drop: ['ALL'] },
  privileged: false,
  readOnlyRootFilesystem: false,
  noNewPrivileges: true,
  oomScoreAdj: -997,
  resources: { cpuShares: 2 },
  labels: { hash: 'h' },
};

test('what the runtime does not keep comes back from its lists', () => {
  assert.deepEqual(keptSandbox(sandboxMessage(sandbox).annotations), sandbox);
  const recursively = (recursiveReadOnly: 'IfPossible' | 'Enabled') =>
    containerMessage({
      config: { ...config, mounts: [{ ...config.mounts[0]!, recursiveReadOnly }] },
      sandbox,
      image: 'i',
      seccompFile: undefined,
    });
  assert.throws(() => recursively('Enabled'), /recursiveReadOnly: Enabled \(\/c\) is not supported/);
  recursively('IfPossible');
  const isPrivileged = (config: SandboxConfig) => sandboxMessage(config).linux?.securityContext?.privileged;
  assert.deepEqual([isPrivileged(sandbox), isPrivileged({ ...sandbox, isPrivileged: true })], [false, true]);
  const message = containerMessage({ config, sandbox, image: 'i', seccompFile: undefined });
  assert.deepEqual(keptContainer(message.annotations), {
    podUid: 'u',
    imageId: 'sha256:1',
    imageRef: 'busybox:1',
    logPath: '/var/log/p/c/1.log',
    labels: { hash: 'h' },
  });
  assert.equal(keptContainer({}), undefined);
});

test('on the wire: user 0 is said, lists of numbers arrive, a negative number too', () => {
  const message = containerMessage({ config, sandbox, image: 'i', seccompFile: '/profile' });
  const { linux, mounts } = decode(CONTAINER_CONFIG, encode(CONTAINER_CONFIG, message));
  assert.deepEqual(linux?.securityContext?.runAsUser, { value: 0 });
  assert.equal(linux?.securityContext?.runAsGroup, undefined);
  assert.deepEqual(linux?.securityContext?.supplementalGroups, [7, 300]);
  assert.equal(linux?.resources?.oomScoreAdj, -997);
  assert.equal(linux?.securityContext?.seccomp?.localhostRef, '/profile');
  // Mounted anew to be read-only it would lose its noexec.
  assert.equal(mounts[0]?.readonly, false);
});

test('ports of the node go with the sandbox', () => {
  const ports = [
    { protocol: 'UDP', hostPort: 53, port: 5353, hostIp: '192.0.2.1' },
    { protocol: 'TCP', hostPort: 80, port: 8080 },
  ] as const;
  const message = sandboxMessage({ ...sandbox, ports });
  assert.deepEqual(decode(SANDBOX_CONFIG, encode(SANDBOX_CONFIG, message)).portMappings, [
    { protocol: 1, hostPort: 53, containerPort: 5353, hostIp: '192.0.2.1' },
    { protocol: 0, hostPort: 80, containerPort: 8080, hostIp: '' },
  ]);
});

test('namespaces: of the container, the pod, the node, another container', () => {
  const pidOf = (extra: Partial<SandboxConfig>, processesOf?: string) =>
    containerMessage({
      config: { ...config, ...(processesOf ? { processesOf } : {}) },
      sandbox: { ...sandbox, ...extra },
      image: 'i',
      seccompFile: undefined,
    }).linux?.securityContext?.namespaceOptions;
  assert.equal(pidOf({})?.pid, NAMESPACE_MODE.CONTAINER);
  assert.equal(pidOf({ shareProcesses: true })?.pid, NAMESPACE_MODE.POD);
  assert.equal(pidOf({ hostPid: true, hostNetwork: true })?.network, NAMESPACE_MODE.NODE);
  assert.equal(pidOf({}, 'other')?.targetId, 'other');
});

test('a described device goes along where the machine has it so', () => {
  const devices = (node: object) =>
    containerMessage({
      config: {
        ...config,
        devices: [{ hostPath: '/dev/null', containerPath: '/dev/a', isReadOnly: false, node }],
      },
      sandbox,
      image: 'i',
      seccompFile: undefined,
    }).devices;
  assert.deepEqual(devices({ type: 'c', major: 1, minor: 3, access: 'rw' }), [
    { hostPath: '/dev/null', containerPath: '/dev/a', permissions: 'rw' },
  ]);
  assert.throws(() => devices({ fileMode: 0o600 }), /CDI device \/dev\/a says fileMode otherwise/);
});

test('what the interface has no word for is refused', () => {
  const strict = { ...config, user: { strictGroups: true } };
  assert.throws(() => containerMessage({ config: strict, sandbox, image: 'i', seccompFile: undefined }), /Strict/);
  assert.throws(() => sandboxMessage({ ...sandbox, shmBytes: 1 }), /\/dev\/shm/);
  assert.throws(() => resourcesMessage({ cpuShares: 2, pidsMax: 5 }), /processes/);
});

test('the runtime loses the images that the store has lost, and no others', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-supply-'));
  try {
    const removed: unknown[] = [];
    const tags = [PAUSE_IMAGE, '127.0.0.1:10246/cox/gone:1', 'docker.io/library/other:1'];
    const client = {
      async call(name: keyof typeof CRI_CALLS, request: object) {
        if (name === 'removeImage') removed.push(request);
        return name === 'listImages' ? { images: tags.map(tag => ({ id: tag, repoTags: [tag] })) } : {};
      },
    };
    const images = new ImageStore(join(folder, 'images'));
    await new ImageSupply({ client: client as never, images, folder: join(folder, 's'), log: silentLogger }).sweep();
    assert.deepEqual(removed, [{ image: { image: tags[1] } }]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
