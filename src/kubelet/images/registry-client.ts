/**
 * One repository at one endpoint (a registry or a mirror of it), by the OCI distribution API: manifests, and blobs as streams that
 * go on where a broken connection left them. Owns authentication: anonymous, basic, and tokens with the scope that the registry asks
 * for. Invariants: a secret goes only to the registry itself or the token server it names, never along a redirect to another
 * host; nothing secret travels from HTTPS to HTTP; everything that is held in memory has a limit.
 */

import { createHash, type Hash } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Credential } from './credentials.ts';
import type { RegistrySettings } from './image-settings.ts';
import type { PartialBlob } from './partial-blob.ts';
import {
  type Answer,
  ask,
  isLocalAddress,
  RefusedError,
  type RegistryNetwork,
  UnreachableError,
} from './registry-connection.ts';

export interface Endpoint {
  /** With a path in front of `/v2` when it has one. */
  readonly url: URL;
  readonly tls: RegistrySettings['tls'];
  /** Asked only when the one before does not speak TLS. */
  readonly isFallback?: true;
  /** A mirror is told whose image is wanted. */
  readonly mirrorOf?: string;
}

/** What the registry said; `status` is its HTTP status. */
export class RegistryError extends Error {
  override name = 'RegistryError';
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Bytes that are not those that were asked for. */
export class DigestError extends Error {
  override name = 'DigestError';
}

const MANIFEST_BYTES_MAX = 4 << 20;
const TOKEN_BYTES_MAX = 1 << 20;
const ERROR_BYTES_MAX = 16 << 10;
const ERROR_TEXT_MAX = 300;
const REDIRECTS_MAX = 5;
const RESUMES_MAX = 5;
const RESUME_PAUSE_MS = 200;
const DRAIN_BYTES_MAX = 1 << 20;

export const MANIFEST_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
] as const;

const DIGEST = /^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

export interface FetchedManifest {
  readonly bytes: Buffer;
  readonly digest: string;
  readonly mediaType: string;
}

export interface BlobDescriptor {
  readonly digest: string;
  readonly size: number;
}

export function isDigest(text: unknown): text is string {
  return typeof text === 'string' && DIGEST.test(text);
}

export function hashFor(digest: string): Hash {
  return createHash(digest.slice(0, digest.indexOf(':')));
}

export class RegistryClient {
  readonly #endpoint: Endpoint;
  readonly #repository: string;
  readonly #credential: Credential | undefined;
  readonly #network: RegistryNetwork;
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  #authorization: string | undefined;

  /** `repository` is the path at the registry: `library/nginx`. */
  constructor(options: {
    readonly endpoint: Endpoint;
    readonly repository: string;
    readonly credential: Credential | undefined;
    readonly network: RegistryNetwork;
    readonly clock: Clock;
    readonly signal: AbortSignal;
  }) {
    this.#endpoint = options.endpoint;
    this.#repository = options.repository;
    this.#credential = options.credential;
    this.#network = options.network;
    this.#clock = options.clock;
    this.#signal = options.signal;
  }

  /** By tag or digest. The bytes are those of the returned digest. */
  async manifest(reference: string): Promise<FetchedManifest> {
    const answer = await this.#get(`manifests/${reference}`, { Accept: MANIFEST_TYPES.join(', ') });
    const bytes = await readAll(answer.body, MANIFEST_BYTES_MAX, 'manifest');
    const wanted = isDigest(reference) ? reference : undefined;
    const told = one(answer.headers['docker-content-digest']);
    const expected = wanted ?? (isDigest(told) ? told : undefined);
    const digest = digestOf(bytes, expected ?? 'sha256:');
    if (expected !== undefined && digest !== expected)
      throw new DigestError(`manifest content does not match its digest: ${digest} is not ${expected}`);
    return { bytes, digest, mediaType: (one(answer.headers['content-type']) ?? '').split(';')[0]!.trim() };
  }

  /** A small blob, whole and checked. */
  async blob({ digest, size }: BlobDescriptor, bytesMax: number): Promise<Buffer> {
    if (size > bytesMax) throw new Error(`blob ${digest} is too large: ${size} bytes`);
    const stream = this.stream({ digest, size });
    try {
      const parts: Buffer[] = [];
      for (let next = await stream.next(); next; next = await stream.next()) parts.push(next);
      await stream.finish();
      return Buffer.concat(parts);
    } finally {
      stream.close();
    }
  }

  /** `kept` has the first bytes, and gets those that come. */
  stream(
    descriptor: BlobDescriptor,
    { onBytes, kept }: { readonly onBytes?: (count: number) => void; readonly kept?: PartialBlob } = {},
  ): BlobStream {
    return new BlobStream({
      descriptor,
      open: from => this.#open(descriptor, from),
      pause: attempt => this.#clock.sleep(RESUME_PAUSE_MS * 2 ** attempt, this.#signal),
      signal: this.#signal,
      ...(onBytes ? { onBytes } : {}),
      ...(kept ? { kept } : {}),
    });
  }

  async #open({ digest }: BlobDescriptor, from: number): Promise<{ body: Readable; from: number }> {
    const answer = await this.#get(`blobs/${digest}`, from > 0 ? { Range: `bytes=${from}-` } : {});
    const start = /^bytes (\d+)-/.exec(one(answer.headers['content-range']) ?? '')?.[1];
    return { body: answer.body, from: answer.status === 206 ? Number(start ?? from) : 0 };
  }

  async #get(path: string, headers: Readonly<Record<string, string>>): Promise<Answer> {
    const { url: base, mirrorOf } = this.#endpoint;
    const url = new URL(`${base.pathname.replace(/\/+$/, '')}/v2/${this.#repository}/${path}`, base);
    if (mirrorOf) url.searchParams.set('ns', mirrorOf);
    for (let attempt = 0; ; attempt++) {
      const answer = await this.#follow(url, headers);
      if (answer.status === 200 || answer.status === 206) return answer;
      if (answer.status === 401 && attempt === 0) {
        const challenges = answer.headers['www-authenticate'] ?? '';
        await readAll(answer.body, ERROR_BYTES_MAX, 'answer').catch(() => undefined);
        if (await this.#authorize(challenges)) continue;
        throw new RegistryError(401, 'authorization failed: no basic auth credentials');
      }
      throw new RegistryError(answer.status, await errorText(answer));
    }
  }

  async #follow(start: URL, headers: Readonly<Record<string, string>>): Promise<Answer> {
    let url = start;
    for (let hops = 0; ; hops++) {
      const isHome = url.host === start.host && url.protocol === start.protocol;
      const answer = await ask(
        {
          url,
          headers: { ...headers, ...(isHome && this.#authorization ? { Authorization: this.#authorization } : {}) },
          tls: isHome
            ? this.#endpoint.tls
            : { skipVerify: false, ...(this.#endpoint.tls.ca ? { ca: this.#endpoint.tls.ca } : {}) },
          isTrustedHost: url.hostname === start.hostname,
          signal: this.#signal,
        },
        this.#network,
      );
      if (![301, 302, 303, 307, 308].includes(answer.status)) return answer;
      answer.body.destroy();
      const location = answer.headers.location;
      if (!location) throw new RegistryError(answer.status, 'redirect without a location');
      if (hops >= REDIRECTS_MAX) throw new RegistryError(answer.status, 'too many redirects');
      url = this.#allowed(location, url, 'redirect');
    }
  }

  /** Where a registry may send us. */
  #allowed(location: string, from: URL, what: string): URL {
    if (!URL.canParse(location, from.href)) throw new RegistryError(0, `${what} to a place that is no address`);
    const url = new URL(location, from);
    if (url.protocol !== 'https:' && url.protocol !== 'http:')
      throw new RegistryError(0, `refused a ${what} to ${url.protocol}: registries lead to http and https only`);
    if (from.protocol === 'https:' && url.protocol === 'http:')
      throw new RegistryError(0, `refused a ${what} from https to plain http (${url.host})`);
    url.username = url.password = '';
    url.hash = '';
    return url;
  }

  /** Makes the authorization that the registry asks for; false when there is nothing new to offer. */
  async #authorize(header: string): Promise<boolean> {
    const challenges = parseChallenges(header);
    const credential = this.#credential;
    if (credential?.registryToken) {
      this.#authorization = `Bearer ${credential.registryToken}`;
      return true;
    }
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer) {
      this.#authorization = `Bearer ${await this.#token(bearer.parameters)}`;
      return true;
    }
    if (challenges.some(({ scheme }) => scheme === 'basic') && credential?.username !== undefined) {
      this.#authorization = basic(credential);
      return true;
    }
    return false;
  }

  async #token(parameters: ReadonlyMap<string, string>): Promise<string> {
    const realm = parameters.get('realm');
    if (!realm) throw new RegistryError(401, 'authorization failed: the registry names no token server');
    const url = this.#allowed(realm, this.#endpoint.url, 'token server');
    const scope = parameters.get('scope') ?? `repository:${this.#repository}:pull`;
    const service = parameters.get('service');
    const { identityToken, username } = this.#credential ?? {};
    const answer = await ask(
      {
        url: identityToken ? url : withQuery(url, { ...(service ? { service } : {}), scope }),
        ...(identityToken
          ? {
              method: 'POST' as const,
              body: new URLSearchParams({
                grant_type: 'refresh_token',
                refresh_token: identityToken,
                client_id: 'coxswain',
                scope,
                ...(service ? { service } : {}),
              }).toString(),
              headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
            }
          : { headers: username === undefined ? {} : { Authorization: basic(this.#credential!) } }),
        tls: this.#endpoint.tls,
        isTrustedHost: url.hostname === this.#endpoint.url.hostname || isLocalHost(this.#endpoint.url),
        signal: this.#signal,
      },
      this.#network,
    );
    if (answer.status !== 200)
      throw new RegistryError(
        answer.status === 400 || answer.status === 403 ? 401 : answer.status,
        `failed to authorize: failed to fetch ${username === undefined && !identityToken ? 'anonymous' : 'oauth'} token: unexpected status from GET request to ${url.origin}${url.pathname}: ${answer.status}: ${await errorText(answer)}`,
      );
    const text = (await readAll(answer.body, TOKEN_BYTES_MAX, 'token')).toString('utf8');
    let token: unknown;
    try {
      const parsed = JSON.parse(text) as { token?: unknown; access_token?: unknown };
      token = parsed.token ?? parsed.access_token;
    } catch {
      token = undefined;
    }
    if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token))
      throw new RegistryError(401, 'failed to authorize: the token server sent no token');
    return token;
  }
}

/**
 * The bytes of one blob, pulled by the reader: a connection that breaks is made again from where it was. `finish` reads what is left
 * and rejects unless all bytes together have the digest.
 */
export class BlobStream {
  readonly #descriptor: BlobDescriptor;
  readonly #openAt: (from: number) => Promise<{ body: Readable; from: number }>;
  readonly #pause: (attempt: number) => Promise<void>;
  readonly #signal: AbortSignal;
  readonly #onBytes: ((count: number) => void) | undefined;
  readonly #kept: PartialBlob | undefined;
  readonly #hash: Hash;
  #present: Generator<Buffer> | undefined;
  #body: Readable | undefined;
  #iterator: AsyncIterator<Buffer> | undefined;
  #skip = 0;
  #done = 0;
  #resumes = 0;

  constructor(options: {
    readonly descriptor: BlobDescriptor;
    readonly open: (from: number) => Promise<{ body: Readable; from: number }>;
    readonly pause: (attempt: number) => Promise<void>;
    readonly signal: AbortSignal;
    readonly onBytes?: (count: number) => void;
    readonly kept?: PartialBlob;
  }) {
    this.#descriptor = options.descriptor;
    this.#kept = options.kept;
    this.#present = options.kept?.parts();
    this.#openAt = options.open;
    this.#pause = options.pause;
    this.#signal = options.signal;
    this.#onBytes = options.onBytes;
    this.#hash = hashFor(options.descriptor.digest);
  }

  /** Undefined at the end of the blob. */
  async next(): Promise<Buffer | undefined> {
    const { size, digest } = this.#descriptor;
    const present = this.#present?.next();
    if (present && !present.done) return this.#take(present.value);
    this.#present = undefined;
    for (;;) {
      if (this.#done >= size) return undefined;
      try {
        if (!this.#iterator) await this.#connect();
        const { value, done } = (await this.#iterator!.next()) as IteratorResult<Buffer, undefined>;
        if (done) throw new Error(`unexpected EOF after ${this.#done} of ${size} bytes`);
        let part: Buffer = value;
        if (this.#skip > 0) {
          const skipped = Math.min(this.#skip, part.length);
          this.#skip -= skipped;
          part = part.subarray(skipped);
          if (part.length === 0) continue;
        }
        if (this.#done + part.length > size)
          throw new DigestError(`blob ${digest} is longer than the ${size} bytes its manifest says`);
        this.#kept?.append(part);
        return this.#take(part);
      } catch (error) {
        this.close();
        this.#signal.throwIfAborted();
        if (
          error instanceof DigestError ||
          error instanceof RegistryError ||
          error instanceof RefusedError ||
          this.#resumes >= RESUMES_MAX
        )
          throw error;
        await this.#pause(this.#resumes++);
      }
    }
  }
  #take(part: Buffer): Buffer {
    this.#done += part.length;
    this.#hash.update(part);
    this.#onBytes?.(part.length);
    return part;
  }
  async #connect(): Promise<void> {
    const { body, from } = await this.#openAt(this.#done);
    // A registry without ranges begins at the start again.
    if (from > this.#done) throw new DigestError(`registry answered from byte ${from} instead of ${this.#done}`);
    this.#skip = this.#done - from;
    this.#body = body;
    this.#iterator = body[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  /** Rejects with DigestError when the content is not what the digest says. */
  async finish(): Promise<void> {
    let rest = 0;
    for (let part = await this.next(); part; part = await this.next()) {
      rest += part.length;
      if (rest > DRAIN_BYTES_MAX) throw new DigestError(`blob ${this.#descriptor.digest} goes on after its content`);
    }
    const { digest } = this.#descriptor;
    const found = `${digest.slice(0, digest.indexOf(':'))}:${this.#hash.digest('hex')}`;
    if (found === digest) return;
    this.#kept?.discard();
    throw new DigestError(`content does not match its digest: ${found} is not ${digest}`);
  }
  close(): void {
    this.#present?.return(undefined);
    this.#present = undefined;
    this.#body?.destroy();
    this.#body = undefined;
    this.#iterator = undefined;
  }
}

interface Challenge {
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** RFC 9110: `Bearer realm="…",scope="…", Basic realm=…`. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  const token = /\s*,?\s*([A-Za-z][\w-]*)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+)))?/y;
  for (let match = token.exec(header); match; match = token.exec(header)) {
    const [, name, quoted, bare] = match;
    const value = quoted?.replace(/\\(.)/g, '$1') ?? bare;
    if (value === undefined) challenges.push({ scheme: name!.toLowerCase(), parameters: new Map() });
    else challenges.at(-1)?.parameters.set(name!.toLowerCase(), value);
  }
  return challenges;
}

function isLocalHost(url: URL): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  return host === 'localhost' || (/^[\d.]+$|:/.test(host) && isLocalAddress(host));
}

function basic({ username = '', password = '' }: Credential): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

function withQuery(url: URL, parameters: Readonly<Record<string, string>>): URL {
  const full = new URL(url);
  // Several scopes come in one value, and go out as several.
  for (const [name, value] of Object.entries(parameters))
    for (const part of name === 'scope' ? value.split(' ') : [value]) full.searchParams.append(name, part);
  return full;
}

function one(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

function digestOf(bytes: Buffer, like: string): string {
  const algorithm = like.slice(0, like.indexOf(':'));
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
}

async function readAll(body: Readable, bytesMax: number, what: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of body as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > bytesMax) throw new Error(`${what} is larger than ${bytesMax} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** `errors[].message` of the API, else the beginning of what was sent, without control characters. */
async function errorText(answer: Answer): Promise<string> {
  let text: string;
  try {
    text = (await readAll(answer.body, ERROR_BYTES_MAX, 'answer')).toString('utf8');
  } catch (error) {
    text = error instanceof UnreachableError ? messageOf(error) : '';
  }
  try {
    const { errors } = JSON.parse(text) as { errors?: { code?: string; message?: string }[] };
    if (errors?.length) text = errors.map(({ code, message }) => [code, message].filter(Boolean).join(': ')).join(', ');
  } catch {
    // Not JSON: a proxy's page.
  }
  return (
    text
      .replace(/[\u0000-\u001f\u007f]+/g, ' ')
      .slice(0, ERROR_TEXT_MAX)
      .trim() || 'no message'
  );
}
