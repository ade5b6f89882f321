/**
 * Values sealed by a key management service (KMS v2, KEP-3299): a plugin behind a unix socket encrypts a seed once, and every value gets a
 * key of its own derived from the seed. The form at rest is upstream's. Invariant: a value is sealed only while the plugin has answered
 * within the last minutes, and by the key that it named last; a value of a seed that is not known yet is opened after `prepare`.
 */

import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { activeSpan, traced } from '../../base/tracing/active.ts';
import { call } from '../../csi/calls.ts';
import { GrpcClient } from '../../csi/grpc.ts';
import { bytes, decode, encode, integer, message, repeated, schema, text } from '../../csi/protobuf.ts';
import type { Envelope } from './envelope.ts';

const ANNOTATIONS = repeated(message(4, schema({ key: text(1), value: bytes(2) })));
const ANNOTATIONS_OF_REPLY = repeated(message(3, schema({ key: text(1), value: bytes(2) })));

/** The three calls of `k8s.io/kms/apis/v2`. */
export const KEY_SERVICE_CALLS = {
  status: call(
    '/v2.KeyManagementService/Status',
    schema({}),
    schema({ version: text(1), healthz: text(2), keyId: text(3) }),
  ),
  encrypt: call(
    '/v2.KeyManagementService/Encrypt',
    schema({ plaintext: bytes(1), uid: text(2) }),
    schema({ ciphertext: bytes(1), keyId: text(2), annotations: ANNOTATIONS_OF_REPLY }),
  ),
  decrypt: call(
    '/v2.KeyManagementService/Decrypt',
    schema({ ciphertext: bytes(1), uid: text(2), keyId: text(3), annotations: ANNOTATIONS }),
    schema({ plaintext: bytes(1) }),
  ),
} as const;

const SEALED = schema({
  data: bytes(1),
  keyId: text(2),
  seed: bytes(3),
  annotations: ANNOTATIONS,
  seedType: integer(5),
});
/** HKDF_SHA256_XNONCE_AES_GCM_SEED; 0 is one AES-GCM key for all values. */
const SEED = 1;

const SEED_BYTES = 32;
const INFO_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const STATUS_HEALTHY_MS = 60_000;
const STATUS_UNHEALTHY_MS = 10_000;
/** How long a seed serves without an answer of the plugin. */
const SEED_VALID_MS = 3 * 60_000;
const START_ATTEMPTS = 10;
const START_WAIT_MS = 500;

interface Annotation {
  readonly key: string;
  readonly value: Buffer;
}

interface Current {
  readonly seed: Buffer;
  /** All but `data` of what is stored with a value. */
  readonly keyId: string;
  readonly sealedSeed: Buffer;
  readonly annotations: readonly Annotation[];
}

export interface KeyServiceOptions {
  readonly name: string;
  /** Path of the unix socket. */
  readonly socket: string;
  readonly timeoutMs: number;
}

export class KeyService implements Envelope {
  readonly prefix: string;
  readonly #options: KeyServiceOptions;
  readonly #client: GrpcClient<typeof KEY_SERVICE_CALLS>;
  /** Seeds by what is stored of them, in base64. */
  readonly #seeds = new Map<string, Buffer>();
  #current: Current | undefined;
  #clock: Clock | undefined;
  #healthyMs = 0;
  #problem: string | undefined;

  constructor(options: KeyServiceOptions) {
    this.#options = options;
    this.prefix = `k8s:enc:kms:v2:${options.name}:`;
    this.#client = new GrpcClient(options.socket, KEY_SERVICE_CALLS);
  }

  /** What a value says that is sealed as it would be now. */
  get mark(): string {
    return this.#current?.keyId ?? '';
  }
  markOf(sealed: Buffer): string {
    return decode(SEALED, sealed).keyId;
  }
  /** Why the plugin is not in order; undefined when it is. */
  problem(): string | undefined {
    return this.#problem;
  }

  /** Resolves once values can be sealed; then asks the plugin how it is until the signal aborts. Throws when it does not answer. */
  async start({ clock, log, signal }: { clock: Clock; log: Logger; signal: AbortSignal }): Promise<void> {
    if (this.#clock) return;
    this.#clock = clock;
    signal.addEventListener('abort', () => this.#client.close(), { once: true });
    for (let attempt = 1; ; attempt++) {
      await this.#look(clock);
      if (!this.#problem) break;
      if (attempt === START_ATTEMPTS || signal.aborted)
        throw new Error(
          `key management service ${this.#options.name} at ${this.#options.socket}: ${this.#problem}; start its plugin first`,
        );
      await clock.sleep(START_WAIT_MS, signal);
    }
    void this.#follow({ clock, log, signal });
  }

  async #follow({ clock, log, signal }: { clock: Clock; log: Logger; signal: AbortSignal }): Promise<void> {
    let said: string | undefined;
    while (!signal.aborted) {
      await clock.sleep(this.#problem ? STATUS_UNHEALTHY_MS : STATUS_HEALTHY_MS, signal);
      if (signal.aborted) return;
      await this.#look(clock);
      if (this.#problem !== said && this.#problem)
        log.warn('key management service is not healthy', { name: this.#options.name, error: this.#problem });
      said = this.#problem;
    }
  }

  /** Asks the plugin how it is; another key makes another seed. Exposed for tests: rotation need not be waited for. */
  async refresh(): Promise<void> {
    if (this.#clock) await this.#look(this.#clock);
  }

  async #look(clock: Clock): Promise<void> {
    const deadlineMs = this.#options.timeoutMs;
    try {
      const { version, healthz, keyId } = await this.#client.call('status', {}, { deadlineMs });
      if (version !== 'v2' && version !== 'v2beta1') throw new Error(`unexpected version ${JSON.stringify(version)}`);
      if (healthz !== 'ok') throw new Error(`unhealthy: ${healthz}`);
      checkKeyId(keyId);
      if (this.#current?.keyId !== keyId) this.#current = await this.#newSeed(keyId);
      this.#healthyMs = clock.now();
      this.#problem = undefined;
    } catch (error) {
      this.#problem = messageOf(error);
    }
  }

  async #newSeed(expected: string): Promise<Current> {
    const seed = randomBytes(SEED_BYTES);
    const { ciphertext, keyId, annotations } = await this.#client.call(
      'encrypt',
      { plaintext: seed, uid: uid() },
      { deadlineMs: this.#options.timeoutMs },
    );
    checkKeyId(keyId);
    // The key changed between the two calls: the next look finds it.
    if (keyId !== expected) throw new Error(`the key changed from ${expected} to ${keyId} meanwhile`);
    if (ciphertext.length === 0) throw new Error('the encrypted seed is empty');
    this.#seeds.set(ciphertext.toString('base64'), seed);
    return { seed, keyId, sealedSeed: ciphertext, annotations: annotations as readonly Annotation[] };
  }

  seal(plain: Uint8Array, context: string): Buffer {
    const current = this.#current;
    if (!current || !this.#clock || this.#clock.now() - this.#healthyMs > SEED_VALID_MS)
      throw new Error(`key management service ${this.#options.name} has not answered for too long: ${this.#problem}`);
    const attributes = { 'transformer.provider.name': this.#options.name };
    return traced('TransformToStorage with envelopeTransformer', attributes, () => sealBy(current, plain, context));
  }

  /** Asks the plugin for the seed of a value that is not known yet; undefined when it is. */
  prepare(sealed: Buffer): Promise<void> | undefined {
    const { seed, keyId, annotations } = decode(SEALED, sealed);
    const id = seed.toString('base64');
    if (this.#seeds.has(id)) return undefined;
    return this.#client
      .call('decrypt', { ciphertext: seed, uid: uid(), keyId, annotations }, { deadlineMs: this.#options.timeoutMs })
      .then(({ plaintext }) => {
        this.#seeds.set(id, plaintext);
      });
  }

  open(sealed: Buffer, context: string): Buffer {
    const { data, seed, seedType } = decode(SEALED, sealed);
    const known = this.#seeds.get(seed.toString('base64'));
    if (!known) throw new Error('its seed was not asked for');
    const isSeed = seedType === SEED;
    const body = isSeed ? data.subarray(INFO_BYTES) : data;
    const key = isSeed ? derived(known, data.subarray(0, INFO_BYTES)) : known;
    if (body.length < NONCE_BYTES + TAG_BYTES) throw new Error('the stored data was shorter than the required size');
    const end = body.length - TAG_BYTES;
    const decipher = createDecipheriv('aes-256-gcm', key, body.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
    decipher.setAAD(Buffer.from(context)).setAuthTag(body.subarray(end));
    return Buffer.concat([decipher.update(body.subarray(NONCE_BYTES, end)), decipher.final()]);
  }
}

function sealBy({ seed, keyId, sealedSeed, annotations }: Current, plain: Uint8Array, context: string): Buffer {
  const span = activeSpan();
  span?.event('About to encrypt data using DEK');
  const info = randomBytes(INFO_BYTES);
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', derived(seed, info), nonce).setAAD(Buffer.from(context));
  const data = Buffer.concat([info, nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  span?.event('Data encryption succeeded');
  span?.event('About to encode encrypted object');
  const sealed = encode(SEALED, { data, keyId, seed: sealedSeed, annotations, seedType: SEED });
  span?.event('Encoded encrypted object');
  return sealed;
}

/** HKDF-Expand of SHA-256 (RFC 5869): the first block is all of it. */
function derived(seed: Buffer, info: Uint8Array): Buffer {
  return createHmac('sha256', seed)
    .update(info)
    .update(Buffer.from([1]))
    .digest();
}

const uid = (): string => randomBytes(16).toString('hex');

function checkKeyId(keyId: string): void {
  if (keyId === '') throw new Error('the key id is empty');
  if (Buffer.byteLength(keyId) > 1024) throw new Error('the key id is longer than 1024 bytes');
}
