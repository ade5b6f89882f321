/** What the sidecars of a driver share, and how one runs: keys from informers' changes, worked off with retries until the signal aborts. */

import type { PersistentVolume } from '../api/core/v1.gen.ts';
import type { KubeObject } from '../api/meta.ts';
import type { Clock } from '../base/clock.ts';
import { isReason, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Client } from '../client/client.ts';
import type { EventRecorder } from '../client/event-recorder.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import type { ResourceId } from '../client/transport.ts';
import { WorkQueue } from '../client/work-queue.ts';
import type { GrpcClient } from '../csi/grpc.ts';

export interface SidecarContext {
  /** The driver's name. */
  readonly driver: string;
  readonly csi: GrpcClient;
  readonly client: Client;
  readonly informers: InformerFactory;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly log: Logger;
  /** Set when each node has a driver of its own that knows only its own volumes. */
  readonly nodeName?: string;
  /** Whether this driver knows the volume; default: all of the driver's name. */
  isOurs?(volume: PersistentVolume): boolean;
}

export interface Sidecar {
  readonly watches: readonly {
    readonly of: ResourceId;
    readonly keys: (object: KubeObject, isDeleted: boolean) => Iterable<string>;
  }[];
  /** A rejection is retried with back-off, a number is milliseconds until the next look. */
  reconcile(key: string, signal: AbortSignal): Promise<number | void>;
}

const WORKERS = 8;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 15_000;

export async function runSidecar(
  name: string,
  context: SidecarContext,
  sidecar: Sidecar,
  signal: AbortSignal,
): Promise<void> {
  const { informers, clock, log } = context;
  const queue = new WorkQueue({ clock, retryMsMin: RETRY_MS_MIN, retryMsMax: RETRY_MS_MAX });
  const synced = sidecar.watches.map(({ of, keys }) => {
    const informer: Informer<KubeObject> = informers.get(of);
    informer.onChange(change => {
      for (const key of keys((change.object ?? change.old)!, change.deleted)) queue.add(key);
    });
    return informer.synced;
  });
  const aborted = new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }));
  await Promise.race([Promise.all(synced), aborted]);
  if (signal.aborted) return;
  await queue.run(
    {
      workers: WORKERS,
      process: async key => {
        const laterMs = await sidecar.reconcile(key, signal);
        if (laterMs !== undefined) queue.addAfter(key, laterMs);
      },
      failed: (key, error) => {
        if (isReason(error, 'Conflict', 'NotFound', 'AlreadyExists'))
          log.debug(`${name} lost a race, retrying`, { key });
        else if (!signal.aborted)
          log.info(`${name} failed, retrying`, { driver: context.driver, key, error: messageOf(error) });
      },
    },
    signal,
  );
}
