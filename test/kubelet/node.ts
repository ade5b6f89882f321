/**
 * A node for tests: namespaces of this process's own, an API server in process, a bridge as the pod network, a kubelet.
 * Everything it makes, it takes away again.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import type { KubeObject } from '../../src/api/meta.ts';
import type { RequestAuthenticator } from '../../src/apiserver/authn/authenticator.ts';
import { ServiceAccountTokens } from '../../src/apiserver/authn/service-account-tokens.ts';
import { LocalKeys } from '../../src/apiserver/authn/token-keys.ts';
import { defaultServiceAccounts } from '../../src/apiserver/configuration/service-account-settings.ts';
import { LOOPBACK_USER } from '../../src/apiserver/request.ts';
import { podHandlers } from '../../src/apiserver/reviews/pods.ts';
import { tokenHandlers } from '../../src/apiserver/reviews/tokens.ts';
import { ApiServer } from '../../src/apiserver/server.ts';
import { chooseRanges } from '../../src/app/cluster-ranges.ts';
import { adminCredentials, agentCredentials, openPki } from '../../src/app/pki.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { InformerFactory } from '../../src/client/informer.ts';
import { CONFIG_MAPS, EVENTS, NAMESPACES, PODS } from '../../src/client/resources.ts';
import type { ResourceId, Transport } from '../../src/client/transport.ts';
import type { KubeletConfiguration } from '../../src/kubelet/configuration.ts';
import { ImageStore } from '../../src/kubelet/images/image-store.ts';
import { Kubelet } from '../../src/kubelet/kubelet.ts';
import type { DeadContainerPolicy } from '../../src/kubelet/pods/dead-containers.ts';
import { ConmonRuntime } from '../../src/kubelet/runtime/conmon-runtime.ts';
import type { HostPort, PodNetwork } from '../../src/kubelet/runtime.ts';
import { openMemoryStore } from '../../src/store/memory.ts';
import { CgroupTree, leaveMixedHierarchies } from '../../src/sys/cgroup.ts';
import { CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare } from '../../src/sys/libc.ts';
import { unmountBelow } from '../../src/sys/mount.ts';
import { keepNullDevice } from '../../src/sys/null-device.ts';
import { buildBusyboxImage } from './busybox-image.ts';

const ip = (...args: string[]) => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });

/** Of waits for what comes in a second on a quiet machine. */
const PATIENCE_MS = 30_000;

class BridgeNetwork implements PodNetwork {
  readonly #ips = new Map<string, string>();
  #next = 2;
  constructor() {
    ip('link', 'set', 'lo', 'up');
    ip('link', 'add', 'cox0', 'type', 'bridge');
    ip('addr', 'add', '10.77.0.1/24', 'dev', 'cox0');
    ip('link', 'set', 'cox0', 'up');
  }
  async attach({ uid, netnsPath }: Parameters<PodNetwork['attach']>[0]) {
    const known = this.#ips.get(uid);
    if (known) return { ips: [known] };
    const n = this.#next++;
    const address = `10.77.0.${n}`;
    const inside = (...args: string[]) => execFileSync('nsenter', [`--net=${netnsPath}`, 'ip', ...args]);
    ip('link', 'add', `v${n}`, 'type', 'veth', 'peer', 'name', `p${n}`);
    // `ip` takes a pid or a name only: a process inside the namespace fetches the device by its own pid.
    const child = execFileSync('sh', [
      '-c',
      `nsenter --net=${netnsPath} sleep 1 & P=$!; for i in 1 2 3 4 5 6 7 8 9; do [ "$(readlink /proc/$P/ns/net)" != "$(readlink /proc/self/ns/net)" ] && break; sleep 0.01; done; ip link set p${n} netns $P; kill $P`,
    ]);
    void child;
    inside('link', 'set', `p${n}`, 'name', 'eth0');
    inside('addr', 'add', `${address}/24`, 'dev', 'eth0');
    inside('link', 'set', 'eth0', 'up');
    ip('link', 'set', `v${n}`, 'master', 'cox0', 'up');
    this.#ips.set(uid, address);
    return { ips: [address] };
  }
  async detach(uid: string) {
    this.#ips.delete(uid);
  }
  async retain() {}
  /** As last told. */
  published: readonly HostPort[] = [];
  async publish(ports: readonly HostPort[]) {
    this.published = ports;
  }
  problem: string | undefined;
  notReadyReason() {
    return this.problem;
  }
  policies = false;
  hasPolicies() {
    return this.policies;
  }
}

export class TestNode {
  readonly root: string;
  readonly cgroupRoot = `/coxswain-test-${process.pid}`;
  readonly network: PodNetwork;
  api!: Transport;
  server!: ApiServer;
  images!: ImageStore;
  #stop: AbortController | undefined;
  #running: Promise<void> | undefined;

  readonly #address: string;
  readonly #configuration: Partial<KubeletConfiguration>;
  readonly #deadContainers: Partial<DeadContainerPolicy>;

  constructor(
    options: {
      isolated?: boolean;
      /** As the kubelet's. */
      configuration?: Partial<KubeletConfiguration>;
      deadContainers?: Partial<DeadContainerPolicy>;
      /** The kubelet's own folder is a file system of this size. */
      diskBytes?: number;
    } = {},
  ) {
    this.#configuration = options.configuration ?? {};
    this.#deadContainers = options.deadContainers ?? {};
    this.#address = options.isolated ? '127.0.0.1' : '10.77.0.1';
    unshare(CLONE_NEWNS | CLONE_NEWNET);
    mount('none', '/', null, MS_REC | MS_PRIVATE, null);
    leaveMixedHierarchies();
    keepNullDevice();
    this.root = mkdtempSync('/var/tmp/cox-node-');
    // Root of a pod's own user namespace passes through as anybody.
    chmodSync(this.root, 0o711);
    if (options.isolated) ip('link', 'set', 'lo', 'up');
    if (options.diskBytes) {
      mkdirSync(join(this.root, 'lib'));
      mount('tmpfs', join(this.root, 'lib'), 'tmpfs', 0, `size=${options.diskBytes},mode=711`);
    }
    this.network = options.isolated
      ? {
          attach: async () => ({ ips: ['10.77.0.99'] }),
          detach: async () => {},
          retain: async () => {},
          publish: async () => {},
          notReadyReason: () => undefined,
        }
      : new BridgeNetwork();
  }
  /** Those that lead to pods, in order; not of an isolated node. */
  get hostPorts(): number[] {
    return this.network instanceof BridgeNetwork ? this.network.published.map(one => one.hostPort).sort() : [];
  }

  /** As if there were network policies; not of an isolated node. */
  set hasPolicies(value: boolean) {
    if (this.network instanceof BridgeNetwork) this.network.policies = value;
  }

  /** As if the network had it; not of an isolated node. */
  set networkProblem(value: string | undefined) {
    if (this.network instanceof BridgeNetwork) this.network.problem = value;
  }

  async start(): Promise<void> {
    const pki = await openPki(this.root, { addresses: [], ranges: chooseRanges({}) });
    const clock = systemClock;
    const reader = () => this.server.reader;
    const keys = new LocalKeys(pki.serviceAccountKey.privateKey);
    const settings = defaultServiceAccounts('https://kubernetes.default.svc');
    this.server = await ApiServer.open({
      store: openMemoryStore(),
      log: createLogger('api', { level: 'error' }),
      createHandlers: [
        ...podHandlers({ reader, transport: () => this.api, stored: () => this.api as never, clock }),
        ...tokenHandlers({
          tokens: new ServiceAccountTokens({ keys, settings, reader, clock, random: systemRandom }),
          reader,
          clock,
          // Who asks by a token is nobody's question here.
          authenticator: undefined as unknown as RequestAuthenticator,
        }),
      ],
    });
    this.api = this.server.transport(LOOPBACK_USER);
    for (const name of ['default', 'kube-system', 'kube-node-lease'])
      await this.api
        .create({ of: NAMESPACES }, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } })
        .catch(() => undefined);
    buildBusyboxImage(join(this.root, 'image.tar'));
    this.images = new ImageStore(join(this.root, 'images'));
    await this.images.load(join(this.root, 'image.tar'));
    const { ca, serving } = await agentCredentials(pki, { name: 'node-1', addresses: ['10.77.0.1'] });
    const admin = await adminCredentials(pki);
    this.#tls = { key: serving.key, cert: serving.certificate, ca };
    this.admin = { key: admin.key, cert: admin.certificate, ca };
    this.startKubelet();
  }
  /** Client certificate of an administrator, for the kubelet's port. */
  admin!: { key: string; cert: string; ca: string };
  #tls!: { key: string; cert: string; ca: string };
  startKubelet(): void {
    const tls = this.#tls;
    this.#stop = new AbortController();
    const log = createLogger('kubelet', { level: (process.env['COX_LOG'] as 'debug') ?? 'warn' });
    const transport = this.#door();
    const informers = new InformerFactory({ transport, log });
    informers.start(this.#stop.signal);
    const kubelet = new Kubelet({
      nodeName: 'node-1',
      nodeIps: [this.#address],
      rootDir: join(this.root, 'lib'),
      runDir: join(this.root, 'run'),
      imageDir: join(this.root, 'images'),
      cgroupRoot: this.cgroupRoot,
      transport,
      informers,
      network: this.network,
      clusterDns: ['10.96.0.10'],
      clusterDomain: 'cluster.local',
      tls,
      log,
      configuration: this.#configuration,
      deadContainers: this.#deadContainers,
    });
    this.#running = kubelet.run(this.#stop.signal);
  }
  async stopKubelet(): Promise<void> {
    this.#stop?.abort();
    await this.#running;
  }
  /** Whether kubelets started from now on reach the API server. */
  isReachable = true;
  /** As the kubelet has it: asks in vain while the API server is not to be reached. */
  #door(): Transport {
    return new Proxy(this.api, {
      get: (api, name) => {
        const method = Reflect.get(api, name) as (...args: unknown[]) => unknown;
        return (...args: unknown[]) => {
          if (!this.isReachable) throw new Error('connect ECONNREFUSED');
          return method.apply(api, args);
        };
      },
    });
  }
  async restartKubelet(): Promise<void> {
    await this.stopKubelet();
    this.startKubelet();
  }
  async close(): Promise<void> {
    await this.stopKubelet();
    await this.runtime.removeAll();
    await this.server.close();
    new CgroupTree().remove(this.cgroupRoot);
    unmountBelow(this.root);
    rmSync(this.root, { recursive: true, force: true });
  }

  /** Another view of what the kubelet runs. */
  get runtime(): ConmonRuntime {
    return new ConmonRuntime({
      rootDir: join(this.root, 'lib/runtime'),
      runDir: join(this.root, 'run'),
      images: this.images,
      cgroups: new CgroupTree(),
      network: this.network,
      log: createLogger('test'),
      clock: systemClock,
    });
  }

  async create(name: string, spec: object, metadata: object = {}): Promise<Pod> {
    return (await this.api.create({ of: PODS, namespace: 'default' }, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'default', ...metadata },
      spec: { nodeName: 'node-1', terminationGracePeriodSeconds: 1, ...spec },
    } as KubeObject)) as Pod;
  }
  async configMap(name: string, data: Record<string, string>): Promise<void> {
    await this.api.create({ of: CONFIG_MAPS, namespace: 'default' }, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name, namespace: 'default' },
      data,
    } as KubeObject);
  }
  async put(of: ResourceId, object: object): Promise<void> {
    await this.api.create({ of, namespace: 'default' }, object as KubeObject);
  }
  async pod(name: string): Promise<Pod | undefined> {
    return (await this.api.get({ of: PODS, namespace: 'default', name }).catch(() => undefined)) as Pod | undefined;
  }
  async events(name: string): Promise<string[]> {
    const list = await this.api.list({ of: EVENTS, namespace: 'default' });
    return (list.items as unknown as { involvedObject: { name: string }; reason: string; message: string }[])
      .filter(one => one.involvedObject.name === name)
      .map(one => `${one.reason}: ${one.message}`);
  }
  /** Events are told after the fact: waits until they are as wanted. */
  async untilEvents(
    name: string,
    what: (events: readonly string[]) => unknown,
    timeoutMs = PATIENCE_MS,
  ): Promise<void> {
    const end = Date.now() + timeoutMs;
    for (let events = await this.events(name); !what(events); events = await this.events(name)) {
      if (Date.now() > end) assert.fail(`timed out; events ${JSON.stringify(events, null, 1)}`);
      await sleep(10);
    }
  }
  async until(name: string, what: (pod: Pod) => unknown, timeoutMs = PATIENCE_MS): Promise<Pod> {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const pod = await this.pod(name);
      if (pod && what(pod)) return pod;
      if (Date.now() > end)
        assert.fail(
          `timed out; status ${JSON.stringify(pod?.status, null, 1)}\nevents ${JSON.stringify(await this.events(name), null, 1)}`,
        );
      await sleep(5);
    }
  }
  async untilGone(name: string, timeoutMs = PATIENCE_MS): Promise<void> {
    const end = Date.now() + timeoutMs;
    while (await this.pod(name)) {
      assert.ok(Date.now() < end, `${name} is still there: ${JSON.stringify((await this.pod(name))?.status)}`);
      await sleep(5);
    }
  }
}

export const isReady = (pod: Pod) => pod.status?.conditions?.find(one => one.type === 'Ready')?.status === 'True';
