/**
 * How devices of resource claims are, as their drivers say on a stream (KEP-4680): for each driver the whole list, over and over. What
 * was not said again in time is not known any more, and neither is anything of a driver that is gone. A driver without the service is left alone.
 */

import type { ResourceHealth } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { GRPC, GrpcError } from '../../csi/grpc.ts';
import type { DriverClient } from './claim-drivers.ts';

const TIMEOUT_MS_DEFAULT = 30_000;
const AGAIN_MS = 5000;
const MESSAGE_LENGTH_MAX = 1024;

export type Health = Pick<ResourceHealth, 'health' | 'message'>;

interface Said {
  readonly health: string;
  readonly message: string;
  readonly untilMs: number;
}

/** By the numbers of the wire. */
const WORDS = ['Unknown', 'Healthy', 'Unhealthy'];
const UNKNOWN: Health = { health: 'Unknown' };

const keyOf = (pool: string, device: string): string => `${pool}/${device}`;

export class DeviceHealth {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #changed: (driver: string) => void;
  /** By driver, then by pool and device. */
  readonly #said = new Map<string, Map<string, Said>>();

  constructor(options: { readonly clock: Clock; readonly log: Logger; changed(driver: string): void }) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#changed = driver => options.changed(driver);
  }

  of(driver: string, pool: string, device: string): Health {
    const said = this.#said.get(driver)?.get(keyOf(pool, device));
    if (!said || said.untilMs < this.#clock.monotonic()) return UNKNOWN;
    return said.message === '' ? { health: said.health } : { health: said.health, message: said.message };
  }

  /** Listens to the driver until the signal aborts. */
  async follow(driver: string, client: DriverClient, signal: AbortSignal): Promise<void> {
    try {
      while (!signal.aborted && (await this.#listen(driver, client, signal))) await this.#clock.sleep(AGAIN_MS, signal);
    } finally {
      if (this.#said.delete(driver)) this.#changed(driver);
    }
  }

  /** False when the driver has no such stream. */
  async #listen(driver: string, client: DriverClient, signal: AbortSignal): Promise<boolean> {
    try {
      for await (const { devices } of client.stream('watchHealth', {}, signal)) this.#hear(driver, devices as Told[]);
    } catch (error) {
      if (error instanceof GrpcError && error.code === GRPC.UNIMPLEMENTED) return false;
      this.#log.debug('health of devices: stream ended', { driver, error: messageOf(error) });
    }
    return true;
  }

  #hear(driver: string, devices: readonly Told[]): void {
    const nowMs = this.#clock.monotonic();
    const before = this.#said.get(driver) ?? new Map<string, Said>();
    // Devices that are not in the list stay as they were until their time is over.
    const said = new Map([...before].filter(([, { untilMs }]) => untilMs >= nowMs));
    let isNew = said.size < before.size;
    for (const { device, health = 0, timeoutSeconds = 0, message = '' } of devices) {
      const key = keyOf(device?.poolName ?? '', device?.deviceName ?? '');
      const timeoutMs = timeoutSeconds > 0 ? timeoutSeconds * 1000 : TIMEOUT_MS_DEFAULT;
      const next = { health: WORDS[health] ?? 'Unknown', message: shortened(message), untilMs: nowMs + timeoutMs };
      const last = said.get(key);
      if (last?.health !== next.health || last.message !== next.message) isNew = true;
      said.set(key, next);
      // A driver that falls silent is noticed, too.
      this.#clock.after(timeoutMs + 1, () => this.#expire(driver, key, next), { background: true });
    }
    this.#said.set(driver, said);
    if (isNew) this.#changed(driver);
  }
  #expire(driver: string, key: string, said: Said): void {
    if (this.#said.get(driver)?.get(key) === said) this.#changed(driver);
  }
}

interface Told {
  readonly device?: { readonly poolName?: string; readonly deviceName?: string };
  readonly health?: number;
  readonly timeoutSeconds?: number;
  readonly message?: string;
}

function shortened(message: string): string {
  return message.length > MESSAGE_LENGTH_MAX ? `${message.slice(0, MESSAGE_LENGTH_MAX - 3)}...` : message;
}
