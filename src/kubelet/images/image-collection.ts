/**
 * Removes images that nothing uses: when the disk of the image store is fuller than the high mark, the longest unused first until the
 * low mark is reached; and any that was unused for longer than the greatest age. Invariant: an image that a container or volume
 * uses, or that was seen here for less than the least age, stays.
 */

import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { tracedAnew } from '../../base/tracing/active.ts';
import { SCOPES, type Tracer } from '../../base/tracing/span.ts';
import { collected } from './image-metrics.ts';
import { type CollectionPolicy, readImageSettings } from './image-settings.ts';
import type { ImageStore, ListedImage } from './image-store.ts';
import type { PullRecords } from './pull-records.ts';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `10.0 GiB`, as upstream's events have it. */
function formatSize(bytes: number): string {
  const step = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), UNITS.length - 1);
  return step === 0 ? `${bytes} B` : `${(bytes / 2 ** (10 * step)).toFixed(1)} ${UNITS[step]}`;
}

export interface ImageCollectionOptions {
  readonly store: ImageStore;
  readonly records: PullRecords;
  /** Where `images.yaml` is. */
  readonly folder: string;
  /** Of the file system that holds the images. */
  disk(): { readonly capacityBytes: number; readonly availableBytes: number };
  /** Tells a warning of the node. */
  warn(reason: string, message: string): void;
  readonly tracer?: Tracer | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Sighting {
  readonly firstMs: number;
  usedMs: number;
}

const PERIOD_MS = 300_000;
/** Uses are noticed this often, so that what was used shortly is not taken for unused. */
const LOOK_MS = 30_000;

export class ImageCollection {
  readonly #options: ImageCollectionOptions;
  readonly #seen = new Map<string, Sighting>();
  #hasFailed = false;

  constructor(options: ImageCollectionOptions) {
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    let collectedMs = clock.monotonic();
    while (!signal.aborted) {
      try {
        this.#look();
        if (clock.monotonic() - collectedMs >= PERIOD_MS) {
          collectedMs = clock.monotonic();
          const { tracer } = this.#options;
          await tracedAnew(tracer, 'Images/GarbageCollect', { scope: SCOPES.images }, () => this.collect());
          this.#hasFailed = false;
        }
      } catch (error) {
        log.warn('images not collected', { error: messageOf(error) });
        // The first failure may pass by itself.
        if (this.#hasFailed) this.#options.warn('ImageGCFailed', messageOf(error));
        this.#hasFailed = true;
      }
      await clock.sleep(LOOK_MS, signal);
    }
  }

  /** One round. Rejects when less could be freed than was wanted. */
  async collect(): Promise<void> {
    const { folder, disk, warn, records, store } = this.#options;
    this.#look();
    const { collection } = await readImageSettings(folder);
    if (collection.ageMsMax > 0) this.#removeOld(collection);
    const { capacityBytes, availableBytes } = disk();
    if (capacityBytes === 0) {
      const message = 'invalid capacity 0 on image filesystem';
      warn('InvalidDiskCapacity', message);
      throw new Error(message);
    }
    const usedPercent = 100 - Math.floor((Math.min(availableBytes, capacityBytes) * 100) / capacityBytes);
    if (usedPercent >= collection.highPercent) {
      const wanted = Math.floor((capacityBytes * (100 - collection.lowPercent)) / 100) - availableBytes;
      const freed = this.free(wanted, collection);
      if (freed < wanted) {
        const message = `Insufficient free disk space on the node's image filesystem (${usedPercent}% of ${formatSize(capacityBytes)} used). Failed to free sufficient space by deleting unused images (freed ${freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.`;
        warn('FreeDiskSpaceFailed', message);
        throw new Error(message);
      }
    }
    records.retain(new Set(store.list().map(({ id }) => id)));
  }

  /** Removes all that nothing uses and that have been here for the least age. */
  async freeUnused(): Promise<void> {
    const { collection } = await readImageSettings(this.#options.folder);
    this.free(Number.POSITIVE_INFINITY, collection);
  }
  /** Removes unused images until so many bytes are free, and says how many were freed. All unused: `Infinity`. */
  free(bytes: number, { ageMsMin }: Pick<CollectionPolicy, 'ageMsMin'>): number {
    const nowMs = this.#options.clock.monotonic();
    let freed = 0;
    for (const image of this.#unused()) {
      if (freed >= bytes) break;
      if (nowMs - this.#seen.get(image.id)!.firstMs < ageMsMin) continue;
      if (!this.#remove(image)) continue;
      freed += image.sizeBytes;
      collected.add(1, 'space');
    }
    return freed;
  }

  #removeOld({ ageMsMax, ageMsMin }: CollectionPolicy): void {
    const nowMs = this.#options.clock.monotonic();
    for (const image of this.#unused()) {
      const { firstMs, usedMs } = this.#seen.get(image.id)!;
      if (nowMs - Math.max(usedMs, firstMs) > ageMsMax && nowMs - firstMs >= ageMsMin && this.#remove(image))
        collected.add(1, 'age');
    }
  }

  /** The longest unused first. */
  #unused(): ListedImage[] {
    const { store } = this.#options;
    const of = (image: ListedImage) => this.#seen.get(image.id)!;
    return this.#look()
      .filter(({ id }) => store.users(id).length === 0)
      .sort((a, b) => of(a).usedMs - of(b).usedMs || of(a).firstMs - of(b).firstMs);
  }

  #look(): ListedImage[] {
    const { store, clock } = this.#options;
    const nowMs = clock.monotonic();
    const images = store.list();
    const ids = new Set(images.map(({ id }) => id));
    for (const id of this.#seen.keys()) if (!ids.has(id)) this.#seen.delete(id);
    for (const { id } of images) {
      const known = this.#seen.get(id) ?? { firstMs: nowMs, usedMs: Number.NEGATIVE_INFINITY };
      if (store.users(id).length > 0) known.usedMs = nowMs;
      this.#seen.set(id, known);
    }
    return images;
  }

  #remove(image: ListedImage): boolean {
    const { store, log } = this.#options;
    try {
      store.remove(image.id);
      log.info('unused image removed', { image: image.references.join(' ') || image.id, bytes: image.sizeBytes });
      return true;
    } catch (error) {
      // A container has begun to use it just now.
      log.debug('image not removed', { image: image.id, error: messageOf(error) });
      return false;
    }
  }
}
