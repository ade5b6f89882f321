/**
 * What every Runtime does, tried with real containers in a mount and network namespace that the test process makes for itself. A file
 * for each runtime calls `runtimeSuite`.
 */

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ImageStore } from '../../src/kubelet/images/image-store.ts';
import type { ContainerConfig, PodNetwork, Runtime, SandboxConfig } from '../../src/kubelet/runtime.ts';
import { CgroupTree, leaveMixedHierarchies } from '../../src/sys/cgroup.ts';
import { CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare } from '../../src/sys/libc.ts';
import { unmountBelow } from '../../src/sys/mount.ts';
import { keepNullDevice } from '../../src/sys/null-device.ts';
import { buildBusyboxImage } from './busybox-image.ts';

export const CGROUP = `/coxswain-test-${process.pid}`;
export const cgroups = new CgroupTree();

export interface Surroundings {
  readonly root: string;
  readonly images: ImageStore;
  readonly network: PodNetwork;
}

export interface RuntimeUnderTest {
  /** Called once before the tests, and again as an agent that comes back. */
  open(surroundings: Surroundings): Runtime | Promise<Runtime>;
  /** Everything goes. */
  close(runtime: Runtime, surroundings: Surroundings): Promise<void>;
  /** Fails while something of these is left. */
  checkRemoved(surroundings: Surroundings, ids: { readonly sandbox: string; readonly container: string }): void;
}

const attached = new Set<string>();
export const network: PodNetwork = {
  attach: async ({ uid }) => {
    attached.add(uid);
    return { ips: ['10.9.9.9'] };
  },
  detach: async uid => void attached.delete(uid),
  retain: async () => {},
  publish: async () => {},
  notReadyReason: () => undefined,
};

let root: string;
let imageId: string;
let runtime: Runtime;

export const sandbox = (uid: string): SandboxConfig => ({
  podUid: uid,
  namespace: 'default',
  name: uid,
  attempt: 0,
  hostname: `host-${uid}`,
  hostNetwork: false,
  hostPid: false,
  hostIpc: false,
  cgroupParent: `${CGROUP}/${uid}`,
  labels: {},
});
export const container = (name: string, command: string[], extra: Partial<ContainerConfig> = {}): ContainerConfig => ({
  name,
  attempt: 0,
  imageId,
  imageRef: 'busybox:1',
  command,
  args: [],
  env: [
    ['PATH', '/bin'],
    ['GREETING', 'hello world'],
  ],
  mounts: [],
  logPath: join(root, `logs/${name}/0.log`),
  stdin: false,
  stdinOnce: false,
  tty: false,
  capabilities: { add: [], drop: [] },
  privileged: false,
  readOnlyRootFilesystem: false,
  noNewPrivileges: false,
  oomScoreAdj: 0,
  resources: { cpuShares: 2 },
  labels: {},
  ...extra,
});
export async function until<T>(probe: () => Promise<T | undefined> | T | undefined, timeoutMs = 8000): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value) return value;
    assert.ok(Date.now() < end, 'timed out');
    await sleep(20);
  }
}
const stateOf = async (id: string) => (await runtime.snapshot()).containers.find(one => one.id === id)!;
const exited = (id: string) =>
  until(async () => {
    const state = await stateOf(id);
    return state.state === 'exited' ? state : undefined;
  });
export async function run(uid: string, config: ContainerConfig) {
  const pod = await runtime.runSandbox(sandbox(uid));
  const id = await runtime.createContainer(pod.id, config);
  await runtime.start(id);
  return { pod, id };
}
async function output(id: string, command: string[], input?: string, tty = false) {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const stdin = input === undefined ? undefined : new PassThrough();
  let out = '';
  let err = '';
  stdout.on('data', chunk => (out += chunk));
  stderr.on('data', chunk => (err += chunk));
  stdin?.end(input);
  const { exitCode } = await runtime.exec(id, {
    command,
    tty,
    stdout,
    ...(tty ? {} : { stderr }),
    ...(stdin ? { stdin } : {}),
  });
  return { out, err, exitCode };
}

/** Returns what gives the surroundings to further tests. */
export function runtimeSuite(tested: RuntimeUnderTest): () => Surroundings {
  let surroundings: Surroundings;
  before(async () => {
    unshare(CLONE_NEWNS | CLONE_NEWNET);
    mount('none', '/', null, MS_REC | MS_PRIVATE, null);
    leaveMixedHierarchies();
    keepNullDevice();
    root = mkdtempSync('/var/tmp/cox-runtime-');
    buildBusyboxImage(join(root, 'image.tar'));
    const images = new ImageStore(join(root, 'images'));
    imageId = (await images.load(join(root, 'image.tar')))[0]!.id;
    cgroups.create(CGROUP);
    surroundings = { root, images, network };
    runtime = await tested.open(surroundings);
  });
  after(async () => {
    try {
      if (runtime) await tested.close(runtime, surroundings);
    } finally {
      cgroups.remove(CGROUP);
      if (root) {
        unmountBelow(root);
        rmSync(root, { recursive: true, force: true });
      }
    }
  });

  test('a container runs, logs in CRI format, and its exit is seen', async () => {
    const { id } = await run('a', container('a', ['sh', '-c', 'echo $GREETING; hostname; id -u >&2; exit 3']));
    const state = await exited(id);
    assert.equal(state.exitCode, 3);
    const log = readFileSync(state.logPath, 'utf8');
    assert.match(log, /^\d{4}-\S+ stdout F hello world$/m);
    assert.match(log, /stdout F host-a$/m);
    assert.match(log, /stderr F 0$/m);
  });

  test('exec: output, input, exit code, terminal, abort', async () => {
    const { id } = await run('b', container('b', ['sleep', '1000'], { user: { uid: 1234 } }));
    const { out, ...rest } = await output(id, ['sh', '-c', 'id; echo e >&2; exit 7']);
    // containerd has the process's own group among the others too.
    assert.match(out, /^uid=1234\(web\) gid=1234\(web\) groups=77\(extra\)(,1234\(web\))?\n$/);
    assert.deepEqual(rest, { err: 'e\n', exitCode: 7 });
    assert.equal((await output(id, ['cat'], 'x'.repeat(300_000))).out.length, 300_000);
    const tty = await output(id, ['sh', '-c', 'tty; stty size'], '', true);
    assert.match(tty.out, /\/dev\/pts\/\d/);
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 300);
    const began = Date.now();
    assert.equal(
      (await runtime.exec(id, { command: ['sleep', '77'], tty: false, isBrief: true, signal: abort.signal })).exitCode,
      137,
    );
    assert.ok(Date.now() - began < 3000);
    assert.doesNotMatch((await output(id, ['ps'])).out, /sleep 77/);
  });

  test('a missing command is a start error', async () => {
    const pod = await runtime.runSandbox(sandbox('c'));
    const id = await runtime.createContainer(pod.id, container('c', ['/nope']));
    await assert.rejects(runtime.start(id), /OCI runtime create failed: .*\/nope.*no such file/i);
    const state = await stateOf(id);
    assert.equal(state.reason, 'StartError');
    assert.equal(state.exitCode, 128);
  });

  test('out of memory is told apart', async () => {
    const { id } = await run(
      'd',
      container('d', ['sh', '-c', 'x=a; while true; do x=$x$x; done'], {
        resources: { cpuShares: 2, memoryBytesMax: 16 << 20 },
      }),
    );
    const state = await exited(id);
    assert.equal(state.oomKilled, true);
    assert.equal(state.exitCode, 137);
  });

  test('containers survive a new runtime; stop is graceful; remove leaves nothing', async () => {
    const { id, pod } = await run(
      'e',
      container('e', ['sh', '-c', 'trap "echo bye; exit 5" TERM; echo up; while true; do sleep 0.05; done']),
    );
    runtime = await tested.open(surroundings);
    const state = await stateOf(id);
    // A first process that has no handler yet never hears the signal.
    for (let i = 0; i < 500 && !readFileSync(state.logPath, 'utf8').includes('up'); i++) await sleep(10);
    assert.equal(state.state, 'running');
    await runtime.stop(id, 5);
    assert.equal((await stateOf(id)).exitCode, 5);
    assert.match(readFileSync(state.logPath, 'utf8'), /bye/);
    await runtime.removeSandbox(pod.id);
    tested.checkRemoved(surroundings, { sandbox: pod.id, container: id });
    assert.equal(attached.has('e'), false);
    const left = await runtime.snapshot('e');
    assert.deepEqual([...left.sandboxes, ...left.containers], []);
    assert.deepEqual(cgroups.processes(`${CGROUP}/e`), []);
  });

  test('attach: both directions', async () => {
    const { id } = await run('f', container('f', ['cat'], { stdin: true, stdinOnce: true }));
    const stdin = new PassThrough();
    const stdout = new PassThrough();
    let out = '';
    stdout.on('data', chunk => (out += chunk));
    const done = runtime.attach(id, { tty: false, stdin, stdout, signal: AbortSignal.timeout(8000) });
    stdin.write('one\n');
    await until(() => out === 'one\n');
    stdin.end();
    await done;
    assert.equal((await exited(id)).exitCode, 0);
  });

  test('attach and resize with a terminal', async () => {
    const { id } = await run('g', container('g', ['sh'], { stdin: true, tty: true }));
    const stdin = new PassThrough();
    const stdout = new PassThrough();
    let out = '';
    stdout.on('data', chunk => (out += chunk));
    const resize = (async function* () {
      yield { width: 91, height: 33 };
    })();
    const done = runtime.attach(id, { tty: true, stdin, stdout, resize, signal: AbortSignal.timeout(8000) });
    await sleep(100);
    stdin.write('stty size\n');
    await until(() => out.includes('33 91'));
    stdin.write('exit\n');
    await done;
  });

  test('port forward enters the pod; localhost is up', async () => {
    const { pod } = await run('h', container('h', ['httpd', '-f', '-p', '127.0.0.1:8080', '-h', '/var/www']));
    // Some runtimes connect only when the stream is there already.
    const answer = async () => {
      const socket = await runtime.portForward(pod.id, 8080);
      let text = '';
      socket.write('GET /index.html HTTP/1.0\r\n\r\n');
      for await (const part of socket) text += part;
      return text;
    };
    assert.match(await until(() => answer().catch(() => undefined)), /hello/);
    await assert.rejects(async () => {
      for await (const _ of await runtime.portForward(pod.id, 81));
    }, /ECONNREFUSED|connection refused/);
  });

  test('start time', async () => {
    mkdirSync(join(root, 'logs'), { recursive: true });
    const began = performance.now();
    await run('i', container('i', ['sleep', '1000']));
    const one = performance.now() - began;
    const many = performance.now();
    await Promise.all(Array.from({ length: 10 }, (_, i) => run(`m${i}`, container(`m${i}`, ['sleep', '1000']))));
    console.log(`# one container ${one.toFixed(0)} ms, ten at once ${(performance.now() - many).toFixed(0)} ms`);
  });
  return () => surroundings;
}
