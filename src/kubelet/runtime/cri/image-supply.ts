/**
 * Brings the node's images to a container runtime that keeps its own: a registry on the node's loopback, read-only, from which the runtime
 * pulls by ImageService what the node's image store has. So a policy, a secret, a mirror or a loaded archive means the same with
 * every runtime. An image goes over as one layer, the files of all its layers together. Invariants: nothing but an image that is
 * being brought is served; an image that the store has no longer goes from the runtime too. It refuses other callers than loopback.
 */

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, mkdirSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { failure, messageOf } from '../../../base/errors.ts';
import type { Logger } from '../../../base/log.ts';
import type { GrpcClient } from '../../../csi/grpc.ts';
import { mountLayers, unmount } from '../../../sys/mount.ts';
import type { Image, ImageStore } from '../../images/image-store.ts';
import { pauseProgram } from '../process-holder.ts';
import type { CRI_CALLS } from './messages.ts';

/** Beside the kubelet's own ports. A name that a runtime knows an image by has it, so it is always the same. */
export const SUPPLY_PORT = 10_246;
const HOST = '127.0.0.1';
const REPOSITORY = `${HOST}:${SUPPLY_PORT}/cox/`;
/** What holds a sandbox's namespaces while a runtime without images of its own starts one. */
export const PAUSE_IMAGE = `${REPOSITORY}pause:1`;
const PULL_MS_MAX = 600_000;
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

interface Offer {
  readonly manifest: Buffer;
  readonly config: Buffer;
  readonly layer: { readonly digest: string; readonly size: number; open(): NodeJS.ReadableStream };
}

export interface ImageSupplyOptions {
  readonly client: GrpcClient<typeof CRI_CALLS>;
  readonly images: ImageStore;
  /** For what is being brought. */
  readonly folder: string;
  readonly log: Logger;
}

export class ImageSupply {
  readonly #options: ImageSupplyOptions;
  readonly #offers = new Map<string, Offer>();
  readonly #under = new Map<string, Promise<string>>();

  constructor(options: ImageSupplyOptions) {
    this.#options = options;
    rmSync(options.folder, { recursive: true, force: true });
    mkdirSync(options.folder, { recursive: true, mode: 0o700 });
    this.#offers.set('pause', pauseOffer());
  }

  /** Rejects when the port is taken. */
  async serve(signal: AbortSignal): Promise<void> {
    const server = createServer((request, response) => this.#answer(request, response));
    await new Promise<void>((resolve, reject) => {
      server.once('error', error =>
        reject(failure(500, 'InternalError', `images for the container runtime: ${messageOf(error)}`)),
      );
      server.listen(SUPPLY_PORT, HOST, resolve);
    });
    signal.addEventListener('abort', () => server.close().closeAllConnections(), { once: true });
  }

  /** The runtime's own id of an image that the store has; brings it when it is not there. */
  async bring(image: Image): Promise<string> {
    const name = hexOf(image.id);
    const found = await this.#find(name);
    if (found) return found;
    const running = this.#under.get(name) ?? this.#bring(name, image).finally(() => this.#under.delete(name));
    this.#under.set(name, running);
    return running;
  }

  async #find(name: string): Promise<string | undefined> {
    const { image } = await this.#options.client.call('imageStatus', { image: { image: referenceOf(name) } });
    return image?.id || undefined;
  }

  async #bring(name: string, image: Image): Promise<string> {
    const { client, images, folder } = this.#options;
    const scratch = join(folder, name);
    try {
      this.#offers.set(name, await flatten(image, { layersDir: images.layersDir, scratch }));
      await client.call('pullImage', { image: { image: referenceOf(name) } }, { deadlineMs: PULL_MS_MAX });
      const id = await this.#find(name);
      if (!id) throw new Error(`the container runtime has no image ${name} after it pulled it`);
      return id;
    } finally {
      this.#offers.delete(name);
      rmSync(scratch, { recursive: true, force: true });
    }
  }

  /** Takes from the runtime what the store has no longer; what is in use the runtime keeps by itself. */
  async sweep(): Promise<void> {
    const { client, images, log } = this.#options;
    const wanted = new Set([...images.list().map(({ id }) => hexOf(id)), 'pause']);
    for (const { repoTags = [] } of (await client.call('listImages', {})).images)
      for (const tag of repoTags) {
        const name = tag.startsWith(REPOSITORY) ? tag.slice(REPOSITORY.length).replace(/:1$/, '') : undefined;
        if (name === undefined || wanted.has(name) || this.#under.has(name)) continue;
        await client.call('removeImage', { image: { image: tag } });
        log.info("removed from the container runtime's images", { image: tag });
      }
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = request.url ?? '';
    const [, name = '', kind, reference = ''] = /^\/v2\/cox\/([^/]+)\/(manifests|blobs)\/([^/?]+)$/.exec(path) ?? [];
    const offer = this.#offers.get(name);
    const send = (type: string, size: number, body: () => NodeJS.ReadableStream | Buffer) => {
      response.writeHead(200, { 'Content-Type': type, 'Content-Length': size });
      if (request.method === 'HEAD') return response.end();
      const content = body();
      if (Buffer.isBuffer(content)) return response.end(content);
      return void pipeline(content, response).catch(() => response.destroy());
    };
    if (path === '/v2/') return void response.writeHead(200).end();
    if (!offer || (request.method !== 'GET' && request.method !== 'HEAD')) return void response.writeHead(404).end();
    if (kind === 'manifests') {
      response.setHeader('Docker-Content-Digest', digestOf(offer.manifest));
      send(MANIFEST, offer.manifest.length, () => offer.manifest);
    } else if (reference === digestOf(offer.config))
      send('application/octet-stream', offer.config.length, () => offer.config);
    else if (reference === offer.layer.digest)
      send('application/octet-stream', offer.layer.size, () => offer.layer.open());
    else response.writeHead(404).end();
  }
}

const hexOf = (id: string): string => id.slice('sha256:'.length);
const referenceOf = (name: string): string => `${REPOSITORY}${name}:1`;
const digestOf = (content: Buffer): string => `sha256:${createHash('sha256').update(content).digest('hex')}`;

function offerOf(layer: Offer['layer'], file: object): Offer {
  const config = Buffer.from(
    JSON.stringify({ ...file, os: 'linux', rootfs: { type: 'layers', diff_ids: [layer.digest] } }),
  );
  const manifest = {
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(config), size: config.length },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: layer.digest, size: layer.size }],
  };
  return { manifest: Buffer.from(JSON.stringify(manifest)), config, layer };
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64' };
const architecture = ARCHITECTURES[process.arch] ?? process.arch;

/** All files of the image in one tar, as a container sees them. */
async function flatten(
  image: Image,
  { layersDir, scratch }: { readonly layersDir: string; readonly scratch: string },
): Promise<Offer> {
  const root = join(scratch, 'root');
  const file = join(scratch, 'layer.tar');
  mkdirSync(root, { recursive: true });
  const hash = createHash('sha256');
  let size = 0;
  mountLayers({ lower: [...image.layers].reverse(), lowerBase: layersDir, target: root });
  try {
    const attributes = ['security.capability', 'user.*'].map(name => `--xattrs-include=${name}`);
    const args = ['--format=posix', '--numeric-owner', '--xattrs', ...attributes, '-C', root, '-c', '.'];
    const child = spawn('tar', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    child.stderr.on('data', (part: Buffer) => (said = (said + part).slice(-2000)));
    const ended = new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve));
    child.stdout.on('data', (part: Buffer) => {
      hash.update(part);
      size += part.length;
    });
    await pipeline(child.stdout, createWriteStream(file));
    // 1: a socket was left out.
    const code = await ended;
    if (code !== 0 && code !== 1) throw new Error(`image ${image.id} cannot be read: ${said.trim()}`);
  } finally {
    unmount(root);
  }
  const digest = `sha256:${hash.digest('hex')}`;
  return offerOf(
    { digest, size, open: () => createReadStream(file) },
    { architecture: image.architecture ?? architecture, created: image.created, config: image.config },
  );
}

function pauseOffer(): Offer {
  const program = pauseProgram();
  const tar = Buffer.concat([tarHead('pause', program.length), program, Buffer.alloc(1536 - (program.length % 512))]);
  return offerOf(
    { digest: digestOf(tar), size: tar.length, open: () => streamOf(tar) },
    { architecture, config: { User: '65535:65535', Entrypoint: ['/pause'] } },
  );
}

function streamOf(content: Buffer): NodeJS.ReadableStream {
  return Readable.from([content]);
}

/** One file that all may run, owned by root (POSIX ustar). */
function tarHead(name: string, size: number): Buffer {
  const head = Buffer.alloc(512);
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`;
  head.write(name, 0);
  head.write(octal(0o555, 7), 100);
  head.write(octal(0, 7), 108);
  head.write(octal(0, 7), 116);
  head.write(octal(size, 11), 124);
  head.write(octal(0, 11), 136);
  head.write('        ', 148);
  head.write('0', 156);
  head.write('ustar\x0000', 257);
  const sum = head.reduce((total, byte) => total + byte, 0);
  head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return head;
}
