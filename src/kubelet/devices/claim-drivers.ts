/**
 * Drivers of dynamic resource allocation on this node. One registers by a socket in `plugins_registry` that answers who it is
 * (`DRAPlugin`) and where its own socket lies. Invariant: a driver is known while its registration socket is there; one that comes
 * anew takes the former's place. Sockets of other kinds of plugins are left to others.
 */

import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { GrpcClient } from '../../csi/grpc.ts';
import { DRIVER_CALLS, type DriverCalls, type DriverVersion } from './claim-messages.ts';

const TYPE = 'DRAPlugin';
const RESCAN_MS = 500;
const CALL_MS_MAX = 10_000;

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
  readonly #drivers = new Map<string, DriverClient>();
  readonly #registered = new Map<string, Registration>();

  constructor(options: { readonly rootDir: string; readonly clock: Clock; readonly log: Logger }) {
    this.#folder = join(options.rootDir, 'plugins_registry');
    this.#clock = options.clock;
    this.#log = options.log;
  }
  /** Throws upstream's message when it is not registered. */
  driver(name: string): DriverClient {
    const found = this.#drivers.get(name);
    if (!found) throw new Error(`DRA driver ${name} is not registered`);
    return found;
  }

  async run(signal: AbortSignal): Promise<void> {
    mkdirSync(this.#folder, { recursive: true, mode: 0o750 });
    while (!signal.aborted) {
      await this.#scan();
      await this.#clock.sleep(RESCAN_MS, signal);
    }
    for (const client of this.#drivers.values()) client.close();
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
      this.#drivers.get(name)?.close();
      this.#drivers.delete(name);
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
      this.#drivers.get(name)?.close();
      this.#drivers.set(name, new GrpcClient<DriverCalls>(endpoint || socket, DRIVER_CALLS[version]));
      await registration.call('registrationStatus', { pluginRegistered: true, error: '' }, options);
      this.#log.info('DRA driver registered', { driver: name, endpoint, version });
      return name;
    } finally {
      registration.close();
    }
  }
}
