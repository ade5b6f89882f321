/**
 * This node in the API: registers it, keeps its status true and its lease fresh. Invariant: the Ready condition follows the
 * network at once, but for a new kubelet's first seconds on a node that was ready; everything else is written when it
 * changes, and at least every five minutes.
 */

import type { Lease } from '../../api/coordination/v1.gen.ts';
import { isExtendedResource } from '../../api/core/resource-validation.ts';
import type { ContainerImage, Node, NodeCondition, NodeStatus, Taint } from '../../api/core/v1.gen.ts';
import { DECLARED_FEATURES } from '../../api/machinery/node-features.ts';
import { type Clock, formatMicroTime, formatTime } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { EventRecorder } from '../../client/event-recorder.ts';
import type { Informer } from '../../client/informer.ts';
import { LEASES, NODES } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import type { Pressure } from '../eviction/signals.ts';
import type { ImageStore } from '../images/image-store.ts';
import type { PodNetwork, Runtime } from '../runtime.ts';
import { ARCHITECTURE, type MachineCapacity, readSystemInfo } from './machine.ts';

export interface NodeStatusOptions {
  readonly nodeName: string;
  readonly nodeIps: readonly string[];
  readonly port: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly taints: readonly Taint[];
  readonly transport: Transport;
  readonly events: EventRecorder;
  readonly network: PodNetwork;
  readonly images: ImageStore;
  readonly machine: MachineCapacity;
  readonly runtime: Pick<Runtime, 'name' | 'version' | 'handlers' | 'featuresOf'>;
  /** What the node is short of. */
  pressures(): ReadonlySet<Pressure>;
  /** Attachable volumes that are mounted, or about to be: nobody may detach them. */
  volumesInUse(): readonly string[];
  /** What device plugins offer. */
  devices(): {
    readonly capacity: Readonly<Record<string, string>>;
    readonly allocatable: Readonly<Record<string, string>>;
  };
  /** This node only. */
  readonly nodes: Informer<Node>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Who registers a node with this taint leaves to a cloud's controller what only that knows, its addresses among it. */
const CLOUD_TAINT = 'node.cloudprovider.kubernetes.io/uninitialized';
const LEASE_SECONDS = 40;
const LEASE_RENEW_MS = 10_000;
const LEASE_NAMESPACE = 'kube-node-lease';
const REPORT_MS = 300_000;
const CHECK_MS = 1000;
const CHECK_MS_UNREADY = 50;
/** Until a node that was ready before its kubelet was started anew says that it is not. */
const START_PATIENCE_MS = 5000;
/** Registration: node and server of a new cluster start together, and no try should come long after the server is there. */
const RETRY_MS_MIN = 20;
const RETRY_FACTOR = 1.3;
const RETRY_MS_MAX = 2000;
const REPORT_CHECK_MS = 20;
const IMAGES_MAX = 50;
const IMAGES_CHECK_MS = 10_000;

/** Where the event is called otherwise than the condition's reason. */
const EVENT_REASONS: Readonly<Record<string, string>> = {
  KubeletHasInsufficientMemory: 'NodeHasInsufficientMemory',
  KubeletHasSufficientMemory: 'NodeHasSufficientMemory',
  KubeletHasDiskPressure: 'NodeHasDiskPressure',
  KubeletHasNoDiskPressure: 'NodeHasNoDiskPressure',
  KubeletHasInsufficientPID: 'NodeHasInsufficientPID',
  KubeletHasSufficientPID: 'NodeHasSufficientPID',
};
const PRESSURES: readonly {
  readonly type: Pressure;
  readonly short: { readonly reason: string; readonly message: string };
  readonly enough: { readonly reason: string; readonly message: string };
}[] = [
  {
    type: 'MemoryPressure',
    short: { reason: 'KubeletHasInsufficientMemory', message: 'kubelet has insufficient memory available' },
    enough: { reason: 'KubeletHasSufficientMemory', message: 'kubelet has sufficient memory available' },
  },
  {
    type: 'DiskPressure',
    short: { reason: 'KubeletHasDiskPressure', message: 'kubelet has disk pressure' },
    enough: { reason: 'KubeletHasNoDiskPressure', message: 'kubelet has no disk pressure' },
  },
  {
    type: 'PIDPressure',
    short: { reason: 'KubeletHasInsufficientPID', message: 'kubelet has insufficient PID available' },
    enough: { reason: 'KubeletHasSufficientPID', message: 'kubelet has sufficient PID available' },
  },
];

export class NodeStatusWriter {
  readonly #options: NodeStatusOptions;
  #node: Node | undefined;
  #written: NodeStatus = {};
  #images: ContainerImage[] = [];
  #imagesReadMs = Number.NEGATIVE_INFINITY;
  #wake: (() => void) | undefined;
  /** Names of resources that this kubelet has told of. */
  readonly #own = new Set<string>();

  constructor(options: NodeStatusOptions) {
    this.#options = options;
  }
  /** The object as last seen; undefined before registration. */
  get node(): Node | undefined {
    return this.#node;
  }
  /** Resolves when the API server has been told that the volume is in use. */
  async whenReported(volume: string, signal: AbortSignal): Promise<void> {
    while (!this.#written.volumesInUse?.includes(volume)) {
      signal.throwIfAborted();
      this.wake();
      await this.#options.clock.sleep(REPORT_CHECK_MS, signal);
    }
  }
  event(type: 'Normal' | 'Warning', reason: string, message: string): void {
    const { nodeName: name, events } = this.#options;
    events.event({ apiVersion: 'v1', kind: 'Node', metadata: { name, uid: name } }, type, reason, message);
  }
  /** Looks at once instead of at the next beat. */
  wake(): void {
    this.#wake?.();
  }

  async run(signal: AbortSignal): Promise<void> {
    this.#options.nodes.onChange(({ object, old, deleted }) => {
      if (signal.aborted || deleted || !old || object.spec?.unschedulable === old.spec?.unschedulable) return;
      this.#tell(object.spec?.unschedulable ? 'NodeNotSchedulable' : 'NodeSchedulable');
    });
    await this.#register(signal);
    if (signal.aborted) return;
    await Promise.all([this.#keepStatus(signal), this.#keepLease(signal)]);
  }

  async #register(signal: AbortSignal): Promise<void> {
    const { nodeName, nodeIps, labels, taints, transport, clock, log, events } = this.#options;
    const ownLabels = {
      'beta.kubernetes.io/arch': ARCHITECTURE,
      'beta.kubernetes.io/os': 'linux',
      'kubernetes.io/arch': ARCHITECTURE,
      'kubernetes.io/hostname': nodeName,
      'kubernetes.io/os': 'linux',
      ...labels,
    };
    for (let retryMs = RETRY_MS_MIN; !signal.aborted; retryMs = Math.min(retryMs * RETRY_FACTOR, RETRY_MS_MAX)) {
      try {
        const status = this.#status(undefined);
        try {
          this.#node = (await transport.create({ of: NODES }, {
            apiVersion: 'v1',
            kind: 'Node',
            metadata: {
              name: nodeName,
              labels: ownLabels,
              annotations: {
                'volumes.kubernetes.io/controller-managed-attach-detach': 'true',
                ...(this.#isOfCloud ? { 'alpha.kubernetes.io/provided-node-ip': nodeIps.join(',') } : {}),
              },
            },
            spec: { ...(taints.length ? { taints: [...taints] } : {}) },
            status,
          } as Node)) as Node;
        } catch (error) {
          // Who may not make its node may find it there.
          if (!isReason(error, 'AlreadyExists', 'Forbidden')) throw error;
          this.#node = (await transport.get({ of: NODES, name: nodeName })) as Node;
          const missing = Object.entries(ownLabels).filter(
            ([key, value]) => this.#node!.metadata.labels?.[key] !== value,
          );
          if (missing.length)
            this.#node = (await transport.patch(
              { of: NODES, name: nodeName },
              { metadata: { labels: Object.fromEntries(missing) } },
              'application/merge-patch+json',
            )) as Node;
        }
        this.#written = this.#node.status ?? {};
        const self = { apiVersion: 'v1', kind: 'Node', metadata: { name: nodeName, uid: nodeName } };
        events.event(self, 'Normal', 'Starting', 'Starting kubelet.');
        const [before, now] = [this.#written, status].map(({ nodeInfo }) => nodeInfo?.bootID);
        if (before && before !== now)
          events.event(self, 'Warning', 'Rebooted', `Node ${nodeName} has been rebooted, boot id: ${now}`);
        return;
      } catch (error) {
        log.debug('node not registered yet', { error: messageOf(error) });
        await clock.sleep(retryMs, signal);
      }
    }
  }

  get #isOfCloud(): boolean {
    return this.#options.taints.some(({ key }) => key === CLOUD_TAINT);
  }

  /** A node of a cloud has those that it registered with until its cloud says others. */
  #addressesToWrite({ addresses = [] }: NodeStatus): object {
    if (this.#isOfCloud) return this.#written.addresses?.length ? { addresses: undefined } : {};
    return { addresses: this.#written.addresses ? [...addresses, { $patch: 'replace' }] : addresses };
  }

  #status(before: NodeStatus | undefined): NodeStatus {
    const { nodeName, nodeIps, port, machine, runtime, clock } = this.#options;
    const devices = this.#options.devices();
    const now = formatTime(clock.now());
    const condition = (type: string, status: 'True' | 'False', reason: string, message: string): NodeCondition => {
      const known = before?.conditions?.find(one => one.type === type);
      return {
        type,
        status,
        lastHeartbeatTime: now,
        lastTransitionTime: known?.status === status ? (known.lastTransitionTime ?? now) : now,
        reason,
        message,
      };
    };
    const notReady = this.#options.network.notReadyReason();
    return {
      capacity: { ...machine.capacity, ...devices.capacity },
      allocatable: { ...machine.allocatable, ...devices.allocatable },
      conditions: [
        ...PRESSURES.map(({ type, short, enough }) =>
          this.#options.pressures().has(type)
            ? condition(type, 'True', short.reason, short.message)
            : condition(type, 'False', enough.reason, enough.message),
        ),
        notReady === undefined
          ? condition('Ready', 'True', 'KubeletReady', 'kubelet is posting ready status')
          : condition(
              'Ready',
              'False',
              'KubeletNotReady',
              `container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:${notReady}`,
            ),
      ],
      addresses: [
        ...nodeIps.map(address => ({ type: 'InternalIP', address })),
        { type: 'Hostname', address: nodeName },
      ],
      daemonEndpoints: { kubeletEndpoint: { Port: port } },
      nodeInfo: readSystemInfo(`${runtime.name}://${runtime.version}`),
      images: this.#listImages(),
      volumesInUse: [...this.#options.volumesInUse()],
      declaredFeatures: [...DECLARED_FEATURES],
      ...handlerStatus(runtime),
    };
  }

  #listImages(): ContainerImage[] {
    const { clock, images } = this.#options;
    if (clock.monotonic() - this.#imagesReadMs < IMAGES_CHECK_MS) return this.#images;
    this.#imagesReadMs = clock.monotonic();
    this.#images = images
      .list()
      .filter(image => image.references.length > 0)
      .sort((a, b) => b.sizeBytes - a.sizeBytes || (a.id < b.id ? -1 : 1))
      .slice(0, IMAGES_MAX)
      .map(image => ({ names: [...image.references], sizeBytes: image.sizeBytes }));
    return this.#images;
  }

  async #keepStatus(signal: AbortSignal): Promise<void> {
    const { nodeName, transport, clock, log, network } = this.#options;
    let reportedMs = Number.NEGATIVE_INFINITY;
    const startMs = clock.monotonic();
    const wasReady = isReady(this.#written);
    while (!signal.aborted) {
      const status = this.#status(this.#written);
      // A kubelet that was started anew has yet to find its network, and for a node that is not ready all its pods leave their Services.
      if (wasReady && !isReady(status) && clock.monotonic() - startMs < START_PATIENCE_MS) {
        await clock.sleep(CHECK_MS_UNREADY, signal);
        continue;
      }
      for (const name of Object.keys(status.capacity ?? {})) this.#own.add(name);
      const foreign = allocatableOfOthers(this.#options.nodes.get(nodeName)?.status, this.#own);
      const isChanged = foreign !== undefined || fingerprint(status) !== fingerprint(this.#written);
      if (isChanged || clock.monotonic() - reportedMs > REPORT_MS) {
        try {
          this.#node = (await transport.patch(
            { of: NODES, name: nodeName, subresource: 'status' },
            {
              status: {
                ...status,
                capacity: withoutGone(this.#written.capacity, status.capacity),
                allocatable: { ...withoutGone(this.#written.allocatable, status.allocatable), ...foreign },
                ...this.#addressesToWrite(status),
              },
            },
            'application/strategic-merge-patch+json',
          )) as Node;
          this.#tellChanges(this.#written, status);
          this.#written = { ...this.#node.status, ...status, conditions: status.conditions! };
          reportedMs = clock.monotonic();
        } catch (error) {
          log.debug('node status not written', { error: messageOf(error) });
          if (isReason(error, 'NotFound')) await this.#register(signal);
          await clock.sleep(500, signal);
          continue;
        }
      }
      // The network may have become ready while that was written.
      if ((network.notReadyReason() === undefined) !== isReady(status)) continue;
      await new Promise<void>(resolve => {
        this.#wake = resolve;
        void clock.sleep(network.notReadyReason() === undefined ? CHECK_MS : CHECK_MS_UNREADY, signal).then(resolve);
      });
    }
  }

  #tell(reason: string): void {
    this.event('Normal', reason, `Node ${this.#options.nodeName} status is now: ${reason}`);
  }
  #tellChanges(before: NodeStatus, after: NodeStatus): void {
    if (isReady(before) !== isReady(after)) this.#tell(isReady(after) ? 'NodeReady' : 'NodeNotReady');
    for (const { type, status, reason } of after.conditions ?? []) {
      const former = before.conditions?.find(one => one.type === type);
      if (type !== 'Ready' && former && former.status !== status)
        this.#tell(EVENT_REASONS[reason ?? ''] ?? reason ?? type);
    }
  }

  async #keepLease(signal: AbortSignal): Promise<void> {
    const { nodeName, transport, clock, log } = this.#options;
    const target = { of: LEASES, namespace: LEASE_NAMESPACE, name: nodeName };
    let lease: Lease | undefined;
    let retryMs = 100;
    while (!signal.aborted) {
      const renewTime = formatMicroTime(clock.now());
      try {
        if (!lease) {
          try {
            lease = (await transport.get(target)) as Lease;
          } catch (error) {
            if (!isReason(error, 'NotFound')) throw error;
          }
        }
        const uid = this.#node?.metadata.uid;
        const fresh: Lease = {
          apiVersion: 'coordination.k8s.io/v1',
          kind: 'Lease',
          metadata: lease?.metadata ?? {
            name: nodeName,
            namespace: LEASE_NAMESPACE,
            ...(uid ? { ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: nodeName, uid }] } : {}),
          },
          spec: { ...lease?.spec, holderIdentity: nodeName, leaseDurationSeconds: LEASE_SECONDS, renewTime },
        };
        lease = (
          lease
            ? await transport.update(target, fresh)
            : await transport.create({ of: LEASES, namespace: LEASE_NAMESPACE }, fresh)
        ) as Lease;
        retryMs = 100;
        await clock.sleep(LEASE_RENEW_MS, signal);
      } catch (error) {
        lease = undefined;
        log.debug('node lease not renewed', { error: messageOf(error) });
        await clock.sleep(retryMs, signal);
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
      }
    }
  }
}

/** What each handler of a runtime can, as far as it tells; the default one has no name. */
export function handlerStatus(
  runtime: Pick<Runtime, 'handlers' | 'featuresOf'>,
): Pick<NodeStatus, 'runtimeHandlers' | 'features'> {
  const told = [...(runtime.handlers ?? [])].sort().flatMap(name => {
    const features = runtime.featuresOf?.(name);
    return features ? [{ name, features }] : [];
  });
  if (!told.length) return {};
  const { supplementalGroupsPolicy = false } = told.find(({ name }) => name === '')?.features ?? {};
  return {
    runtimeHandlers: told.map(({ name, features: { recursiveReadOnlyMounts, userNamespaces } }) => ({
      name,
      features: { recursiveReadOnlyMounts, userNamespaces },
    })),
    features: { supplementalGroupsPolicy },
  };
}

/** With null, which removes it, for each resource that was written here and is no more. */
function withoutGone(
  before: Readonly<Record<string, string>> = {},
  now: Readonly<Record<string, string>> = {},
): Record<string, string | null> {
  const gone = Object.keys(before).filter(name => now[name] === undefined);
  return { ...now, ...Object.fromEntries(gone.map(name => [name, null])) };
}

/**
 * What is to be written for extended resources that somebody else advertises by writing the capacity: all of it can be allocated, for as long as
 * it is there. Undefined when it is so already.
 */
function allocatableOfOthers(
  { capacity = {}, allocatable = {} }: NodeStatus = {},
  own: ReadonlySet<string>,
): Record<string, string | null> | undefined {
  const names = Object.keys({ ...allocatable, ...capacity }).filter(
    name => isExtendedResource(name) && !own.has(name) && capacity[name] !== allocatable[name],
  );
  return names.length > 0 ? Object.fromEntries(names.map(name => [name, capacity[name] ?? null])) : undefined;
}

function isReady(status: NodeStatus): boolean {
  return status.conditions?.find(one => one.type === 'Ready')?.status === 'True';
}

// Everything but heartbeats; what others write into the status is not ours to compare.
function fingerprint({
  capacity,
  allocatable,
  conditions = [],
  addresses,
  daemonEndpoints,
  nodeInfo,
  images,
  volumesInUse,
  runtimeHandlers,
  features,
  declaredFeatures = [],
}: NodeStatus): string {
  const sorted = (map: Readonly<Record<string, unknown>> = {}) =>
    Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([
    sorted(capacity),
    sorted(allocatable),
    addresses?.map(one => [one.type, one.address]),
    daemonEndpoints?.kubeletEndpoint?.Port,
    sorted(nodeInfo as never).filter(([, value]) => value !== ''),
    (images ?? []).map(one => [one.names, one.sizeBytes]),
    volumesInUse ?? [],
    (runtimeHandlers ?? []).map(one => [one.name ?? '', sorted({ ...one.features })]),
    sorted({ ...features }),
    declaredFeatures,
    conditions
      .filter(one => ['MemoryPressure', 'DiskPressure', 'PIDPressure', 'Ready'].includes(one.type))
      .map(one => [one.type, one.status, one.reason, one.message])
      .sort(),
  ]);
}
