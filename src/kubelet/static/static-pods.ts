/**
 * Static pods: a folder of manifests whose pods run as long as their files are there, and their mirrors in the API, by which
 * others see them. Invariant: the file decides. A mirror that is deleted comes back, one of an older file is replaced, one
 * without a file goes. A manifest that is wrong is told in the log and leaves the pod it had before running.
 */

import { mkdirSync, readdirSync, readFileSync, watch } from 'node:fs';
import { join } from 'node:path';
import type { Node, Pod } from '../../api/core/v1.gen.ts';
import { keyOf } from '../../api/meta.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { PODS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import { mirroredUid, mirrorOf, staticPod } from './manifest.ts';

/** Beside being told of changes. */
const RESCAN_MS = 10_000;
/** An editor writes a file in several steps. */
const SETTLE_MS = 50;
const FILE_BYTES_MAX = 1024 * 1024;

export interface StaticPodsOptions {
  readonly folder: string;
  readonly nodeName: string;
  readonly transport: Transport;
  /** Undefined until it is registered. */
  node(): Node | undefined;
  /** Pods of the API that are bound to this node. */
  bound(): Iterable<Pod>;
  started(pod: Pod): void;
  ended(pod: Pod): void;
  readonly clock: Clock;
  readonly log: Logger;
}

export class StaticPods {
  readonly #options: StaticPodsOptions;
  /** By file. */
  readonly #pods = new Map<string, Pod>();
  readonly #told = new Map<string, string>();
  #wake: () => void = () => {};

  constructor(options: StaticPodsOptions) {
    this.#options = options;
    mkdirSync(options.folder, { recursive: true, mode: 0o700 });
    this.#scan();
  }

  get uids(): readonly string[] {
    return [...this.#pods.values()].map(pod => pod.metadata.uid!);
  }
  /** A mirror has changed, or the node. */
  wake(): void {
    this.#wake();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { folder, clock, log } = this.#options;
    for (const pod of this.#pods.values()) this.#options.started(pod);
    const watcher = watch(folder, () => clock.after(SETTLE_MS, () => this.#wake(), { background: true }));
    try {
      while (!signal.aborted) {
        try {
          this.#scan();
          await this.#mirror();
        } catch (error) {
          log.debug('mirror pods not written', { error: messageOf(error) });
        }
        const rest = new AbortController();
        this.#wake = () => rest.abort();
        await clock.sleep(RESCAN_MS, AbortSignal.any([signal, rest.signal]));
      }
    } finally {
      watcher.close();
    }
  }

  #scan(): void {
    const { folder, nodeName, clock, log } = this.#options;
    const names = readdirSync(folder).filter(name => !name.startsWith('.') && !name.endsWith('~'));
    for (const name of names) {
      try {
        const text = readFileSync(join(folder, name), 'utf8');
        if (text.length > FILE_BYTES_MAX) throw new Error(`more than ${FILE_BYTES_MAX} bytes`);
        const pod = staticPod(text, { name: nodeName, seen: formatTime(clock.now()) });
        this.#told.delete(name);
        this.#set(name, pod);
      } catch (error) {
        const why = messageOf(error);
        if (this.#told.get(name) !== why)
          log.warn('a static pod is not started', { file: join(folder, name), error: why });
        this.#told.set(name, why);
      }
    }
    for (const [name, pod] of this.#pods) {
      if (names.includes(name)) continue;
      this.#pods.delete(name);
      this.#options.ended(pod);
    }
  }
  #set(name: string, pod: Pod): void {
    const before = this.#pods.get(name);
    if (before?.metadata.uid === pod.metadata.uid) return;
    const twin = [...this.#pods].find(([file, one]) => file !== name && keyOf(one) === keyOf(pod));
    if (twin) throw new Error(`${twin[0]} has a pod of that name already`);
    this.#pods.set(name, pod);
    if (before) this.#options.ended(before);
    this.#options.started(pod);
  }

  async #mirror(): Promise<void> {
    const { transport, nodeName } = this.#options;
    const node = this.#options.node();
    if (!node) return;
    const wanted = new Map([...this.#pods.values()].map(pod => [keyOf(pod), pod]));
    const present = new Set<string>();
    for (const mirror of this.#options.bound()) {
      const uid = mirroredUid(mirror);
      if (uid === undefined) continue;
      const { namespace, name, deletionTimestamp } = mirror.metadata;
      if (wanted.get(keyOf(mirror))?.metadata.uid === uid && !deletionTimestamp) {
        present.add(keyOf(mirror));
        continue;
      }
      await transport
        .delete(
          { of: PODS, namespace: namespace!, name },
          { gracePeriodSeconds: 0, preconditions: { uid: mirror.metadata.uid! } },
        )
        .catch(error => {
          if (!isReason(error, 'NotFound', 'Conflict')) throw error;
        });
    }
    for (const [key, pod] of wanted) {
      if (present.has(key)) continue;
      const mirror = mirrorOf(pod, { name: nodeName, uid: node.metadata.uid! });
      await transport.create({ of: PODS, namespace: pod.metadata.namespace! }, mirror).catch(error => {
        if (!isReason(error, 'AlreadyExists')) throw error;
      });
    }
  }
}
