/**
 * CSI drivers of this node. One registers by a socket in `plugins_registry` that answers who it is and where its own socket lies;
 * the CSINode object and the node's labels then say that it is there. Invariant: `driver` gives only drivers whose registration is
 * in the CSINode object; when the registration socket goes, so does the driver.
 */

import { type FSWatcher, mkdirSync, readdirSync, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import type { Node } from '../../../api/core/v1.gen.ts';
import { MIGRATED_DRIVERS } from '../../../api/machinery/csi-migration.ts';
import type { CSIDriver, CSINode, CSINodeDriver } from '../../../api/storage/v1.gen.ts';
import type { Clock } from '../../../base/clock.ts';
import { isReason, messageOf } from '../../../base/errors.ts';
import type { Logger } from '../../../base/log.ts';
import type { Informer, InformerFactory } from '../../../client/informer.ts';
import { CSI_DRIVERS, CSI_NODES, NODES } from '../../../client/resources.ts';
import type { Transport } from '../../../client/transport.ts';
import { rpcTypes } from '../../../csi/calls.ts';
import { GRPC, GrpcClient, GrpcError } from '../../../csi/grpc.ts';
import { DriverClient } from '../operation-metrics.ts';

export interface CsiDriver {
  readonly name: string;
  readonly client: GrpcClient;
  /** NODE_RPCS. */
  readonly rpcs: ReadonlySet<number>;
}

const RESCAN_MS = 10_000;
const RETRY_MS = 500;
const CALL_MS_MAX = 10_000;
const NODE_ID_ANNOTATION = 'csi.volume.kubernetes.io/nodeid';
const MIGRATED_ANNOTATION = 'storage.alpha.kubernetes.io/migrated-plugins';

export interface CsiDriversOptions {
  readonly nodeName: string;
  readonly rootDir: string;
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What a driver says of its node. */
interface NodeFacts {
  readonly driver: CSINodeDriver;
  readonly topology: Readonly<Record<string, string>>;
}

interface Registration {
  /** Of the socket's file: a number alone may be given again at once. */
  readonly file: string;
  readonly name: string;
}

export class CsiDrivers {
  readonly #options: CsiDriversOptions;
  readonly #drivers = new Map<string, CsiDriver>();
  /** By the registration socket's file name. */
  readonly #registered = new Map<string, Registration>();
  readonly #listeners: ((driver: string) => void)[] = [];
  #objects: Informer<CSIDriver> | undefined;
  #wake: (() => void) | undefined;
  /** When each driver was last asked how many volumes the node takes. */
  readonly #askedMs = new Map<string, number>();

  constructor(options: CsiDriversOptions) {
    this.#options = options;
  }
  get folder(): string {
    return join(this.#options.rootDir, 'plugins_registry');
  }
  /** Throws upstream's message when it is not registered. */
  driver(name: string): CsiDriver {
    const found = this.#drivers.get(name);
    if (!found) throw new Error(`driver name ${name} not found in the list of registered CSI drivers`);
    return found;
  }
  /** The driver's CSIDriver object, if there is one. */
  async object(name: string): Promise<CSIDriver | undefined> {
    this.#objects ??= this.#options.informers.get<CSIDriver>(CSI_DRIVERS);
    await this.#objects.synced;
    return this.#objects.get(name);
  }
  /** Without asking: of drivers whose object was asked for before. */
  knownObject(name: string): CSIDriver | undefined {
    return this.#objects?.get(name);
  }
  onRegistered(listener: (driver: string) => void): void {
    this.#listeners.push(listener);
  }
  /** Asks the driver how many volumes the node takes now, and writes it down. False for one that does not want to be asked. */
  async refreshLimit(name: string): Promise<boolean> {
    if (((await this.object(name))?.spec.nodeAllocatableUpdatePeriodSeconds ?? 0) === 0) return false;
    const { client } = this.driver(name);
    this.#askedMs.set(name, this.#options.clock.monotonic());
    const { driver } = await nodeFacts(name, client);
    await this.#writeNode({ add: driver });
    return true;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    mkdirSync(this.folder, { recursive: true, mode: 0o750 });
    let watcher: FSWatcher | undefined;
    try {
      watcher = watch(this.folder, { persistent: false }, () => this.#wake?.());
      watcher.on('error', error => log.debug('folder of registrations is not watched', { error: messageOf(error) }));
    } catch (error) {
      log.debug('folder of registrations is not watched', { error: messageOf(error) });
    }
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
    let isWritten = false;
    while (!signal.aborted) {
      let isDone = await this.#scan();
      if (!isWritten && this.#registered.size === 0)
        isWritten = await this.#writeNode(undefined).then(
          () => true,
          error => {
            log.debug('CSINode not written yet', { error: messageOf(error) });
            return false;
          },
        );
      else isWritten = true;
      isDone &&= isWritten;
      const dueMs = await this.#refreshLimits();
      await new Promise<void>(resolve => {
        this.#wake = resolve;
        void clock.sleep(isDone ? Math.min(RESCAN_MS, dueMs) : RETRY_MS, signal).then(resolve);
      });
    }
    watcher?.close();
    for (const { client } of this.#drivers.values()) client.close();
  }

  /** Of the drivers whose turn it is; the time until the next one's. */
  async #refreshLimits(): Promise<number> {
    const { clock, log } = this.#options;
    let dueMs = Number.POSITIVE_INFINITY;
    for (const name of this.#drivers.keys()) {
      const periodMs = Number((await this.object(name))?.spec.nodeAllocatableUpdatePeriodSeconds ?? 0) * 1000;
      if (periodMs === 0) continue;
      const leftMs = (this.#askedMs.get(name) ?? 0) + periodMs - clock.monotonic();
      if (leftMs > 0) {
        dueMs = Math.min(dueMs, leftMs);
        continue;
      }
      dueMs = Math.min(dueMs, periodMs);
      await this.refreshLimit(name).catch(error =>
        log.warn('how many volumes the node takes is not known anew', { driver: name, error: messageOf(error) }),
      );
    }
    return dueMs;
  }

  /** False when something is to be tried again soon. */
  async #scan(): Promise<boolean> {
    const { log } = this.#options;
    const present = new Map<string, string>();
    for (const name of readdirSync(this.folder)) {
      const stat = statSync(join(this.folder, name), { throwIfNoEntry: false });
      if (stat?.isSocket()) present.set(name, `${stat.ino}:${stat.birthtimeMs}`);
    }
    let isDone = true;
    for (const [file, { name, file: known }] of [...this.#registered]) {
      if (present.get(file) === known) continue;
      this.#registered.delete(file);
      if (present.has(file)) continue;
      log.info('CSI driver is gone', { driver: name });
      this.#drivers.get(name)?.client.close();
      this.#drivers.delete(name);
      await this.#writeNode({ remove: name }).catch(error =>
        log.warn('CSINode still names a driver that is gone', { driver: name, error: messageOf(error) }),
      );
    }
    for (const [file, identity] of present) {
      if (this.#registered.has(file)) continue;
      try {
        const name = await this.#register(join(this.folder, file));
        this.#registered.set(file, { file: identity, name });
        for (const listener of this.#listeners) listener(name);
      } catch (error) {
        isDone = false;
        log.debug('CSI driver not registered yet', { socket: file, error: messageOf(error) });
      }
    }
    return isDone;
  }

  async #register(socket: string): Promise<string> {
    const { log } = this.#options;
    const registration = new GrpcClient(socket);
    const options = { deadlineMs: CALL_MS_MAX };
    try {
      const { type, name, endpoint, supportedVersions } = await registration.call('registrationInfo', {}, options);
      if (type !== 'CSIPlugin') throw new Error(`plugins of type ${JSON.stringify(type)} are not supported`);
      try {
        if (!supportedVersions.some(version => /^v?1\./.test(version)))
          throw new Error(`supported versions ${supportedVersions.join(', ')}: none is 1.x`);
        const client = new DriverClient(name, endpoint || socket, this.#options.clock);
        const { driver, topology } = await nodeFacts(name, client);
        const rpcs = rpcTypes(await client.call('nodeGetCapabilities', {}, options));
        await this.#labelNode(driver, topology);
        await this.#writeNode({ add: driver });
        this.#askedMs.set(name, this.#options.clock.monotonic());
        this.#drivers.get(name)?.client.close();
        this.#drivers.set(name, { name, client, rpcs });
        log.info('CSI driver registered', { driver: name, endpoint });
      } catch (error) {
        await registration.call('registrationStatus', { pluginRegistered: false, error: messageOf(error) }, options);
        throw error;
      }
      await registration.call('registrationStatus', { pluginRegistered: true, error: '' }, options).catch(error => {
        if (!(error instanceof GrpcError && error.code === GRPC.UNIMPLEMENTED)) throw error;
      });
      return name;
    } finally {
      registration.close();
    }
  }

  async #writeNode(change: { readonly add: CSINodeDriver } | { readonly remove: string } | undefined): Promise<void> {
    const { nodeName, transport } = this.#options;
    const target = { of: CSI_NODES, name: nodeName };
    for (let tries = 0; ; tries++) {
      let current: CSINode | undefined;
      try {
        current = (await transport.get(target)) as CSINode;
      } catch (error) {
        if (!isReason(error, 'NotFound')) throw error;
      }
      const changed = change && ('add' in change ? change.add.name : change.remove);
      const others = (current?.spec.drivers ?? []).filter(({ name }) => name !== changed);
      const drivers = change && 'add' in change ? [...others, change.add] : others;
      try {
        if (!current) await transport.create({ of: CSI_NODES }, await this.#newNode(drivers));
        else if (JSON.stringify(drivers) !== JSON.stringify(current.spec.drivers ?? []))
          await transport.update(target, { ...current, spec: { ...current.spec, drivers } } as CSINode);
        return;
      } catch (error) {
        if (tries >= 3 || !isReason(error, 'Conflict', 'AlreadyExists', 'NotFound')) throw error;
      }
    }
  }
  async #newNode(drivers: readonly CSINodeDriver[]): Promise<CSINode> {
    const { nodeName, transport } = this.#options;
    // Deleted with its node.
    const { metadata } = await transport.get({ of: NODES, name: nodeName });
    return {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'CSINode',
      metadata: {
        name: nodeName,
        annotations: { [MIGRATED_ANNOTATION]: Object.keys(MIGRATED_DRIVERS).sort().join(',') },
        ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: nodeName, uid: metadata.uid! }],
      },
      spec: { drivers: [...drivers] },
    };
  }
  async #labelNode({ name, nodeID }: CSINodeDriver, topology: Readonly<Record<string, string>>): Promise<void> {
    const { nodeName, transport } = this.#options;
    const { metadata } = (await transport.get({ of: NODES, name: nodeName })) as Node;
    const ids = JSON.parse(metadata.annotations?.[NODE_ID_ANNOTATION] ?? '{}') as Record<string, string>;
    for (const [key, value] of Object.entries(topology)) {
      const known = metadata.labels?.[key];
      if (known !== undefined && known !== value)
        throw new Error(
          `detected topology value collision: driver reported ${key}:${value} but existing label is ${key}:${known}`,
        );
    }
    const labels = Object.entries(topology).filter(([key]) => metadata.labels?.[key] === undefined);
    if (labels.length === 0 && ids[name] === nodeID) return;
    await transport.patch(
      { of: NODES, name: nodeName },
      {
        metadata: {
          annotations: { [NODE_ID_ANNOTATION]: JSON.stringify({ ...ids, [name]: nodeID }) },
          ...(labels.length ? { labels: Object.fromEntries(labels) } : {}),
        },
      },
      'application/merge-patch+json',
    );
  }
}

async function nodeFacts(name: string, client: GrpcClient): Promise<NodeFacts> {
  const info = await client.call('nodeGetInfo', {}, { deadlineMs: CALL_MS_MAX });
  const topology = info.accessibleTopology?.segments ?? {};
  const driver: CSINodeDriver = {
    name,
    nodeID: info.nodeId,
    topologyKeys: Object.keys(topology).sort(),
    ...(info.maxVolumesPerNode > 0 ? { allocatable: { count: info.maxVolumesPerNode } } : {}),
  };
  return { driver, topology };
}
