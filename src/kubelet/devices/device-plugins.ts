/**
 * Device plugins of this node. One registers at `device-plugins/kubelet.sock`, naming its resource and its own socket beside it;
 * from then on it tells its devices by a stream. Invariant: a resource has at most one plugin, the one that registered last; when
 * its stream ends its devices count as ill, and after the patience they are forgotten. Who has which device: `device-allocations`.
 */

import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isExtendedResource } from '../../api/core/resource-validation.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { GRPC, GrpcClient, GrpcError, serveGrpc } from '../../csi/grpc.ts';
import { HEALTHY, PLUGIN_CALLS, REGISTRATION_CALLS, VERSION } from './messages.ts';

export type PluginClient = GrpcClient<typeof PLUGIN_CALLS>;

export interface DevicePlugin {
  readonly resource: string;
  readonly client: PluginClient;
  readonly options: { readonly preStartRequired: boolean; readonly getPreferredAllocationAvailable: boolean };
}

/** Devices of one resource as its plugin last told them. */
interface Offer {
  plugin: DevicePlugin | undefined;
  /** Health by device. */
  devices: ReadonlyMap<string, boolean>;
  goneMs: number | undefined;
  readonly stop: AbortController;
}

const SOCKET = 'kubelet.sock';
/** What a resource without its plugin is still shown for. */
const PATIENCE_MS = 300_000;
const CALL_MS_MAX = 10_000;

export interface DevicePluginsOptions {
  readonly rootDir: string;
  /** Resources that devices were given of before this kubelet started: shown as none until their plugin is back. */
  readonly known: Iterable<string>;
  /** Capacity or health has changed. */
  changed(): void;
  readonly clock: Clock;
  readonly log: Logger;
}

export class DevicePlugins {
  readonly #options: DevicePluginsOptions;
  readonly #offers = new Map<string, Offer>();

  constructor(options: DevicePluginsOptions) {
    this.#options = options;
    for (const resource of options.known)
      this.#offers.set(resource, {
        plugin: undefined,
        devices: new Map(),
        goneMs: options.clock.monotonic(),
        stop: new AbortController(),
      });
  }
  get folder(): string {
    return join(this.#options.rootDir, 'device-plugins');
  }
  /** Resources that plugins offer. */
  get names(): readonly string[] {
    return [...this.#offers.keys()];
  }
  has(resource: string): boolean {
    return this.#offers.has(resource);
  }
  plugin(resource: string): DevicePlugin | undefined {
    return this.#offers.get(resource)?.plugin;
  }
  healthy(resource: string): readonly string[] {
    const { devices = new Map<string, boolean>() } = this.#offers.get(resource) ?? {};
    return [...devices].filter(([, isHealthy]) => isHealthy).map(([id]) => id);
  }
  /** As a container's status tells it: unknown where no plugin tells of the device. */
  health(resource: string, id: string): 'Healthy' | 'Unhealthy' | 'Unknown' {
    const isHealthy = this.#offers.get(resource)?.devices.get(id);
    return isHealthy === undefined ? 'Unknown' : isHealthy ? 'Healthy' : 'Unhealthy';
  }
  /** For the node's status, as quantities. */
  get resources(): { readonly capacity: Record<string, string>; readonly allocatable: Record<string, string> } {
    const capacity: Record<string, string> = {};
    const allocatable: Record<string, string> = {};
    for (const [resource, { devices, goneMs }] of this.#offers) {
      if (goneMs !== undefined && this.#options.clock.monotonic() - goneMs > PATIENCE_MS) {
        this.#offers.delete(resource);
        continue;
      }
      capacity[resource] = String(devices.size);
      allocatable[resource] = String(this.healthy(resource).length);
    }
    return { capacity, allocatable };
  }

  async run(signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    mkdirSync(this.folder, { recursive: true, mode: 0o750 });
    // Plugins watch for this: they make their sockets anew and register again.
    for (const name of readdirSync(this.folder))
      if (statSync(join(this.folder, name), { throwIfNoEntry: false })?.isSocket())
        rmSync(join(this.folder, name), { force: true });
    const server = await serveGrpc<typeof REGISTRATION_CALLS>(
      join(this.folder, SOCKET),
      {
        register: request => {
          const { version, endpoint, resourceName: resource, options = {} } = request;
          if (version !== VERSION)
            throw new GrpcError(
              GRPC.INVALID_ARGUMENT,
              `requested API version "${version}" is not supported by kubelet. Supported version is ["${VERSION}"]`,
            );
          if (!isExtendedResource(resource))
            throw new GrpcError(GRPC.INVALID_ARGUMENT, `the ResourceName "${resource}" is invalid`);
          if (!endpoint || basename(endpoint) !== endpoint)
            throw new GrpcError(GRPC.INVALID_ARGUMENT, `the endpoint "${endpoint}" is not a name in ${this.folder}`);
          log.info('device plugin registered', { resource, endpoint });
          this.#offer(resource, { endpoint, options, signal });
          return {};
        },
      },
      REGISTRATION_CALLS,
    );
    await new Promise<void>(resolve => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await server.close();
    for (const { plugin, stop } of this.#offers.values()) {
      stop.abort();
      plugin?.client.close();
    }
  }

  #offer(
    resource: string,
    request: {
      readonly endpoint: string;
      readonly options: { readonly preStartRequired?: boolean; readonly getPreferredAllocationAvailable?: boolean };
      readonly signal: AbortSignal;
    },
  ): void {
    const before = this.#offers.get(resource);
    before?.stop.abort();
    before?.plugin?.client.close();
    const client: PluginClient = new GrpcClient(join(this.folder, request.endpoint), PLUGIN_CALLS);
    const { preStartRequired = false, getPreferredAllocationAvailable = false } = request.options;
    const offer: Offer = {
      plugin: { resource, client, options: { preStartRequired, getPreferredAllocationAvailable } },
      devices: before?.devices ?? new Map(),
      goneMs: undefined,
      stop: new AbortController(),
    };
    this.#offers.set(resource, offer);
    void this.#follow(resource, offer, AbortSignal.any([offer.stop.signal, request.signal]));
  }

  async #follow(resource: string, offer: Offer, signal: AbortSignal): Promise<void> {
    const { log, clock, changed } = this.#options;
    try {
      for await (const { devices } of offer.plugin!.client.stream('listAndWatch', {}, signal)) {
        offer.devices = new Map(devices.map(({ id = '', health }) => [id, health === HEALTHY]));
        changed();
      }
    } catch (error) {
      log.warn('device plugin is gone', { resource, error: messageOf(error) });
    }
    if (signal.aborted || this.#offers.get(resource) !== offer) return;
    offer.plugin?.client.close();
    offer.plugin = undefined;
    offer.goneMs = clock.monotonic();
    offer.devices = new Map([...offer.devices].map(([id]) => [id, false]));
    changed();
  }

  /** Calls with a bound: a plugin that hangs must not hold a pod for ever. */
  static readonly bound = { deadlineMs: CALL_MS_MAX } as const;
}
