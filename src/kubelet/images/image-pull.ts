/**
 * Brings one image from its registry, or a mirror of it, into the store: resolves the name, picks this machine's platform, fetches the
 * configuration and hands the layers' streams to the store, which unpacks several at once. Invariants: what is stored has the
 * digests that the manifest names; a name is given only when all of the image is there; nothing of a failed pull stays visible.
 * It refuses manifests of other kinds than images, and images for other platforms.
 */

import { type Clock, systemClock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { ImageFile } from './archive.ts';
import type { Credential } from './credentials.ts';
import { Keyring } from './credentials.ts';
import { type ImageSettings, readImageSettings, registrySettings } from './image-settings.ts';
import type { Image, ImageStore } from './image-store.ts';
import { formatReference, type ImageReference, parseReference } from './reference.ts';
import { DigestError, type Endpoint, isDigest, RegistryClient, RegistryError } from './registry-client.ts';
import { isLocalAddress, PlainHttpError, type RegistryNetwork, UnreachableError } from './registry-connection.ts';
import { decompressed } from './tar.ts';

export interface PullRequest {
  /** Any spelling. */
  readonly reference: string;
  /** The pod's, tried in order before the node's own. */
  readonly credentials: readonly Credential[];
}

export interface PulledImage {
  readonly image: Image;
  /** Of the manifest that the name stands for. */
  readonly digest: string;
  /** Which of the request's credentials opened the registry; undefined when the node's own or none did. */
  readonly credential: number | undefined;
}

export interface PullProgress {
  readonly layers: number;
  readonly layersDone: number;
  readonly bytes: number;
  readonly bytesTotal: number;
}

/** Why a pull failed, in the words that pods' events show. `isUnreachable`: no registry answered at all. */
export class PullError extends Error {
  override name = 'PullError';
  readonly isUnreachable: boolean;
  constructor(message: string, options: { readonly isUnreachable: boolean }) {
    super(message);
    this.isUnreachable = options.isUnreachable;
  }
}

export interface PullOptions {
  readonly store: ImageStore;
  /** Where `images.yaml` and `config.json` are. */
  readonly settingsDir: string;
  readonly network: RegistryNetwork;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: PullProgress) => void;
  readonly clock?: Clock;
}

const CONFIG_BYTES_MAX = 8 << 20;
const LAYERS_MAX = 127;
const INDEX_DEPTH_MAX = 3;
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };
const HUB = 'registry-1.docker.io';

interface Descriptor {
  readonly mediaType?: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly architecture?: string; readonly os?: string; readonly variant?: string };
}

/** Rejects with PullError, or with the signal's reason. */
export async function pullImage(request: PullRequest, options: PullOptions): Promise<PulledImage> {
  const reference = parseReference(request.reference);
  if (!reference)
    throw new PullError(`invalid reference format: ${JSON.stringify(request.reference)}`, { isUnreachable: false });
  const name = formatReference(reference);
  const fail = (error: unknown): never => {
    options.signal.throwIfAborted();
    throw new PullError(`failed to pull and unpack image "${name}": ${explained(error, name)}`, {
      isUnreachable: error instanceof UnreachableError,
    });
  };
  let failure: unknown;
  try {
    const settings = await readImageSettings(options.settingsDir);
    for (const [index, credential] of credentialsFor(reference, request, settings).entries()) {
      try {
        const pulled = await fromEndpoints(reference, credential, { ...options, settings });
        return { ...pulled, credential: index < request.credentials.length ? index : undefined };
      } catch (error) {
        failure = error;
        // Another secret helps only when this one was refused.
        if (!(error instanceof RegistryError) || ![401, 403, 404].includes(error.status)) break;
      }
    }
  } catch (error) {
    fail(error);
  }
  return fail(failure);
}

function credentialsFor(
  { repository }: ImageReference,
  request: PullRequest,
  { dockerConfig }: ImageSettings,
): (Credential | undefined)[] {
  const own = new Keyring();
  if (dockerConfig !== undefined) {
    try {
      own.add(dockerConfig, { form: 'dockerconfigjson' });
    } catch (error) {
      throw new Error(`config.json of the node is not a docker configuration: ${messageOf(error)}`);
    }
  }
  const all = [...request.credentials, ...own.lookup(repository)];
  return all.length ? all : [undefined];
}

type Context = PullOptions & { readonly settings: ImageSettings };

async function fromEndpoints(
  reference: ImageReference,
  credential: Credential | undefined,
  context: Context,
): Promise<Omit<PulledImage, 'credential'>> {
  const { settings, network, signal, clock = systemClock } = context;
  const slash = reference.repository.indexOf('/');
  const host = reference.repository.slice(0, slash);
  const endpoints = endpointsOf(host, settings);
  let failure: unknown = new Error(`registries.${host} of images.yaml has no mirror, and forbids the registry itself`);
  for (const endpoint of endpoints) {
    if (endpoint.isFallback && !(failure instanceof PlainHttpError)) continue;
    const client = new RegistryClient({
      endpoint,
      repository: reference.repository.slice(slash + 1),
      // A mirror is another host: the pod's secret for the registry is not for it, unless it was written for it.
      credential: endpoint.mirrorOf === undefined ? credential : mirrorCredential(endpoint, reference, settings),
      network,
      clock,
      signal,
    });
    try {
      return await fromRegistry(reference, client, context);
    } catch (error) {
      signal.throwIfAborted();
      // What a mirror says matters less than what the registry itself says.
      failure = error;
    }
  }
  throw failure;
}

function mirrorCredential(
  { url }: Endpoint,
  { repository }: ImageReference,
  { dockerConfig }: ImageSettings,
): Credential | undefined {
  if (dockerConfig === undefined) return undefined;
  const own = new Keyring();
  own.add(dockerConfig, { form: 'dockerconfigjson' });
  return own.lookup(`${url.host}/${repository.slice(repository.indexOf('/') + 1)}`)[0];
}

/** Mirrors first. A registry on this machine may speak plain HTTP without being configured, any other may not. */
export function endpointsOf(host: string, settings: ImageSettings): Endpoint[] {
  const own = registrySettings(settings, host);
  const address = host === 'docker.io' ? HUB : host;
  const endpoints: Endpoint[] = own.mirrors.map(mirror => {
    const url = new URL(mirror);
    return { url, tls: registrySettings(settings, url.host).tls, mirrorOf: host };
  });
  if (!own.isAskedAfterMirrors) return endpoints;
  const name = address.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  const isLocal = name === 'localhost' || (/^[\d.]+$|:/.test(name) && isLocalAddress(name));
  if (!own.isPlain) endpoints.push({ url: new URL(`https://${address}`), tls: own.tls });
  if (own.isPlain || isLocal)
    endpoints.push({ url: new URL(`http://${address}`), tls: own.tls, ...(own.isPlain ? {} : { isFallback: true }) });
  return endpoints;
}

async function fromRegistry(
  reference: ImageReference,
  client: RegistryClient,
  { store, signal, onProgress }: Context,
): Promise<Omit<PulledImage, 'credential'>> {
  const top = await client.manifest(reference.digest ?? reference.tag!);
  const names = [
    `${reference.repository}@${top.digest}`,
    ...(reference.tag ? [`${reference.repository}:${reference.tag}`] : []),
  ];
  const known = store.find(`${reference.repository}@${top.digest}`);
  if (known) {
    // Its content is here already: only the name may be new.
    for (const name of names) store.tag(known.id, name);
    return { image: known, digest: top.digest };
  }
  const manifest = await imageManifest(client, top);
  const config = await client.blob(manifest.config, CONFIG_BYTES_MAX);
  const file = JSON.parse(config.toString('utf8')) as ImageFile;
  const architecture = ARCHITECTURES[process.arch];
  if ((file.os ?? 'linux') !== 'linux' || (file.architecture ?? architecture) !== architecture)
    throw new Error(
      `no match for platform in manifest ${top.digest}: the image is for ${file.os ?? 'linux'}/${file.architecture}, this machine is linux/${architecture}`,
    );
  const diffIds = file.rootfs?.diff_ids ?? [];
  if (diffIds.length !== manifest.layers.length)
    throw new Error(`image config names ${diffIds.length} layers, its manifest ${manifest.layers.length}`);

  const progress = {
    layers: diffIds.length,
    layersDone: 0,
    bytes: 0,
    bytesTotal: manifest.layers.reduce((sum, { size }) => sum + size, 0),
  };
  const image = await store.add({
    config,
    manifestDigest: top.digest,
    references: names,
    signal,
    layers: manifest.layers.map((layer, i) => ({
      diffId: diffIds[i]!,
      async *open() {
        const kept = store.partial(diffIds[i]!, layer);
        const onBytes = (count: number) => {
          progress.bytes += count;
          onProgress?.({ ...progress });
        };
        const stream = client.stream(layer, { onBytes, kept });
        try {
          const raw = {
            [Symbol.asyncIterator]: () => ({
              next: async () => {
                const value = await stream.next();
                return value ? { value, done: false as const } : { value: undefined, done: true as const };
              },
            }),
          };
          yield* decompressed(raw);
          await stream.finish();
          kept.discard();
        } finally {
          stream.close();
          kept.close();
        }
      },
      onDone: () => {
        progress.layersDone++;
        onProgress?.({ ...progress });
      },
    })),
  });
  return { image, digest: top.digest };
}

async function imageManifest(
  client: RegistryClient,
  top: { readonly bytes: Buffer; readonly mediaType: string; readonly digest: string },
): Promise<{ config: Descriptor; layers: readonly Descriptor[] }> {
  let { bytes, digest, mediaType } = top;
  for (let depth = 0; depth < INDEX_DEPTH_MAX; depth++) {
    let parsed: { schemaVersion?: number; mediaType?: string; manifests?: unknown; config?: unknown; layers?: unknown };
    try {
      parsed = JSON.parse(bytes.toString('utf8')) as typeof parsed;
    } catch {
      throw new Error(`manifest ${digest} is not JSON`);
    }
    const type = parsed?.mediaType ?? mediaType;
    if (parsed?.schemaVersion !== 2)
      throw new Error(
        `manifest ${digest} is of a kind that is not supported: ${type || 'unknown'}, schema ${parsed?.schemaVersion}`,
      );
    if (Array.isArray(parsed.manifests)) {
      const chosen = forPlatform(parsed.manifests.filter(isDescriptor));
      if (!chosen) throw new Error(`no match for platform in manifest ${digest}: not found`);
      ({ bytes, digest, mediaType } = await client.manifest(chosen.digest));
      continue;
    }
    const { config, layers } = parsed;
    if (!isDescriptor(config) || !Array.isArray(layers) || !layers.every(isDescriptor))
      throw new Error(`manifest ${digest} is not one of an image`);
    if (layers.length > LAYERS_MAX)
      throw new Error(`manifest ${digest} has too many layers: ${layers.length}, at most ${LAYERS_MAX}`);
    const odd = layers.find(({ mediaType: of = '' }) => !/\b(tar|tar\.gzip|tar\+gzip|tar\+zstd|tar\.zstd)$/.test(of));
    if (odd) throw new Error(`layer ${odd.digest} is of a kind that is not supported: ${odd.mediaType}`);
    return { config, layers };
  }
  throw new Error(`manifest ${top.digest} leads through too many indexes`);
}

function isDescriptor(value: unknown): value is Descriptor {
  const { digest, size } = (value ?? {}) as { digest?: unknown; size?: unknown };
  return isDigest(digest) && Number.isSafeInteger(size) && (size as number) >= 0;
}

function forPlatform(manifests: readonly Descriptor[]): Descriptor | undefined {
  const architecture = ARCHITECTURES[process.arch];
  return manifests.find(({ platform }) => platform?.os === 'linux' && platform.architecture === architecture);
}

/** As containerd words it, which is what users of kubectl know. */
function explained(error: unknown, name: string): string {
  if (error instanceof RegistryError) {
    const why =
      error.status === 404
        ? `${name}: not found`
        : error.status === 401 || error.status === 403
          ? `pull access denied, repository does not exist or may require authorization: server message: ${error.message}`
          : error.status === 429
            ? `429 Too Many Requests: ${error.message}`
            : error.status === 0
              ? error.message
              : `unexpected status ${error.status}: ${error.message}`;
    return `failed to resolve reference "${name}": ${why}`;
  }
  if (error instanceof UnreachableError)
    return `failed to resolve reference "${name}": failed to do request: ${error.message}`;
  if (error instanceof DigestError) return `failed to verify: ${error.message}`;
  return messageOf(error);
}
