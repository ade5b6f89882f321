/**
 * Pods on a host as today's distributions are: control groups of version 2 only (limits, figures, an OOM kill, a resize), AppArmor, and
 * memory that was set aside as huge pages.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { APP_ARMOR_ANNOTATION } from '../../src/api/core/app-armor.ts';
import type { Node, Pod } from '../../src/api/core/v1.gen.ts';
import { NODES, PODS } from '../../src/client/resources.ts';
import { CgroupTree } from '../../src/sys/cgroup.ts';
import { isReady, TestNode } from '../kubelet/node.ts';
import { isInside, runTestsInVirtualMachine } from './virtual-machine.ts';

/** Without hardware help everything there takes its time. */
const WAIT_MS = 120_000;
/** Huge pages of 2 MiB that the machine is started with. */
const PAGES = 12;

/** Reads all, and may write nothing in /tmp. */
const LOCAL_PROFILE = `profile cox-test flags=(attach_disconnected,mediate_deleted) {
  capability, network, signal, ptrace, file,
  deny /tmp/** w,
}`;

if (process.getuid?.() !== 0) test('cgroup v2 and AppArmor', { skip: 'needs root' });
else if (isInside) tests();
else
  test('control groups of version 2 and AppArmor, on a machine with Debian’s kernel', {
    timeout: 600_000,
  }, async () => {
    const { code, output } = await runTestsInVirtualMachine(import.meta.filename, {
      timeoutMs: 580_000,
      kernelArguments: `hugepages=${PAGES}`,
    });
    process.stdout.write(output);
    assert.equal(code, 0, output || 'the machine printed nothing');
  });

function tests(): void {
  const tree = new CgroupTree();
  let node!: TestNode;
  before(async () => {
    // A container's layers cannot lie on the overlay that is the machine's root.
    execFileSync('mount', ['-t', 'tmpfs', 'scratch', '/var/tmp']);
    execFileSync('mount', ['-t', 'securityfs', 'security', '/sys/kernel/security']);
    execFileSync('apparmor_parser', ['--replace', '--skip-cache'], { input: LOCAL_PROFILE });
    node = new TestNode({ isolated: true });
    await node.start();
  });
  after(() => node?.close());

  test('limits, figures, an OOM kill and a resize', { timeout: 360_000 }, async () => {
    assert.ok(tree.unified);
    const resources = { requests: { cpu: '100m', memory: '32Mi' }, limits: { cpu: '500m', memory: '64Mi' } };
    const container = { name: 'c', image: 'busybox:1', command: ['sleep', '100000'], resources };
    await node.create('live', { containers: [container] });
    const live = await node.until('live', isReady, WAIT_MS);
    const group = `${node.cgroupRoot}/kubepods/burstable/pod${live.metadata.uid}`;
    const id = (pod: Pod) => pod.status!.containerStatuses![0]!.containerID!.slice('cox://'.length);
    const read = (path: string, file: string) => readFileSync(`/sys/fs/cgroup${path}/${file}`, 'utf8').trim();
    const own = `${group}/${id(live)}`;
    assert.deepEqual(
      [read(own, 'memory.max'), read(own, 'cpu.max'), read(group, 'memory.max'), read(group, 'cpu.max')],
      [String(64 << 20), '50000 100000', String(64 << 20), '50000 100000'],
    );
    assert.notEqual(read(own, 'cgroup.procs'), '');

    await node.api.patch(
      { of: PODS, namespace: 'default', name: 'live', subresource: 'resize' },
      { spec: { containers: [{ name: 'c', resources: { limits: { cpu: '800m', memory: '96Mi' } } }] } },
      'application/strategic-merge-patch+json',
    );
    const resized = await node.until(
      'live',
      pod => pod.status?.containerStatuses?.[0]?.resources?.limits?.['memory'] === '96Mi',
      WAIT_MS,
    );
    assert.equal(id(resized), id(live), 'without a restart');
    assert.deepEqual([read(own, 'memory.max'), read(own, 'cpu.max')], [String(96 << 20), '80000 100000']);

    const summary = JSON.parse(await get(node, '/stats/summary')) as {
      pods: {
        podRef: { name: string };
        memory?: { workingSetBytes?: number };
        cpu?: { usageCoreNanoSeconds?: number };
      }[];
    };
    const stats = summary.pods.find(one => one.podRef.name === 'live');
    assert.ok(Number(stats?.memory?.workingSetBytes) > 0, JSON.stringify(stats));
    assert.ok(Number(stats?.cpu?.usageCoreNanoSeconds) > 0, JSON.stringify(stats));

    await node.create('greedy', {
      restartPolicy: 'Never',
      containers: [
        {
          ...container,
          command: ['sh', '-c', 'dd if=/dev/zero of=/dev/shm/all bs=1M count=60'],
          resources: { limits: { memory: '16Mi' } },
        },
      ],
    });
    const greedy = await node.until('greedy', pod => pod.status?.phase === 'Failed', WAIT_MS);
    const { reason, exitCode } = greedy.status!.containerStatuses![0]!.state!.terminated!;
    assert.deepEqual([reason, exitCode], ['OOMKilled', 137]);

    await node.api.delete({ of: PODS, namespace: 'default', name: 'live' });
    await node.untilGone('live', WAIT_MS);
    assert.deepEqual(
      tree.children(`${node.cgroupRoot}/kubepods/burstable`).filter(name => name.includes(live.metadata.uid!)),
      [],
    );
  });

  test('huge pages: told, limited, mounted, refused', { timeout: 360_000 }, async () => {
    const { status } = (await node.api.get({ of: NODES, name: 'node-1' })) as Node;
    const { capacity = {}, allocatable = {} } = status ?? {};
    assert.deepEqual([capacity['hugepages-2Mi'], allocatable['hugepages-2Mi']], [`${PAGES * 2}Mi`, `${PAGES * 2}Mi`]);
    const kib = (of: Record<string, string>) => Number.parseInt(of['memory']!, 10);
    assert.ok(kib(capacity) - kib(allocatable) >= PAGES * 2048, JSON.stringify(status));

    const pages = (amount: string) => ({ limits: { memory: '64Mi', 'hugepages-2Mi': amount } });
    const container = {
      name: 'c',
      image: 'busybox:1',
      command: ['sleep', '100000'],
      volumeMounts: [{ name: 'huge', mountPath: '/huge' }],
    };
    const volumes = (medium: string) => [{ name: 'huge', emptyDir: { medium } }];
    // It may have four pages, and has two of them when it asks for four more.
    const script =
      'fallocate -l 4M /huge/a && wc -c </huge/a; fallocate -l 8M /huge/b || echo refused; grep /huge /proc/mounts; echo "pages $PAGES"';
    const limited = {
      ...container,
      name: 'limited',
      command: ['sh', '-c', `(${script}) >/dev/termination-log 2>&1`],
      resources: pages('8Mi'),
      env: [{ name: 'PAGES', valueFrom: { resourceFieldRef: { resource: 'limits.hugepages-2Mi', divisor: '1Mi' } } }],
    };
    await node.create('paged', {
      resources: pages('16Mi'),
      initContainers: [limited],
      containers: [container],
      volumes: volumes('HugePages'),
    });
    const paged = await node.until('paged', isReady, WAIT_MS);
    assert.match(
      paged.status!.initContainerStatuses![0]!.state!.terminated!.message!,
      /^4194304\n[\s\S]*\nrefused\n\S+ \/huge hugetlbfs \S*pagesize=2M\S* 0 0\npages 8\n$/,
    );
    const group = `/sys/fs/cgroup${node.cgroupRoot}/kubepods/burstable/pod${paged.metadata.uid}`;
    const id = paged.status!.containerStatuses![0]!.containerID!.slice('cox://'.length);
    const read = (file: string) => readFileSync(`${group}/${file}`, 'utf8').trim();
    assert.deepEqual(
      [read('hugetlb.2MB.max'), read(`${id}/hugetlb.2MB.max`), read('hugetlb.1GB.max')],
      [String(16 << 20), String(16 << 20), '0'],
    );

    await node.create('unasked', {
      containers: [{ ...container, resources: pages('2Mi') }],
      volumes: volumes('HugePages-1Gi'),
    });
    const isRefused = (events: readonly string[]) =>
      events.some(text => /no resource request for hugepages-1Gi/.test(text));
    await node.untilEvents('unasked', isRefused, WAIT_MS);
    await node.create('much', {
      containers: [{ ...container, resources: pages('32Mi') }],
      volumes: volumes('HugePages'),
    });
    const much = await node.until('much', pod => pod.status?.phase === 'Failed', WAIT_MS);
    assert.equal(much.status?.reason, 'OutOfhugepages-2Mi');

    for (const name of ['paged', 'unasked', 'much']) await node.api.delete({ of: PODS, namespace: 'default', name });
    for (const name of ['paged', 'unasked', 'much']) await node.untilGone(name, WAIT_MS);
    const free = () => Number(/^HugePages_Free:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
    for (const end = Date.now() + WAIT_MS; free() < PAGES && Date.now() < end; ) await setTimeout(200);
    assert.equal(free(), PAGES);
  });

  test('AppArmor profiles confine containers and who joins them', { timeout: 360_000 }, async () => {
    const attempt =
      'mkdir -p /m; mount -t tmpfs none /m && echo mounted; touch /tmp/x && echo touched; cat /proc/self/attr/current';
    // With this capability only AppArmor is in the way of a mount.
    const capable = { capabilities: { add: ['SYS_ADMIN'] } };
    const container = (name: string, securityContext: object) => ({
      name,
      image: 'busybox:1',
      command: ['sleep', '100000'],
      securityContext,
    });
    const first = {
      ...container('first', capable),
      command: ['sh', '-c', `(${attempt}) >/dev/termination-log 2>&1`],
    };
    const containers = [
      container('unsaid', capable),
      container('free', { ...capable, appArmorProfile: { type: 'Unconfined' } }),
      container('old', {}),
      container('old-free', {}),
      container('old-default', {}),
      container('privileged', { privileged: true }),
    ];
    await node.create(
      'armored',
      { initContainers: [first], containers },
      {
        annotations: {
          [`${APP_ARMOR_ANNOTATION}old`]: 'localhost/cox-test',
          [`${APP_ARMOR_ANNOTATION}old-free`]: 'unconfined',
          [`${APP_ARMOR_ANNOTATION}old-default`]: 'runtime/default',
        },
      },
    );
    // Of the pod, which a container overrides.
    await node.create('wide', {
      securityContext: { appArmorProfile: { type: 'Localhost', localhostProfile: 'cox-test' } },
      containers: [container('as-pod', {}), container('said', { appArmorProfile: { type: 'RuntimeDefault' } })],
    });
    const armored = await node.until('armored', isReady, WAIT_MS);
    const wide = await node.until('wide', isReady, WAIT_MS);
    const profiles = [...armored.status!.containerStatuses!, ...wide.status!.containerStatuses!].map(one => {
      const pid = readFileSync(join(node.root, 'run/c', one.containerID!.slice('cox://'.length), 'pid'), 'utf8');
      return [one.name, readFileSync(`/proc/${pid.trim()}/attr/current`, 'utf8').trim()];
    });
    assert.deepEqual(Object.fromEntries(profiles), {
      unsaid: 'cox-default (enforce)',
      free: 'unconfined',
      old: 'cox-test (enforce)',
      'old-free': 'unconfined',
      'old-default': 'cox-default (enforce)',
      privileged: 'unconfined',
      'as-pod': 'cox-test (enforce)',
      said: 'cox-default (enforce)',
    });
    assert.equal(armored.spec.containers[2]!.securityContext?.appArmorProfile?.localhostProfile, 'cox-test');
    const confined = /(denied|permitted)[\s\S]*\ntouched\ncox-default \(enforce\)/;
    assert.match(armored.status!.initContainerStatuses![0]!.state!.terminated!.message!, confined);
    const inside = async (name: string) => {
      const { containerID } = armored.status!.containerStatuses!.find(status => status.name === name)!;
      let text = '';
      const output = new Writable({
        write(chunk, _encoding, done) {
          text += chunk;
          done();
        },
      });
      await node.runtime.exec(containerID!.slice('cox://'.length), {
        command: ['sh', '-c', attempt],
        stdout: output,
        stderr: output,
        tty: false,
      });
      return text;
    };
    assert.match(await inside('unsaid'), confined);
    assert.match(await inside('free'), /^mounted\ntouched\nunconfined/);
    assert.match(await inside('old'), /touch: [\s\S]*denied\ncox-test \(enforce\)/);
    assert.match(await inside('privileged'), /^mounted\ntouched\nunconfined/);

    const unknown = { type: 'Localhost', localhostProfile: 'nobody-loaded-it' };
    await node.create('waits', { containers: [container('c', { appArmorProfile: unknown })] });
    await node.until(
      'waits',
      ({ status }) =>
        status?.containerStatuses?.[0]?.state?.waiting?.message ===
        'Cannot enforce AppArmor: profile "nobody-loaded-it" is not loaded',
      WAIT_MS,
    );
  });
}

function get(node: TestNode, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const { key, cert, ca } = node.admin;
    const sent = request({ host: '127.0.0.1', port: 10250, path, key, cert, ca, checkServerIdentity: () => undefined });
    sent.on('error', reject);
    sent.on('response', response => {
      let text = '';
      response.setEncoding('utf8').on('data', part => (text += part));
      response.on('end', () => resolve(text));
    });
    sent.end();
  });
}
