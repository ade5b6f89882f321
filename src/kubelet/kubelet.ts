/**
 * The kubelet of one node: wires its parts and runs them until the signal aborts. Containers outlive it; a new one takes
 * over where this one stopped. It talks to the API server only through the transport, to the network only through PodNetwork.
 */

import { mkdirSync, statfsSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { Node, Pod, Service, ServiceAccount, Taint } from '../api/core/v1.gen.ts';
import { quantityValue } from '../api/machinery/quantity.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { KUBELET_PORT } from '../base/cluster-defaults.ts';
import { messageOf } from '../base/errors.ts';
import { createLogger, type Logger } from '../base/log.ts';
import { metrics } from '../base/metrics.ts';
import { type Random, systemRandom } from '../base/random.ts';
import type { Tracer } from '../base/tracing/span.ts';
import type { ZPageSource } from '../base/z-page.ts';
import { ApiEventRecorder } from '../client/event-recorder.ts';
import type { InformerFactory } from '../client/informer.ts';
import { NODES, PODS, SERVICE_ACCOUNTS, SERVICES } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { CgroupTree } from '../sys/cgroup.ts';
import { readHugePages } from '../sys/huge-pages.ts';
import { hasSelinux } from '../sys/selinux.ts';
import { CONFIGURATION_DEFAULT, configzOf, type KubeletConfiguration } from './configuration.ts';
import { CpuAssignments } from './cpus/cpu-assignments.ts';
import { readCpuTopology } from './cpus/cpu-topology.ts';
import { MemoryAssignments } from './cpus/memory-assignments.ts';
import { ClaimDrivers } from './devices/claim-drivers.ts';
import { DeviceAllocations } from './devices/device-allocations.ts';
import { DeviceHealth } from './devices/device-health.ts';
import { DevicePlugins } from './devices/device-plugins.ts';
import { PodClaims } from './devices/pod-claims.ts';
import { PodResources } from './devices/pod-resources.ts';
import { Evictor } from './eviction/evictor.ts';
import type { CredentialProviderPaths } from './images/credential-provider-config.ts';
import { ImageCollection } from './images/image-collection.ts';
import { ImageStore } from './images/image-store.ts';
import { LocalPuller } from './images/local-puller.ts';
import { type ImagePuller, NodeImages } from './images/node-images.ts';
import { nodeName as nodeNameMetric } from './metrics.ts';
import { readCapacity } from './node/machine.ts';
import { NodeStatusWriter } from './node/node-status.ts';
import { PodBackend } from './pod-backend.ts';
import type { PodContext } from './pods/context.ts';
import { collectDead, DEAD_CONTAINERS_DEFAULT, type DeadContainerPolicy } from './pods/dead-containers.ts';
import { PodPaths } from './pods/files.ts';
import { PatientEvents } from './pods/patient-events.ts';
import { PodWorkers } from './pods/pod-workers.ts';
import { StartGate } from './pods/start-gate.ts';
import { StatusWriter } from './pods/status-writer.ts';
import { TokenSource } from './pods/tokens.ts';
import { UserIds } from './pods/user-ids.ts';
import { References } from './references.ts';
import { ConmonRuntime } from './runtime/conmon-runtime.ts';
import { measured } from './runtime/measured-runtime.ts';
import type { PodNetwork, Runtime } from './runtime.ts';
import { defaultLabels } from './selinux.ts';
import { Access } from './server/access.ts';
import { KubeletServer } from './server/kubelet-server.ts';
import type { NodeLogsOptions } from './server/node-logs.ts';
import { StaticPods } from './static/static-pods.ts';
import { NodeStats } from './stats/node-stats.ts';
import { CsiDrivers } from './volumes/csi/drivers.ts';
import { Staging } from './volumes/csi/staging.ts';
import { PodCertificates } from './volumes/pod-certificates.ts';

export interface KubeletOptions {
  readonly nodeName: string;
  /** The node's own addresses, the primary one first. */
  readonly nodeIps: readonly string[];
  /** Survives a restart of the machine: pods' volumes, logs, writable layers. */
  readonly rootDir: string;
  /** Empty after a restart of the machine; short, for sockets live in it. */
  readonly runDir: string;
  /** The machine's image store, shared with other nodes and the command line. */
  readonly imageDir: string;
  /** Group below which all pods' groups are made: `/coxswain/dev/node-1`. */
  readonly cgroupRoot: string;
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly network: PodNetwork;
  readonly clusterDns: readonly string[];
  readonly clusterDomain: string;
  /** PEM. `ca` signs the client certificates that the server accepts. */
  readonly tls: { readonly key: string; readonly cert: string; readonly ca: string };
  /** Serving pairs that take the place of that in `tls`, as they come. */
  readonly servingPairs?: AsyncIterable<{ readonly key: string; readonly cert: string }>;
  /** Default 10250. */
  readonly port?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly taints?: readonly Taint[];
  /** What differs from upstream's defaults. */
  readonly configuration?: Partial<KubeletConfiguration>;
  readonly deadContainers?: Partial<DeadContainerPolicy>;
  /** Logs of the node itself beside its pods'. */
  readonly nodeLogs?: NodeLogsOptions;
  /** `/statusz` and `/flagz` of its port; not found without. */
  readonly zPages?: ZPageSource;
  readonly log?: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Programs that know passwords of registries, instead of those that `images.yaml` names. */
  readonly credentialProviders?: CredentialProviderPaths;
  /** Fetches images; default: this process itself. */
  readonly puller?: ImagePuller;
  /** Makes spans of what it does; `transport` is to have the same. Without one nothing is traced. */
  readonly tracer?: Tracer | undefined;
  /** Instead of conmon and crun alone. */
  readonly runtime?: (parts: RuntimeParts) => Promise<Runtime>;
}

/** What the kubelet gives whoever makes its runtime. */
export interface RuntimeParts {
  readonly rootDir: string;
  readonly runDir: string;
  readonly images: ImageStore;
  readonly cgroups: CgroupTree;
  readonly network: PodNetwork;
  readonly tracer: Tracer | undefined;
  readonly log: Logger;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Pods that start at a time: one more than there are processors, and one whose requests are under way. */
const STARTS_EXTRA = 2;
/** What the API server gives where nobody says how long. */
const PROVIDER_TOKEN_SECONDS = 3600;

export class Kubelet {
  readonly #options: KubeletOptions;
  constructor(options: KubeletOptions) {
    this.#options = options;
  }

  /** Resolves after the signal aborted and nothing of the kubelet runs any more. Rejects when it cannot start at all. */
  async run(signal: AbortSignal): Promise<void> {
    const {
      nodeName,
      nodeIps,
      rootDir,
      runDir,
      imageDir,
      cgroupRoot,
      transport,
      informers,
      network,
      clusterDns,
      clusterDomain,
      tls,
    } = this.#options;
    const {
      clock = systemClock,
      random = systemRandom,
      log = createLogger('kubelet'),
      port = KUBELET_PORT,
    } = this.#options;
    mkdirSync(rootDir, { recursive: true, mode: 0o711 });
    mkdirSync(runDir, { recursive: true, mode: 0o711 });
    const images = new ImageStore(imageDir);
    const { puller = new LocalPuller({ imageDir, clock }) } = this.#options;
    const tokens = new TokenSource({ transport, clock });
    const nodeImages = new NodeImages({
      store: images,
      folder: imageDir,
      puller,
      clock,
      plugins: {
        paths: this.#options.credentialProviders,
        accounts: {
          account: async (namespace, name) =>
            (await transport.get({ of: SERVICE_ACCOUNTS, namespace, name })) as ServiceAccount,
          token: (pod, audience) => tokens.get(pod, { audience, expirationSeconds: PROVIDER_TOKEN_SECONDS }),
        },
        log,
      },
    });
    if (this.#options.credentialProviders) await nodeImages.openProviders({});
    await nodeImages
      .readSettings()
      .then(settings => nodeImages.openProviders(settings))
      .catch(error => log.error('images.yaml is refused', { error: messageOf(error) }));
    const cgroups = new CgroupTree();
    const configuration = { ...CONFIGURATION_DEFAULT, ...this.#options.configuration };
    const machine = readCapacity(rootDir, configuration);
    for (const group of ['', '/burstable', '/besteffort'])
      cgroups.create(
        `${cgroupRoot}/kubepods${group}`,
        group === '/besteffort' ? { cpuShares: 2 } : group === '' ? machine.enforced : {},
      );
    const makeRuntime = this.#options.runtime ?? (async parts => new ConmonRuntime(parts));
    const runtime = measured(
      await makeRuntime({
        rootDir: join(rootDir, 'runtime'),
        runDir,
        images,
        cgroups,
        network,
        tracer: this.#options.tracer,
        log,
        clock,
        signal,
      }),
    );
    const starts = new StartGate({ clock, size: availableParallelism() + STARTS_EXTRA });
    const recorder = new ApiEventRecorder({ transport, component: 'kubelet', host: nodeName, log, clock });
    const references = new References({ transport, log, clock });
    const csi = new CsiDrivers({ nodeName, rootDir, transport, informers, clock, log });
    const staging = new Staging({ rootDir, drivers: csi, clock, log });
    const pods = informers.get<Pod>(PODS, { fieldSelector: `spec.nodeName=${nodeName}` });
    const services = informers.get<Service>(SERVICES);
    const devices = new DeviceAllocations(join(rootDir, 'device-plugins', 'allocations.json'));
    const plugins: DevicePlugins = new DevicePlugins({
      rootDir,
      known: devices.resources,
      changed: () => {
        node.wake();
        workers.wake(devices.users);
      },
      clock,
      log,
    });
    devices.connect(plugins);
    const topology = readCpuTopology();
    const cpus = new CpuAssignments({ path: join(rootDir, 'cpu_manager_state'), topology, configuration });
    const memory = new MemoryAssignments({
      path: join(rootDir, 'memory_manager_state'),
      numaNodes: topology.numaNodes,
      capacityBytes: quantityValue(machine.capacity['memory']),
      hugePages: machine.resources.hugePages,
      configuration,
    });
    const health = new DeviceHealth({ changed: driver => workers.wake(claims.usersOf(driver)), clock, log });
    const drivers = new ClaimDrivers({ rootDir, nodeName, transport, health, clock, log });
    const claims = new PodClaims({ path: join(rootDir, 'dra-claims.json'), transport, drivers, health });
    const paths = new PodPaths({ rootDir, runDir });
    const context: PodContext = {
      hugePages: cgroups.limitsHugePages ? readHugePages() : [],
      nodeName,
      nodeIps,
      clusterDns,
      clusterDomain,
      cgroupRoot,
      runtime,
      images,
      nodeImages,
      network,
      cgroups,
      references,
      transport,
      tracer: this.#options.tracer,
      events: new PatientEvents({ recorder, gate: starts, clock }),
      starts,
      clock,
      random,
      log,
      tokens,
      statuses: new StatusWriter({ transport, clock, log, signal }),
      paths,
      userIds: new UserIds({ pods: paths.pods, podsMax: configuration.maxPods, idsPerPod: configuration.idsPerPod }),
      volumes: {
        name: nodeName,
        rootDir,
        csi,
        staging,
        images: nodeImages,
        certificates: new PodCertificates({ transport, nodeName, clock, random, log, signal }),
        flexDir: configuration.volumePluginDir,
        selinux: hasSelinux() ? defaultLabels() : undefined,
        whenReported: (volume, until) => node.whenReported(volume, until),
        clock,
        log,
      },
      node: {
        ...machine.resources,
        allowedUnsafeSysctls: configuration.allowedUnsafeSysctls,
        hasStrictGroups: runtime.featuresOf?.('')?.supplementalGroupsPolicy ?? false,
      },
      configuration,
      deadContainers: { ...DEAD_CONTAINERS_DEFAULT, ...this.#options.deadContainers },
      devices,
      cpus,
      memory,
      claims,
      services: () => services.values(),
      publishPorts: () => workers.publishPorts(),
      shareCpus: () => workers.shareCpus(),
      pressureRefusal: pod => evictor.refusal(pod),
      otherPods: uid => workers.activePods().filter(pod => pod.metadata.uid !== uid),
    };
    const workers: PodWorkers = new PodWorkers(context, pods, () => statics.wake());
    const evictor: Evictor = new Evictor({
      sources: { rootDir, imageDir, cgroups, cgroup: `${cgroupRoot}/kubepods`, ...machine.enforced },
      configuration,
      pods: () => workers.evictable(),
      reclaim: async signal => {
        const isSameDisk = statSync(rootDir).dev === statSync(imageDir).dev;
        if (signal.startsWith('nodefs') || (signal.startsWith('imagefs') && isSameDisk)) await workers.removeDead();
        if (signal.startsWith('imagefs') || (signal.startsWith('nodefs') && isSameDisk)) await collection.freeUnused();
      },
      changed: () => node.wake(),
      event: (reason, message) => node.event('Warning', reason, message),
      clock,
      log,
    });
    const node: NodeStatusWriter = new NodeStatusWriter({
      nodeName,
      nodeIps,
      port,
      labels: this.#options.labels ?? {},
      taints: [...configuration.registerWithTaints, ...(this.#options.taints ?? [])],
      transport,
      events: recorder,
      network,
      images,
      machine,
      pressures: () => evictor.pressures,
      volumesInUse: () => staging.inUse,
      devices: () => plugins.resources,
      nodes: informers.get<Node>(NODES, { fieldSelector: `metadata.name=${nodeName}` }),
      runtime,
      clock,
      log,
    });
    const collection: ImageCollection = new ImageCollection({
      store: images,
      records: nodeImages.records,
      folder: imageDir,
      disk: () => {
        const { blocks, bavail, bsize } = statfsSync(imageDir);
        return { capacityBytes: blocks * bsize, availableBytes: bavail * bsize };
      },
      warn: (reason, message) => node.event('Warning', reason, message),
      tracer: this.#options.tracer,
      clock,
      log,
    });
    const statics: StaticPods = new StaticPods({
      folder: configuration.staticPodPath ?? join(rootDir, 'manifests'),
      nodeName,
      transport,
      node: () => node.node,
      bound: () => pods.values(),
      started: pod => workers.startStatic(pod),
      ended: pod => workers.endStatic(pod),
      clock,
      log,
    });
    const stats = new NodeStats({
      nodeName,
      cgroups,
      cgroupRoot,
      rootDir,
      imageDir,
      runtime,
      pods: () => workers.activePods(),
      clock,
    });
    const resources = new PodResources({
      rootDir,
      pods: () => workers.activePods(),
      devices,
      plugins,
      claims,
      cpus,
      memory,
    });
    const address = nodeIps[0] ?? '127.0.0.1';
    nodeNameMetric.set(1, nodeName);
    metrics.onCollect(() => workers.tell());
    const server = new KubeletServer({
      address,
      port,
      tls,
      access: new Access({ nodeName, transport, clock, log, ...configuration }),
      ...(configuration.authentication.clientCaFile ? { clientCaFile: configuration.authentication.clientCaFile } : {}),
      zPages: this.#options.zPages,
      ...(this.#options.servingPairs ? { renewals: this.#options.servingPairs } : {}),
      ...(configuration.enableSystemLogHandler
        ? {
            nodeLogs: {
              ...this.#options.nodeLogs,
              entries: { ...this.#options.nodeLogs?.entries, pods: paths.logsRoot },
            },
          }
        : {}),
      tracer: this.#options.tracer,
      log,
      clock,
      backend: new PodBackend({
        runtime,
        workers,
        stats,
        cgroups,
        configuration: configzOf(configuration, { address, port, clusterDomain, clusterDNS: clusterDns }),
      }),
    });
    try {
      await Promise.all([
        server.run(signal),
        node.run(signal),
        csi.run(signal),
        plugins.run(signal),
        resources.run(signal),
        drivers.run(signal),
        collection.run(signal),
        collectDead(
          {
            policy: context.deadContainers,
            runtime,
            tracer: this.#options.tracer,
            clock,
            log,
            isOver: uid => workers.isOver(uid),
          },
          signal,
        ),
        evictor.run(signal),
        // A container's environment names the Services there are: none may start before they are known, save those of the node
        // itself, on which the API server may depend.
        workers.run(signal, { ready: Promise.race([services.synced, aborted(signal)]) }),
        statics.run(signal),
      ]);
    } finally {
      references.stop();
    }
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
