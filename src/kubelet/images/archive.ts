/**
 * Finds the images in a saved archive: `docker save` (manifest.json) and OCI image layout (index.json), both may be
 * compressed. Files are spooled to a scratch folder first, since a manifest may come after what it names.
 */

import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { formatReference, parseReference } from './reference.ts';
import { decompressed, readTar } from './tar.ts';

/** What an image's config file says about running it, OCI's names. */
export interface ImageConfig {
  readonly User?: string;
  readonly ExposedPorts?: Readonly<Record<string, object>>;
  readonly Env?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly Volumes?: Readonly<Record<string, object>>;
  readonly WorkingDir?: string;
  readonly Labels?: Readonly<Record<string, string>>;
  readonly StopSignal?: string;
}

export interface ImageFile {
  readonly architecture?: string;
  readonly os?: string;
  readonly created?: string;
  readonly config?: ImageConfig;
  readonly rootfs: { readonly type: 'layers'; readonly diff_ids: readonly string[] };
}

export interface ArchivedImage {
  /** Bytes of the config file; their SHA-256 is the image's id. */
  readonly config: Buffer;
  readonly layers: readonly { readonly diffId: string; open(): AsyncIterable<Buffer> }[];
  /** Normalised names. */
  readonly references: readonly string[];
  /** Digest of the manifest, when the archive has one. */
  readonly manifestDigest: string | undefined;
}

interface Descriptor {
  readonly mediaType?: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly architecture?: string; readonly os?: string };
  readonly annotations?: Readonly<Record<string, string>>;
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };
const MANIFEST_BYTES_MAX = 4 << 20;
const DIGEST = /^(sha256|sha512):[0-9a-f]{64,128}$/;

interface DockerManifest {
  readonly Config: string;
  readonly RepoTags?: readonly string[] | null;
  readonly Layers: readonly string[];
}

/** Reads the archive; the images' layers stay readable until `scratch` is removed. */
export async function openArchive(source: AsyncIterable<Buffer>, scratch: string): Promise<ArchivedImage[]> {
  const files = new Map<string, string>();
  let count = 0;
  for await (const entry of readTar(decompressed(source))) {
    const name = entry.path.replace(/^(\.?\/+)+/, '');
    if (entry.type === 'file') {
      const spool = join(scratch, String(count++));
      await pipeline(entry.body(), createWriteStream(spool));
      files.set(name, spool);
    } else if (entry.type === 'symlink' || entry.type === 'link') {
      // `docker save` of old writes a repeated layer as a link to the first.
      const target = entry.type === 'link' ? entry.linkPath : join(name, '..', entry.linkPath);
      const spool = files.get(target);
      if (spool) files.set(name, spool);
    }
  }
  const archive = new SpooledArchive(files);
  const images =
    files.has('index.json') && files.has('oci-layout')
      ? archive.ociImages()
      : files.has('manifest.json')
        ? archive.dockerImages()
        : undefined;
  if (!images)
    throw new Error('not an image archive: neither manifest.json (docker save) nor index.json (OCI layout) in it');
  if (images.length === 0) throw new Error('image archive has no image in it');
  return images;
}

class SpooledArchive {
  readonly #files: ReadonlyMap<string, string>;
  constructor(files: ReadonlyMap<string, string>) {
    this.#files = files;
  }
  #spool(name: string): string {
    const path = this.#files.get(name);
    if (!path || !existsSync(path)) throw new Error(`image archive lacks ${name}`);
    return path;
  }
  #layer(name: string, diffId: string) {
    const path = this.#spool(name);
    return {
      diffId,
      open: () => decompressed(createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>),
    };
  }
  #small(name: string): Buffer {
    const data = readFileSync(this.#spool(name));
    if (data.length > MANIFEST_BYTES_MAX) throw new Error(`image archive has an oversized ${name}`);
    return data;
  }
  // What a digest names has that digest: by it a pod that pins one finds the image. Layers are checked as they are unpacked.
  #blob(digest: string): Buffer {
    const data = this.#small(blob(digest));
    const [algorithm] = digest.split(':');
    const actual = `${algorithm}:${createHash(algorithm!).update(data).digest('hex')}`;
    if (actual !== digest) throw new Error(`${blob(digest)} does not match its digest: it is ${actual}`);
    return data;
  }
  #image(
    config: Buffer,
    layers: readonly string[],
    references: readonly string[],
    manifestDigest?: string,
  ): ArchivedImage {
    const file = parsed<ImageFile>(config, 'the image config');
    const diffIds = file.rootfs?.diff_ids ?? [];
    if (diffIds.length !== layers.length)
      throw new Error(`image config names ${diffIds.length} layers, its manifest ${layers.length}`);
    return { config, layers: layers.map((name, i) => this.#layer(name, diffIds[i]!)), references, manifestDigest };
  }

  #dockerManifests(): readonly DockerManifest[] {
    return listed<DockerManifest>(parsed(this.#small('manifest.json'), 'manifest.json'), 'manifest.json');
  }

  dockerImages(): ArchivedImage[] {
    return this.#dockerManifests().map(one =>
      this.#image(
        this.#small(one.Config),
        listed(one.Layers, 'Layers of manifest.json'),
        normalised(listed(one.RepoTags ?? [], 'RepoTags of manifest.json')),
      ),
    );
  }

  #manifestsOf(data: Buffer, name: string): readonly Descriptor[] {
    return listed(parsed<{ manifests: Descriptor[] }>(data, name).manifests, `manifests of ${name}`);
  }

  ociImages(): ArchivedImage[] {
    // docker save writes both forms, and its names are in manifest.json.
    const docker = this.#files.has('manifest.json') ? this.#dockerManifests() : [];
    return this.#manifestsOf(this.#small('index.json'), 'index.json').map(descriptor => {
      const chosen = this.#choose(descriptor);
      const manifest = parsed<{ config?: Descriptor; layers: Descriptor[] }>(this.#blob(chosen.digest), chosen.digest);
      if (!manifest.config) throw new Error(`${chosen.digest} is no manifest of an image: it has no config`);
      const config = blob(manifest.config.digest);
      const annotations = descriptor.annotations ?? {};
      const names = [annotations['io.containerd.image.name'], annotations['org.opencontainers.image.ref.name']].filter(
        name => name !== undefined,
      );
      // A bare tag ("latest") is no name of an image.
      const named =
        names.find(name => /[/:]/.test(name)) ?? (names.length && names[0] !== 'latest' ? names[0] : undefined);
      const tags = docker.filter(one => one.Config === config).flatMap(one => one.RepoTags ?? []);
      return this.#image(
        this.#blob(manifest.config.digest),
        listed<Descriptor>(manifest.layers, `layers of ${chosen.digest}`).map(layer => blob(layer.digest)),
        normalised([...(named ? [named] : []), ...tags]),
        descriptor.digest,
      );
    });
  }

  // An index of platforms: this machine's, else the only one that is there.
  #choose(descriptor: Descriptor): Descriptor {
    if (!/index|manifest\.list/.test(descriptor.mediaType ?? '')) return descriptor;
    const manifests = this.#manifestsOf(this.#blob(descriptor.digest), descriptor.digest);
    const present = manifests.filter(one => this.#files.has(blob(one.digest)));
    const architecture = ARCHITECTURES[process.arch];
    const found =
      present.find(one => one.platform?.architecture === architecture && (one.platform?.os ?? 'linux') === 'linux') ??
      (present.length === 1 ? present[0] : undefined);
    if (!found) throw new Error(`image archive has no image for linux/${architecture}`);
    return this.#choose(found);
  }
}

function parsed<T>(data: Buffer, name: string): T {
  try {
    const value: unknown = JSON.parse(data.toString('utf8'));
    if (value !== null && typeof value === 'object') return value as T;
  } catch {}
  throw new Error(`${name} in the image archive is not what it is to be: a JSON object or list`);
}

function listed<T>(value: unknown, name: string): readonly T[] {
  if (Array.isArray(value) && value.every(one => one !== null && one !== undefined)) return value;
  throw new Error(`${name} in the image archive is not a list`);
}

function blob(digest: string): string {
  if (!DIGEST.test(digest)) throw new Error(`image archive names a blob by something else than a digest: ${digest}`);
  return `blobs/${digest.replace(':', '/')}`;
}

function normalised(names: readonly string[]): string[] {
  return [
    ...new Set(
      names
        .map(name => parseReference(name))
        .filter(reference => reference !== undefined)
        .map(formatReference),
    ),
  ];
}
