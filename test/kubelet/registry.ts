/**
 * Registries for tests: Debian's docker-registry as a process of the test's own, images made and pushed by code, and a server that
 * misbehaves on purpose. They listen on 127.0.0.1, or inside a namespace that the test made.
 */

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, createServer as createTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';

export const hasRegistry = existsSync('/usr/bin/docker-registry');

export interface RegistryOptions {
  /** Folder of the content; registries may share it. */
  readonly folder: string;
  readonly user?: { readonly name: string; readonly password: string };
  readonly tls?: { readonly certificate: string; readonly key: string };
  readonly token?: {
    readonly realm: string;
    readonly service: string;
    readonly issuer: string;
    readonly certificate: string;
  };
  readonly address?: string;
  readonly port?: number;
  /** In front of the program: `nsenter --net=…`. */
  readonly inside?: readonly string[];
}

export class Registry {
  readonly host: string;
  readonly #process: ChildProcess;
  readonly #work: string;

  private constructor(host: string, process: ChildProcess, work: string) {
    this.host = host;
    this.#process = process;
    this.#work = work;
  }

  static async start(options: RegistryOptions): Promise<Registry> {
    const { address = '127.0.0.1', inside = [] } = options;
    const port = options.port ?? (await freePort());
    const work = mkdtempSync(join(tmpdir(), 'cox-registry-'));
    const write = (name: string, text: string) => {
      writeFileSync(join(work, name), text, { mode: 0o600 });
      return join(work, name);
    };
    const lines = [
      'version: 0.1',
      'log: {level: error}',
      `storage: {filesystem: {rootdirectory: ${options.folder}}, delete: {enabled: true}}`,
      'http:',
      `  addr: "${address}:${port}"`,
      '  secret: test',
    ];
    if (options.tls)
      lines.push(
        '  tls:',
        `    certificate: ${write('cert.pem', options.tls.certificate)}`,
        `    key: ${write('key.pem', options.tls.key)}`,
      );
    if (options.user) {
      const { name, password } = options.user;
      // libxcrypt's bcrypt, which is what the registry reads.
      const hash = execFileSync('perl', ['-e', 'print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))', password], {
        encoding: 'utf8',
      });
      lines.push('auth:', '  htpasswd:', '    realm: test', `    path: ${write('htpasswd', `${name}:${hash}\n`)}`);
    }
    if (options.token) {
      const { realm, service, issuer, certificate } = options.token;
      lines.push(
        'auth:',
        '  token:',
        `    realm: ${realm}`,
        `    service: ${service}`,
        `    issuer: ${issuer}`,
        `    rootcertbundle: ${write('issuer.pem', certificate)}`,
      );
    }
    const config = write('config.yml', `${lines.join('\n')}\n`);
    const [program, ...args] = [...inside, '/usr/bin/docker-registry', 'serve', config];
    let said = '';
    const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stderr.on('data', (part: Buffer) => {
      said = (said + part).slice(-2000);
    });
    child.stdout.resume();
    const registry = new Registry(`${address}:${port}`, child, work);
    if (inside.length === 0) {
      for (let i = 0; !(await accepts(port)); i++) {
        assert.ok(i < 400 && child.exitCode === null, `docker-registry does not listen: ${said}`);
        await sleep(50);
      }
    }
    return registry;
  }
  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const gone = new Promise(resolve => this.#process.once('close', resolve));
      this.#process.kill('SIGKILL');
      await gone;
    }
    rmSync(this.#work, { recursive: true, force: true });
  }
}

export async function freePort(): Promise<number> {
  const server = createTcp().listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise(resolve => server.close(resolve));
  return port;
}

function accepts(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

export const digestOf = (bytes: Buffer | string): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

export interface BuiltImage {
  readonly manifest: Buffer;
  readonly manifestType: string;
  readonly digest: string;
  readonly id: string;
  /** Configuration and layers, by digest. */
  readonly blobs: ReadonlyMap<string, Buffer>;
}

/** A tar of the files; names that end in a slash are folders. */
export function tarOf(files: Readonly<Record<string, string | Buffer>>): Buffer {
  const work = mkdtempSync(join(tmpdir(), 'cox-tar-'));
  try {
    for (const [name, content] of Object.entries(files)) {
      mkdirSync(join(work, name, name.endsWith('/') ? '.' : '..'), { recursive: true });
      if (!name.endsWith('/')) writeFileSync(join(work, name), content, { mode: 0o755 });
    }
    return execFileSync('tar', ['-C', work, '--numeric-owner', '--owner=0', '--group=0', '-cf', '-', '.'], {
      maxBuffer: 1 << 30,
    });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

export function buildImage(
  layers: readonly (Buffer | { readonly tar: Buffer; readonly as: 'gzip' | 'zstd' | 'tar' })[],
  options: { readonly config?: object; readonly architecture?: string; readonly kind?: 'oci' | 'docker' } = {},
): BuiltImage {
  const { kind = 'oci' } = options;
  const blobs = new Map<string, Buffer>();
  const put = (bytes: Buffer) => {
    blobs.set(digestOf(bytes), bytes);
    return { digest: digestOf(bytes), size: bytes.length };
  };
  const given = layers.map(one => (Buffer.isBuffer(one) ? { tar: one, as: 'gzip' as const } : one));
  const descriptors = given.map(({ tar, as }) => ({
    mediaType:
      kind === 'docker'
        ? 'application/vnd.docker.image.rootfs.diff.tar.gzip'
        : `application/vnd.oci.image.layer.v1.tar${as === 'tar' ? '' : `+${as}`}`,
    ...put(as === 'gzip' ? gzipSync(tar) : as === 'zstd' ? zstdCompressSync(tar) : tar),
  }));
  const config = Buffer.from(
    JSON.stringify({
      architecture: options.architecture ?? { x64: 'amd64', arm64: 'arm64' }[process.arch as string],
      os: 'linux',
      config: options.config ?? {},
      rootfs: { type: 'layers', diff_ids: given.map(({ tar }) => digestOf(tar)) },
    }),
  );
  const manifestType =
    kind === 'docker'
      ? 'application/vnd.docker.distribution.manifest.v2+json'
      : 'application/vnd.oci.image.manifest.v1+json';
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: manifestType,
      config: {
        mediaType:
          kind === 'docker'
            ? 'application/vnd.docker.container.image.v1+json'
            : 'application/vnd.oci.image.config.v1+json',
        ...put(config),
      },
      layers: descriptors,
    }),
  );
  return { manifest, manifestType, digest: digestOf(manifest), id: digestOf(config), blobs };
}

/** Into a registry on this machine without TLS and authentication. */
export async function push(
  host: string,
  repository: string,
  tags: readonly string[],
  image: BuiltImage,
): Promise<void> {
  for (const [digest, bytes] of image.blobs) {
    const begin = await fetch(`http://${host}/v2/${repository}/blobs/uploads/`, { method: 'POST' });
    assert.equal(begin.status, 202, await begin.text());
    const at = new URL(begin.headers.get('location')!, `http://${host}`);
    at.searchParams.set('digest', digest);
    const end = await fetch(at, {
      method: 'PUT',
      body: new Uint8Array(bytes),
      headers: { 'Content-Type': 'application/octet-stream' },
    });
    assert.equal(end.status, 201, await end.text());
  }
  for (const tag of tags) await putManifest(host, `${repository}/manifests/${tag}`, image.manifest, image.manifestType);
}

async function putManifest(host: string, path: string, body: Buffer, type: string): Promise<void> {
  const answer = await fetch(`http://${host}/v2/${path}`, {
    method: 'PUT',
    body: new Uint8Array(body),
    headers: { 'Content-Type': type },
  });
  assert.equal(answer.status, 201, await answer.text());
}

/** An index of several platforms. */
export async function pushIndex(
  host: string,
  repository: string,
  tag: string,
  images: readonly { readonly image: BuiltImage; readonly architecture: string }[],
): Promise<string> {
  for (const { image } of images) await push(host, repository, [image.digest], image);
  const type = 'application/vnd.oci.image.index.v1+json';
  const index = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: type,
      manifests: images.map(({ image, architecture }) => ({
        mediaType: image.manifestType,
        digest: image.digest,
        size: image.manifest.length,
        platform: { os: 'linux', architecture },
      })),
    }),
  );
  await putManifest(host, `${repository}/manifests/${tag}`, index, type);
  return digestOf(index);
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A registry of the test's own making, on 127.0.0.1: what it does not answer, the image's content answers. */
export class FakeRegistry {
  readonly #server: Server;
  readonly requests: { readonly method: string; readonly url: string; readonly headers: IncomingMessage['headers'] }[] =
    [];
  image: BuiltImage;
  /** Answers instead when it returns something. */
  first: (request: IncomingMessage, response: ServerResponse) => unknown = () => false;
  host = '';

  constructor(image: BuiltImage) {
    this.image = image;
    const handle: Handler = (request, response) => {
      this.requests.push({ method: request.method!, url: request.url!, headers: request.headers });
      if (this.first(request, response)) return;
      const path = request.url!.replace(/\?.*/, '');
      if (path.includes('/manifests/')) {
        response.setHeader('Content-Type', this.image.manifestType);
        return void response.end(this.image.manifest);
      }
      const blob = this.image.blobs.get(path.slice(path.lastIndexOf('/') + 1));
      if (!blob) return void response.writeHead(404).end();
      const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      if (from > 0) response.writeHead(206, { 'Content-Range': `bytes ${from}-${blob.length - 1}/${blob.length}` });
      response.end(blob.subarray(from));
    };
    this.#server = createServer(handle);
  }
  async start(): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await new Promise(resolve => this.#server.once('listening', resolve));
    this.host = `127.0.0.1:${(this.#server.address() as { port: number }).port}`;
    return this;
  }
  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise(resolve => this.#server.close(resolve));
  }
}
