/**
 * Drivers of dynamic resource allocation on this node. One registers by a socket in `plugins_registry` that answers who it is
 * (`DRAPlugin`) and where its own socket lies. Invariant: a driver is known while its registration socket is there; one that comes
 * anew takes the former's place. Sockets of other kinds of plugins are left to others. What a driver offered on this node (its
 * ResourceSlices) is taken back when it has been away for half a minute, so that no pod is sent here in vain.
 */

import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ResourceSlice } from '../../api/resource/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { RESOURCE_SLICES } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import { GrpcClient } from '../../csi/grpc.ts';
import { DRIVER_CALLS, type DriverCalls, type DriverVersion } from './claim-messages.ts';
import type { DeviceHealth } from './device-health.ts';

const TYPE = 'DRAPlugin';
const RESCAN_MS = 500;
const CALL_MS_MAX = 10_000;
/** As upstream: so long a driver may take to come back. */
const AWAY_MS_MAX = 30_000;

export type DriverClient = GrpcClient<DriverCalls>;

interface Registration {
  /** Of the socket's file. */
  readonly file: string;
  /** Undefined for plugins of another kind. */
  readonly name: string | undefined;
}

export class ClaimDrivers {
  readonly #folder: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #health: DeviceHealth | undefined;
  readonly #drivers = new Map<string, { readonly client: DriverClient; readonly gone: AbortController }>();
  readonly #registered = new Map<string, Registration>();
  readonly #transport: Transport;
  readonly #nodeName: string;
  /** When a driver was last there; of those that were never seen, when the kubelet began. */
  readonly #seenMs = new Map<string, number>();
  #beganMs = 0;
  #lookedMs = 0;

  constructor(options: {
    readonly rootDir: string;
    readonly nodeName: string;
    readonly transport: Transport;
    readonly health?: DeviceHealth;
    readonly clock: Clock;
    readonly log: Logger;
  }) {
    this.#nodeName = options.nodeName;
    this.#transport = options.transport;
    this.#health = options.health;
    this.#folder = join(options.rootDir, 'plugins_registry');
    this.#clock = options.clock;
    this.#log = options.log;
  }
  /** Throws upstream's message when it is not registered. */
  driver(name: string): DriverClient {
    const found = this.#drivers.get(name);
    if (!found) throw new Error(`DRA driver ${name} is not registered`);
    return found.client;
  }

  async run(signal: AbortSignal): Promise<void> {
    mkdirSync(this.#folder, { recursive: true, mode: 0o750 });
    this.#beganMs = this.#lookedMs = this.#clock.monotonic();
    while (!signal.aborted) {
      await this.#scan();
      const nowMs = this.#clock.monotonic();
      for (const name of this.#drivers.keys()) this.#seenMs.set(name, nowMs);
      if (nowMs - this.#lookedMs >= AWAY_MS_MAX) {
        this.#lookedMs = nowMs;
        await this.#takeBack(nowMs).catch(error =>
          this.#log.warn('what absent DRA drivers offered is not taken back yet', { error: messageOf(error) }),
        );
      }
      await this.#clock.sleep(RESCAN_MS, signal);
    }
    for (const name of [...this.#drivers.keys()]) this.#end(name);
  }

  async #takeBack(nowMs: number): Promise<void> {
    const of = RESOURCE_SLICES;
    const { items } = await this.#transport.list({ of }, { fieldSelector: `spec.nodeName=${this.#nodeName}` });
    for (const { metadata, spec } of items as ResourceSlice[]) {
      if (nowMs - (this.#seenMs.get(spec.driver) ?? this.#beganMs) < AWAY_MS_MAX) continue;
      this.#log.info('devices of an absent DRA driver are taken back', { driver: spec.driver, slice: metadata.name });
      await this.#transport.delete({ of, name: metadata.name });
    }
  }

  async #scan(): Promise<void> {
    const present = new Map<string, string>();
    for (const name of readdirSync(this.#folder)) {
      const stat = statSync(join(this.#folder, name), { throwIfNoEntry: false });
      if (stat?.isSocket()) present.set(name, `${stat.ino}:${stat.birthtimeMs}`);
    }
    for (const [socket, { file, name }] of [...this.#registered]) {
      if (present.get(socket) === file) continue;
      this.#registered.delete(socket);
      if (name === undefined || present.has(socket)) continue;
      this.#log.info('DRA driver is gone', { driver: name });
      this.#end(name);
    }
    for (const [socket, file] of present) {
      if (this.#registered.has(socket)) continue;
      try {
        this.#registered.set(socket, { file, name: await this.#register(join(this.#folder, socket)) });
      } catch (error) {
        this.#log.debug('DRA driver not registered yet', { socket, error: messageOf(error) });
      }
    }
  }

  #end(name: string): void {
    const found = this.#drivers.get(name);
    found?.gone.abort();
    found?.client.close();
    this.#drivers.delete(name);
  }

  async #register(socket: string): Promise<string | undefined> {
    const registration = new GrpcClient(socket);
    const options = { deadlineMs: CALL_MS_MAX };
    try {
      const { type, name, endpoint, supportedVersions } = await registration.call('registrationInfo', {}, options);
      if (type !== TYPE) return undefined;
      const version = (Object.keys(DRIVER_CALLS) as DriverVersion[]).find(one => supportedVersions.includes(one));
      if (!version) {
        const error = `supported versions ${supportedVersions.join(', ')}: none is of ${Object.keys(DRIVER_CALLS).join(', ')}`;
        await registration.call('registrationStatus', { pluginRegistered: false, error }, options);
        throw new Error(error);
      }
      this.#end(name);
      const client: DriverClient = new GrpcClient(endpoint || socket, DRIVER_CALLS[version]);
      const gone = new AbortController();
      this.#drivers.set(name, { client, gone });
      await registration.call('registrationStatus', { pluginRegistered: true, error: '' }, options);
      void this.#health?.follow(name, client, gone.signal);
      this.#log.info('DRA driver registered', { driver: name, endpoint, version });
      return name;
    } finally {
      registration.close();
    }
  }
}
