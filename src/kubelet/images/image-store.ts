/**
 * The images of this machine, in a folder that several processes share (the CLI loads, agents read). Content-addressed:
 *   layers/<name>/            one unpacked layer, ready for overlayfs; appears whole by rename
 *   images/<sha256>.json      what is known of an image, written once
 *   names/<encoded name>      holds the image id that a name stands for, replaced by rename
 *   users/<sha256>/<id>       a container or volume that uses the image
 *   partial/<name>-<digest>   what has come of a layer's blob, for a pull that was killed
 *   locks/<name>              held by whoever makes the layer: all others wait for it instead of fetching it too
 *   claims/<id>               layers that an image which is being added needs: nobody removes them meanwhile
 * Invariant: what can be seen is complete. It refuses to remove an image that is used, and layers whose name is no digest.
 */

import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  createReadStream,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { tryLockFile } from '../../sys/file-lock.ts';
import { type ImageConfig, type ImageFile, openArchive } from './archive.ts';
import { unpackLayer } from './layer.ts';
import { PartialBlob } from './partial-blob.ts';
import { formatReference, parseReference } from './reference.ts';

export interface Image {
  /** `sha256:…` of the config file. */
  readonly id: string;
  /** Folder names under `layers/`, bottom first. */
  readonly layers: readonly string[];
  readonly config: ImageConfig;
  readonly sizeBytes: number;
  readonly created: string | undefined;
  readonly architecture: string | undefined;
  readonly manifestDigest: string | undefined;
}

export interface ListedImage extends Image {
  /** Normalised names, sorted. */
  readonly references: readonly string[];
}

/** An image to be added. */
export interface NewImage {
  /** Bytes of the config file; their SHA-256 is the image's id. */
  readonly config: Buffer;
  readonly layers: readonly {
    readonly diffId: string;
    /** The layer's tar, not compressed; asked for only when the layer is not there yet. */
    open(): AsyncIterable<Buffer>;
    onDone?(): void;
  }[];
  /** Normalised names. */
  readonly references: readonly string[];
  readonly manifestDigest: string | undefined;
  /** Ends the wait for layers that others make; not the work itself. */
  readonly signal?: AbortSignal;
}

/** 80 bits of the digest: short, so that 127 layers fit one overlay mount's options. */
const LAYER_NAME_DIGITS = 20;
const SCRATCH_AGE_MS_MAX = 3_600_000;
/** How often a layer that somebody else makes is looked for. */
const LOCK_CHECK_MS = 50;
/** Layers of an image that are unpacked at a time, as containerd fetches them. */
const LAYERS_AT_ONCE = 3;
/** What unpacking always leaves free: a tenth of the disk, but no more than this. */
const DISK_LEFT_BYTES_MAX = 1 << 30;
const DISK_LEFT_SHARE = 0.1;
const DIFF_ID = /^sha256:[0-9a-f]{64}$/;

export class ImageStore {
  readonly #dir: string;
  readonly #known = new Map<string, Image>();

  constructor(dir: string) {
    this.#dir = dir;
    for (const folder of ['images', 'names', 'users', 'claims'])
      mkdirSync(join(dir, folder), { recursive: true, mode: 0o711 });
    // Layers hold set-id programs and devices of strangers: no other user of the machine may reach them.
    for (const folder of ['layers', 'scratch', 'partial', 'locks']) {
      mkdirSync(join(dir, folder), { recursive: true, mode: 0o700 });
      chmodSync(join(dir, folder), 0o700);
    }
  }
  /** Folder that holds every layer's folder. */
  get layersDir(): string {
    return join(this.#dir, 'layers');
  }

  /** Adds the images of an archive (a file's path or its bytes as a stream). Concurrent loads of one image are harmless. */
  async load(source: string | AsyncIterable<Buffer>): Promise<ListedImage[]> {
    this.#removeOldScratch();
    const scratch = this.#scratch();
    mkdirSync(scratch);
    try {
      const stream =
        typeof source === 'string'
          ? (createReadStream(source, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>)
          : source;
      const loaded: ListedImage[] = [];
      for (const image of await openArchive(stream, scratch)) loaded.push(await this.add(image));
      return loaded;
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  }

  /** Adds an image; its names stand for it once all of it is there. Concurrent additions of one image are harmless. */
  async add(fresh: NewImage): Promise<ListedImage> {
    this.#removeOldScratch();
    const file = JSON.parse(fresh.config.toString('utf8')) as ImageFile;
    const hex = createHash('sha256').update(fresh.config).digest('hex');
    const odd = fresh.layers.find(({ diffId }) => !DIFF_ID.test(diffId));
    if (odd) throw new Error(`layer has no proper digest: ${JSON.stringify(odd.diffId)}`);
    const layers = fresh.layers.map(({ diffId }) => layerName(diffId));
    const claim = join(this.#dir, 'claims', randomBytes(8).toString('hex'));
    writeFileSync(claim, JSON.stringify(layers));
    try {
      // The same layer twice in an image is unpacked once.
      const distinct = new Map(fresh.layers.map(layer => [layer.diffId, layer]));
      const sizes = new Map<string, number>();
      await eachOf([...distinct.values()], LAYERS_AT_ONCE, async layer => {
        sizes.set(layer.diffId, await this.#addLayer(layer, claim, fresh.signal));
        utimesSync(claim, systemClock.now() / 1000, systemClock.now() / 1000);
        layer.onDone?.();
      });
      const image: Image = {
        id: `sha256:${hex}`,
        layers,
        config: file.config ?? {},
        sizeBytes: [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0),
        created: file.created,
        architecture: file.architecture,
        manifestDigest: fresh.manifestDigest,
      };
      this.#known.delete(hex);
      this.#write(join(this.#dir, 'images', `${hex}.json`), JSON.stringify(image));
      for (const reference of fresh.references) this.tag(image.id, reference);
      return { ...image, references: [...fresh.references].sort() };
    } finally {
      rmSync(claim, { force: true });
    }
  }

  /** Of an image that is being added, whose layer's lock the caller holds. */
  partial(diffId: string, blob: { readonly digest: string; readonly size: number }): PartialBlob {
    const path = join(this.#dir, 'partial', `${layerName(diffId)}-${blob.digest.replace(':', '-')}`);
    return new PartialBlob(path, { size: blob.size, spareBytes: () => this.#spareBytes() });
  }

  async #addLayer(
    { diffId, open }: NewImage['layers'][number],
    claim: string,
    signal: AbortSignal | undefined,
  ): Promise<number> {
    const name = layerName(diffId);
    const final = join(this.layersDir, name);
    const sizeFile = `${final}.size`;
    const present = () =>
      existsSync(final) && existsSync(sizeFile) ? Number(readFileSync(sizeFile, 'utf8')) : undefined;
    for (;;) {
      const size = present();
      if (size !== undefined) return size;
      const release = tryLockFile(join(this.#dir, 'locks', name));
      if (!release) {
        await systemClock.sleep(LOCK_CHECK_MS, signal);
        signal?.throwIfAborted();
        utimesSync(claim, systemClock.now() / 1000, systemClock.now() / 1000);
        continue;
      }
      try {
        return present() ?? (await this.#makeLayer({ diffId, open }, final));
      } finally {
        release();
      }
    }
  }

  async #makeLayer(
    { diffId, open }: Pick<NewImage['layers'][number], 'diffId' | 'open'>,
    final: string,
  ): Promise<number> {
    const work = this.#scratch();
    mkdirSync(work);
    try {
      const hash = createHash('sha256');
      const hashed = async function* () {
        for await (const part of open()) {
          hash.update(part);
          yield part;
        }
      };
      const bytes = await unpackLayer(hashed(), work, { spareBytes: () => this.#spareBytes() });
      const digest = `sha256:${hash.digest('hex')}`;
      if (digest !== diffId) throw new Error(`layer content does not match its digest: ${digest} is not ${diffId}`);
      this.#write(`${final}.size`, String(bytes));
      try {
        renameSync(work, final);
      } catch (error) {
        // Another process put the same layer there first.
        if (!existsSync(final)) throw error;
      }
      return bytes;
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }

  /** Gives an image one more name. */
  tag(id: string, reference: string): void {
    this.#write(this.#nameFile(reference), id);
  }

  /** The image that a reference (any spelling, a digest, or an id with or without `sha256:`) stands for. */
  resolve(reference: string): ListedImage | undefined {
    const image = this.#find(reference);
    return (
      image && {
        ...image,
        references: this.#names()
          .filter(([, id]) => id === image.id)
          .map(([name]) => name)
          .sort(),
      }
    );
  }

  /** As `resolve`, without the other names: no folder is read. */
  find(reference: string): Image | undefined {
    return this.#find(reference);
  }

  #find(reference: string): Image | undefined {
    const hex = /^(?:sha256:)?([0-9a-f]{64})$/.exec(reference)?.[1];
    if (hex) {
      const image = this.#read(hex);
      if (image) return image;
    }
    const parsed = parseReference(reference);
    if (!parsed) return undefined;
    if (parsed.digest) {
      const direct = readText(this.#nameFile(`${parsed.repository}@${parsed.digest}`));
      if (direct) return this.#read(direct.slice('sha256:'.length));
      const named = this.#names().filter(([name]) => parseReference(name)?.repository === parsed.repository);
      for (const [, id] of named) {
        const image = this.#read(id.slice('sha256:'.length));
        if (image && (image.manifestDigest === parsed.digest || image.id === parsed.digest)) return image;
      }
      return undefined;
    }
    const id = readText(this.#nameFile(formatReference(parsed)));
    return id ? this.#read(id.slice('sha256:'.length)) : undefined;
  }

  list(): ListedImage[] {
    const names = this.#names();
    const images: ListedImage[] = [];
    for (const file of readdirSync(join(this.#dir, 'images'))) {
      if (!file.endsWith('.json')) continue;
      const image = this.#read(file.slice(0, -'.json'.length));
      if (image)
        images.push({
          ...image,
          references: names
            .filter(([, id]) => id === image.id)
            .map(([name]) => name)
            .sort(),
        });
    }
    return images;
  }

  /** Takes a name away, or all of an image by its id; content that nothing names any more is deleted. False when unknown. */
  remove(reference: string): boolean {
    const image = this.#find(reference);
    if (!image) return false;
    const hex = image.id.slice('sha256:'.length);
    const names = this.#names()
      .filter(([, id]) => id === image.id)
      .map(([name]) => name);
    const parsed = parseReference(reference);
    const named = parsed && names.find(name => name === formatReference(parsed));
    const goes = named ? [named] : names;
    if (goes.length === names.length) {
      const users = this.users(image.id);
      if (users.length > 0)
        throw new Error(`image ${reference} is in use by ${users.length} container${users.length > 1 ? 's' : ''}`);
    }
    for (const name of goes) rmSync(this.#nameFile(name), { force: true });
    if (goes.length < names.length) return true;
    rmSync(join(this.#dir, 'images', `${hex}.json`), { force: true });
    this.#known.delete(hex);
    for (const layer of image.layers) {
      if (this.#neededLayers().has(layer)) continue;
      const final = join(this.layersDir, layer);
      // First out of sight, so that an addition that runs meanwhile never sees half a layer …
      const work = this.#scratch();
      try {
        renameSync(final, work);
      } catch {
        continue;
      }
      // … and back when one has claimed it just before.
      if (this.#neededLayers().has(layer)) {
        try {
          renameSync(work, final);
          continue;
        } catch {
          // It has unpacked its own already.
        }
      } else rmSync(`${final}.size`, { force: true });
      rmSync(work, { recursive: true, force: true });
    }
    return true;
  }

  /** Notes that a container runs the image, until `release`. */
  hold(id: string, containerId: string): void {
    const folder = join(this.#dir, 'users', id.slice('sha256:'.length));
    mkdirSync(folder, { recursive: true });
    // A second name of the image's own file: a new file would cost the disk ten times as much.
    try {
      linkSync(join(this.#dir, 'images', `${id.slice('sha256:'.length)}.json`), join(folder, containerId));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') writeFileSync(join(folder, containerId), '');
    }
  }
  release(id: string, containerId: string): void {
    rmSync(join(this.#dir, 'users', id.slice('sha256:'.length), containerId), { force: true });
  }
  /** Of whatever image it holds. */
  releaseEverywhere(user: string): void {
    for (const hex of readdirSync(join(this.#dir, 'users')))
      rmSync(join(this.#dir, 'users', hex, user), { force: true });
  }
  users(id: string): string[] {
    try {
      return readdirSync(join(this.#dir, 'users', id.slice('sha256:'.length)));
    } catch {
      return [];
    }
  }

  /** Of images that are there, and of those that are being added. */
  #neededLayers(): Set<string> {
    const claimed = readdirSync(join(this.#dir, 'claims')).flatMap(
      name => JSON.parse(readText(join(this.#dir, 'claims', name)) || '[]') as string[],
    );
    return new Set([...claimed, ...this.list().flatMap(one => one.layers)]);
  }
  #spareBytes(): number {
    const { bsize, blocks, bavail } = statfsSync(this.#dir);
    return bavail * bsize - Math.min(DISK_LEFT_BYTES_MAX, blocks * bsize * DISK_LEFT_SHARE);
  }

  #read(hex: string): Image | undefined {
    const known = this.#known.get(hex);
    const path = join(this.#dir, 'images', `${hex}.json`);
    if (known) return existsSync(path) ? known : undefined;
    const text = readText(path);
    if (!text) return undefined;
    const image = JSON.parse(text) as Image;
    this.#known.set(hex, image);
    return image;
  }
  #names(): [name: string, id: string][] {
    return readdirSync(join(this.#dir, 'names'))
      .filter(file => !file.endsWith('.new'))
      .map(file => [decodeURIComponent(file), readText(join(this.#dir, 'names', file)) ?? '']);
  }
  #nameFile(reference: string): string {
    return join(this.#dir, 'names', encodeURIComponent(reference));
  }
  #write(path: string, content: string): void {
    const fresh = join(this.#dir, 'scratch', `${randomBytes(8).toString('hex')}.new`);
    writeFileSync(fresh, content);
    renameSync(fresh, path);
  }
  #scratch(): string {
    return join(this.#dir, 'scratch', randomBytes(8).toString('hex'));
  }
  // Left behind by a load that was killed.
  #removeOldScratch(): void {
    for (const folder of ['scratch', 'claims', 'partial'])
      for (const name of readdirSync(join(this.#dir, folder))) {
        const path = join(this.#dir, folder, name);
        const stat = statSync(path, { throwIfNoEntry: false });
        if (stat && systemClock.now() - Math.max(stat.mtimeMs, stat.ctimeMs) > SCRATCH_AGE_MS_MAX)
          rmSync(path, { recursive: true, force: true });
      }
  }
}

function layerName(diffId: string): string {
  return diffId.slice('sha256:'.length, 'sha256:'.length + LAYER_NAME_DIGITS);
}

/** Rejects with the first failure after all that had begun have ended. */
async function eachOf<T>(items: readonly T[], atOnce: number, work: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items];
  const failures: unknown[] = [];
  const run = async () => {
    for (let item = waiting.shift(); item !== undefined && failures.length === 0; item = waiting.shift())
      await work(item).catch(error => failures.push(error));
  };
  await Promise.all(Array.from({ length: atOnce }, run));
  if (failures.length) throw failures[0];
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
