/**
 * Which container of the node has which devices of the plugins, and what the plugins said these bring into it. Invariant: a device
 * belongs to one container of one pod at a time, save that an init container's are given on to those after it; what was given is
 * on disk before the pod is admitted, so a kubelet that comes later knows it.
 */

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { isExtendedResource } from '../../api/core/resource-validation.ts';
import type { Container, Pod, ResourceStatus } from '../../api/core/v1.gen.ts';
import { isClaimed } from '../../api/machinery/extended-resources.ts';
import { quantityValue } from '../../api/machinery/quantity.ts';
import type { Refusal } from '../pods/refusals.ts';
import { isSidecar } from '../pods/resources.ts';
import { cdiEdits, type DeviceEdits } from './cdi.ts';
import { DevicePlugins } from './device-plugins.ts';

interface Entry {
  readonly podUid: string;
  readonly container: string;
  readonly resource: string;
  readonly ids: readonly string[];
  readonly edits: DeviceEdits;
  readonly cdi: readonly string[];
}

export class DeviceAllocations {
  readonly #path: string;
  #entries: Entry[];
  #plugins!: DevicePlugins;
  /** One pod at a time: two must not choose the same device while a plugin answers. */
  #turn: Promise<unknown> = Promise.resolve();

  /** `path`: the file that keeps them. */
  constructor(path: string) {
    this.#path = path;
    this.#entries = load(path);
  }
  connect(plugins: DevicePlugins): void {
    this.#plugins = plugins;
  }
  get resources(): ReadonlySet<string> {
    return new Set(this.#entries.map(({ resource }) => resource));
  }
  ofContainer(podUid: string, container: string): readonly Entry[] {
    return this.#entries.filter(one => one.podUid === podUid && one.container === container);
  }
  /** For the container's status. */
  health(podUid: string, container: string): ResourceStatus[] {
    return this.ofContainer(podUid, container).map(({ resource, ids }) => ({
      name: resource,
      resources: ids.map(resourceID => ({ resourceID, health: this.#plugins.health(resource, resourceID) })),
    }));
  }
  /** Pods that have devices. */
  get users(): ReadonlySet<string> {
    return new Set(this.#entries.map(({ podUid }) => podUid));
  }

  /** Gives the pod all devices that its containers ask for, or says why it cannot have them; then it gets none. */
  admit(pod: Pod): Promise<Refusal | undefined> {
    const asked = [...(pod.spec.initContainers ?? []), ...pod.spec.containers].some(
      container => wishes(container).length > 0,
    );
    if (!asked) return Promise.resolve(undefined);
    const turn = this.#turn.then(() => this.#admit(pod));
    this.#turn = turn.catch(() => {});
    return turn;
  }
  async #admit(pod: Pod): Promise<Refusal | undefined> {
    const podUid = pod.metadata.uid!;
    const mine: Entry[] = [];
    const reusable = new Map<string, Set<string>>();
    try {
      for (const container of [...(pod.spec.initContainers ?? []), ...pod.spec.containers]) {
        const isInit = pod.spec.initContainers?.includes(container) === true && !isSidecar(container);
        for (const [resource, count] of wishes(container)) {
          // Advertised by someone else on the node's object, or of a device class: nothing is to be done for it here.
          if (!this.#plugins.has(resource) || isClaimed(pod, container.name, resource)) continue;
          const again = reusable.get(resource) ?? new Set();
          reusable.set(resource, again);
          const ids = await this.#choose(resource, { count, reusable: again, mine });
          const given = await this.#allocate(resource, ids);
          mine.push({ podUid, container: container.name, resource, ids, ...given });
          for (const id of ids) {
            if (isInit) again.add(id);
            else again.delete(id);
          }
        }
      }
    } catch (error) {
      return {
        reason: 'UnexpectedAdmissionError',
        message: `Allocate failed due to ${(error as Error).message}, which is unexpected`,
      };
    }
    if (mine.length === 0) return undefined;
    this.#entries = [...this.#entries.filter(one => one.podUid !== podUid), ...mine];
    this.#save();
    return undefined;
  }

  async #choose(
    resource: string,
    {
      count,
      reusable,
      mine,
    }: { readonly count: number; readonly reusable: ReadonlySet<string>; readonly mine: readonly Entry[] },
  ): Promise<string[]> {
    const plugin = this.#plugins.plugin(resource);
    const healthy = this.#plugins.healthy(resource);
    if (!plugin || healthy.length === 0)
      throw new Error(`no healthy devices present; cannot allocate unhealthy devices ${resource}`);
    const taken = new Set(
      [...this.#entries, ...mine].filter(one => one.resource === resource).flatMap(({ ids }) => ids),
    );
    const again = healthy.filter(id => reusable.has(id)).slice(0, count);
    const free = healthy.filter(id => !taken.has(id));
    const missing = count - again.length;
    if (free.length < missing)
      throw new Error(
        `requested number of devices unavailable for ${resource}. Requested: ${missing}, Available: ${free.length}`,
      );
    if (missing === 0) return again;
    if (plugin.options.getPreferredAllocationAvailable && free.length > missing) {
      const request = {
        availableDeviceIds: [...again, ...free],
        mustIncludeDeviceIds: again,
        allocationSize: count,
      };
      const { containerResponses } = await plugin.client.call(
        'getPreferredAllocation',
        { containerRequests: [request] },
        DevicePlugins.bound,
      );
      // A wish only: what it names beyond the available ones does not count.
      const preferred = (containerResponses[0]?.deviceIds ?? []).filter(id => free.includes(id));
      return [...new Set([...again, ...preferred, ...free])].slice(0, count);
    }
    return [...again, ...free.slice(0, missing)];
  }

  async #allocate(resource: string, ids: readonly string[]): Promise<Pick<Entry, 'edits' | 'cdi'>> {
    const { containerResponses } = await this.#plugins
      .plugin(resource)!
      .client.call('allocate', { containerRequests: [{ deviceIds: ids }] }, DevicePlugins.bound);
    const [answer] = containerResponses;
    if (!answer) throw new Error(`no containers return in allocation response for ${resource}`);
    return {
      cdi: (answer.cdiDevices ?? []).map(({ name = '' }) => name),
      edits: {
        env: Object.entries(answer.envs ?? {}),
        mounts: (answer.mounts ?? []).map(({ hostPath = '', containerPath = '', readOnly = false }) => ({
          hostPath,
          containerPath,
          readOnly,
          propagation: 'private',
        })),
        devices: (answer.devices ?? []).map(({ hostPath = '', containerPath = '', permissions = '' }) => ({
          hostPath,
          containerPath,
          isReadOnly: !permissions.includes('w'),
        })),
      },
    };
  }

  /** What a container's devices bring into it, its plugins having been told that it starts; with other `cdi` devices. */
  async edits(podUid: string, container: string, cdi: readonly string[] = []): Promise<DeviceEdits> {
    const entries = this.ofContainer(podUid, container);
    for (const { resource, ids } of entries) {
      const plugin = this.#plugins.plugin(resource);
      if (plugin?.options.preStartRequired)
        await plugin.client.call('preStartContainer', { deviceIds: ids }, DevicePlugins.bound);
    }
    const all = [
      ...entries.map(({ edits }) => edits),
      cdiEdits([...new Set([...entries.flatMap(one => one.cdi), ...cdi])]),
    ];
    return {
      env: all.flatMap(({ env }) => env),
      mounts: all.flatMap(({ mounts }) => mounts),
      devices: all.flatMap(({ devices }) => devices),
      hooks: all.flatMap(({ hooks = [] }) => hooks),
      additionalGids: all.flatMap(({ additionalGids = [] }) => additionalGids),
    };
  }

  release(podUid: string): void {
    this.retain(uid => uid !== podUid);
  }
  /** Frees the devices of all other pods. */
  retain(isKept: (podUid: string) => boolean): void {
    const left = this.#entries.filter(one => isKept(one.podUid));
    if (left.length === this.#entries.length) return;
    this.#entries = left;
    this.#save();
  }
  #save(): void {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o750 });
    writeFileSync(`${this.#path}.new`, JSON.stringify(this.#entries), { mode: 0o600 });
    renameSync(`${this.#path}.new`, this.#path);
  }
}

function wishes({ resources }: Container): [resource: string, count: number][] {
  return Object.entries(resources?.limits ?? {})
    .filter(([name, amount]) => isExtendedResource(name) && quantityValue(amount) > 0)
    .map(([name, amount]) => [name, quantityValue(amount)]);
}

function load(path: string): Entry[] {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Entry[];
  } catch {
    return [];
  }
}
