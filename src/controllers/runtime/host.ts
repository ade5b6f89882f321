/**
 * Runs controllers over one shared informer factory: each has a work queue, workers and an event recorder of its own.
 * Invariant: no controller reconciles before the resources it watches have synced; nothing polls.
 */

import { splitKey } from '../../api/meta.ts';
import type { Clock } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import type { Random } from '../../base/random.ts';
import { Client } from '../../client/client.ts';
import { ApiEventRecorder } from '../../client/event-recorder.ts';
import type { InformerFactory } from '../../client/informer.ts';
import type { Transport } from '../../client/transport.ts';
import { WorkQueue } from '../../client/work-queue.ts';
import type { Controller, ControllerDefinition, ControllerSettings, ReconcileContext } from './controller.ts';

const WORKERS_DEFAULT = 5;
/** Those that upstream tells of, by its names; they may run in one of several managers there. */
const MANAGED: Readonly<Record<string, string>> = {
  cloudloadbalancer: 'service',
  cloudnode: 'cloud-node',
  cloudnodelifecycle: 'cloud-node-lifecycle',
  cloudroute: 'route',
  nodeipam: 'nodeipam',
};
const managed = metrics.gauge(
  'running_managed_controllers',
  'Indicates where instances of a controller are currently running',
  ['name', 'manager'],
);
const MANAGER = 'kube-controller-manager';

export interface ControllerHostOptions {
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly definitions: readonly ControllerDefinition[];
  readonly settings: ControllerSettings;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}

export class ControllerHost {
  readonly #options: ControllerHostOptions;
  /** Resolves when every controller has synced and works. */
  readonly ready: Promise<void>;
  /** Resolves after the signal aborted and the last reconcile has ended. */
  readonly done: Promise<void>;

  constructor(options: ControllerHostOptions) {
    this.#options = options;
    const starts = options.definitions.map(definition => this.#start(definition));
    this.ready = Promise.all(starts.map(start => start.ready)).then(() => undefined);
    this.done = Promise.all(starts.map(start => start.done)).then(() => undefined);
  }

  #start(definition: ControllerDefinition): { ready: Promise<void>; done: Promise<void> } {
    const { transport, informers, settings, clock, random, signal } = this.#options;
    const queue = new WorkQueue({ clock, name: definition.folder });
    const log = this.#options.log.with({ controller: definition.folder });
    const ctx: ReconcileContext = {
      transport,
      client: new Client(transport),
      informers,
      events: new ApiEventRecorder({ transport, component: definition.component, log, clock }),
      clock,
      random,
      log,
      signal,
      settings,
      enqueue: (key, delayMs = 0) => queue.addAfter(key, delayMs),
    };
    const controller = definition.create(ctx);
    const synced = controller.watches.map(({ of, keys }) => {
      const informer = informers.get(of);
      informer.onChange(change => {
        for (const key of keys(change)) queue.add(key);
      });
      return informer.synced;
    });
    const ready = Promise.race([Promise.all(synced).then(() => undefined), aborted(signal)]);
    const done = ready.then(() => {
      if (signal.aborted) return;
      controller.started?.(ctx);
      const name = MANAGED[definition.folder];
      if (name) managed.set(1, name, MANAGER);
      return this.#work(controller, ctx, queue).finally(() => {
        if (name) managed.set(0, name, MANAGER);
      });
    });
    return { ready, done };
  }

  #work(controller: Controller, ctx: ReconcileContext, queue: WorkQueue): Promise<void> {
    const duration = metrics.histogram('coxswain_reconcile_seconds', 'Time of one reconcile.', RECONCILE_SECONDS, [
      'controller',
    ]);
    return queue.run(
      {
        workers: controller.workers ?? WORKERS_DEFAULT,
        process: async key => {
          const startMs = ctx.clock.monotonic();
          try {
            const result = await controller.reconcile(splitKey(key), ctx);
            if (result) queue.addAfter(key, result.requeueAfterMs);
          } finally {
            duration.observe((ctx.clock.monotonic() - startMs) / 1000, controller.name);
          }
        },
        failed: (key, error) => {
          // Somebody else wrote first: the informer will catch up, and the retry sees the newer object.
          if (isReason(error, 'Conflict', 'NotFound', 'AlreadyExists'))
            ctx.log.debug('reconcile lost a race, retrying', { key, error: messageOf(error) });
          else if (!ctx.signal.aborted) ctx.log.warn('reconcile failed, retrying', { key, error: messageOf(error) });
        },
      },
      ctx.signal,
    );
  }
}

const RECONCILE_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5];

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
