/**
 * Keys of service account tokens held by a process behind a unix socket (KEP-740, `externaljwt/v1`): it signs, and tells the public
 * keys, which are asked for again as often as it wants and when a token names one that is not known. Invariant: what it signed goes out
 * only with a header of upstream's three fields, which names no key that discovery does not tell. Without an answer the keys known so far stay in use.
 */

import { createPublicKey } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import { call } from '../../csi/calls.ts';
import { GrpcClient, GrpcError } from '../../csi/grpc.ts';
import { bytes, flag, integer, type Message, message, moment, repeated, schema, text } from '../../csi/protobuf.ts';
import { ALGORITHM_NAMES, type TokenKeys, type VerificationKey, verificationKey } from './token-keys.ts';

const KEY = schema({ keyId: text(1), key: bytes(2), excludeFromOidcDiscovery: flag(3) });
type Told = Partial<Message<typeof KEY.fields>>;

export const EXTERNAL_SIGNER_CALLS = {
  sign: call(
    '/v1.ExternalJWTSigner/Sign',
    schema({ claims: text(1) }),
    schema({ header: text(1), signature: text(2) }),
  ),
  fetchKeys: call(
    '/v1.ExternalJWTSigner/FetchKeys',
    schema({}),
    schema({ keys: repeated(message(1, KEY)), dataTimestamp: moment(2), refreshHintSeconds: integer(3) }),
  ),
  metadata: call('/v1.ExternalJWTSigner/Metadata', schema({}), schema({ maxTokenExpirationSeconds: integer(1) })),
} as const;

const START_MS_MAX = 60_000;
const START_WAIT_MS = 500;
const CALL_MS_MAX = 60_000;
const METADATA_MS_MAX = 10_000;
/** After keys could not be had. */
const REFRESH_AGAIN_MS = 10_000;
/** So that no stream of tokens with unknown keys becomes a stream of calls. */
const FETCH_APART_MS = 1000;
const KEY_ID_BYTES_MAX = 1024;
const LIFETIME_SECONDS_LEAST = 600;

const keysTime = metrics.gauge(
  'apiserver_externaljwt_fetch_keys_data_timestamp',
  'Unix Timestamp in seconds of the last successful FetchKeys data_timestamp value returned by the external signer',
);
const fetches = metrics.counter(
  'apiserver_externaljwt_fetch_keys_request_total',
  'Total attempts at syncing supported JWKs',
  ['code'],
);
const fetchTime = metrics.gauge(
  'apiserver_externaljwt_fetch_keys_success_timestamp',
  'Unix Timestamp in seconds of the last successful FetchKeys request',
);
const signatures = metrics.counter('apiserver_externaljwt_sign_request_total', 'Total attempts at signing JWT', [
  'code',
]);
const durations = metrics.histogram(
  'apiserver_externaljwt_request_duration_seconds',
  'Request duration and time for calls to external-jwt-signer',
  [0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
  ['method', 'code'],
);

export interface ExternalSignerOptions {
  /** Path of the unix socket. */
  readonly socket: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export class ExternalSigner implements TokenKeys {
  known: readonly VerificationKey[] = [];
  generation = 0;
  lifetimeSecondsMax: number | undefined;
  readonly #options: ExternalSignerOptions;
  readonly #client: GrpcClient<typeof EXTERNAL_SIGNER_CALLS>;
  #fetching: Promise<void> | undefined;
  #fetchedMs = Number.NEGATIVE_INFINITY;
  #refreshAtMs = 0;
  /** What tells one set of keys from another. */
  #mark = '';

  constructor(options: ExternalSignerOptions) {
    this.#options = options;
    this.#client = new GrpcClient(options.socket, EXTERNAL_SIGNER_CALLS);
  }

  get copySecondsMax(): number {
    return Math.max(0, Math.floor((this.#refreshAtMs - this.#options.clock.monotonic()) / 1000));
  }

  /** Resolves once keys and limits are known; the signer has a minute to come. Throws when it does not, or says what cannot be. */
  async start({ maxSeconds }: { maxSeconds: number | undefined }): Promise<void> {
    try {
      await this.#awaitKeys();
      this.lifetimeSecondsMax = await this.#longestLife(maxSeconds);
    } catch (error) {
      this.#client.close();
      throw error;
    }
  }
  async #awaitKeys(): Promise<void> {
    const { clock, socket } = this.#options;
    const endMs = clock.monotonic() + START_MS_MAX;
    for (;;) {
      try {
        await this.#fetch();
        return;
      } catch (error) {
        if (clock.monotonic() >= endMs || !(error instanceof GrpcError))
          throw new Error(`service account token signer at ${socket}: ${messageOf(error)}; start it first`);
        await clock.sleep(START_WAIT_MS);
      }
    }
  }
  async #longestLife(maxSeconds: number | undefined): Promise<number> {
    const { maxTokenExpirationSeconds: most } = await this.#timed(
      'Metadata',
      this.#client.call('metadata', {}, { deadlineMs: METADATA_MS_MAX }),
    );
    if (most < LIFETIME_SECONDS_LEAST)
      throw new Error(
        `max token life supported by external-jwt-signer (${most}s) is less than acceptable (min ${LIFETIME_SECONDS_LEAST}s)`,
      );
    if (maxSeconds !== undefined && maxSeconds > most)
      throw new Error(
        `service-account-max-token-expiration cannot be set longer than the token expiration supported by service-account-signing-endpoint: ${maxSeconds}s > ${most}s`,
      );
    return most;
  }

  /** Asks for the keys as often as the signer wants, until the signal aborts. */
  async follow(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    signal.addEventListener('abort', () => this.#client.close(), { once: true });
    while (!signal.aborted) {
      await clock.sleep(Math.max(0, this.#refreshAtMs - clock.monotonic()), signal);
      if (signal.aborted) return;
      try {
        await this.#fetch();
      } catch (error) {
        this.#refreshAtMs = clock.monotonic() + REFRESH_AGAIN_MS;
        log.warn('keys of service account tokens are not refreshed', { error: messageOf(error) });
      }
    }
  }

  async sign(payload: string): Promise<string> {
    try {
      const { header, signature } = await this.#timed(
        'Sign',
        this.#client.call('sign', { claims: payload }, { deadlineMs: CALL_MS_MAX }),
      );
      await this.#checkHeader(header);
      if (signature === '') throw new Error('empty signature returned');
      signatures.add(1, 'OK');
      return `${header}.${payload}.${signature}`;
    } catch (error) {
      signatures.add(1, codeOf(error));
      throw new Error(`failed to generate token: while signing jwt: ${messageOf(error)}`);
    }
  }

  find(id: string): readonly VerificationKey[] | Promise<readonly VerificationKey[]> {
    const found = this.#named(id);
    if (found.length > 0) return found;
    return this.#fresh().then(() => this.#named(id));
  }
  #named(id: string): readonly VerificationKey[] {
    return id === '' ? this.known : this.known.filter(key => key.id === id);
  }

  async #checkHeader(header: string): Promise<void> {
    const { alg, kid, typ, ...others } = headerOf(header);
    const [other] = Object.keys(others);
    if (other !== undefined) throw new Error(`while parsing header JSON: json: unknown field ${JSON.stringify(other)}`);
    if (typ !== 'JWT') throw new Error('bad type');
    if (typeof kid !== 'string' || kid === '') throw new Error('key id missing');
    if (Buffer.byteLength(kid) > KEY_ID_BYTES_MAX) throw new Error('key id longer than 1 kb');
    if (!ALGORITHM_NAMES.includes(String(alg))) throw new Error(`bad signing algorithm ${JSON.stringify(alg ?? '')}`);
    for (const { isHidden } of await this.find(kid))
      if (isHidden) throw new Error(`key used for signing JWT (kid: ${kid}) is excluded from OIDC discovery docs`);
  }

  /** Keys as they are now, or as they were a moment ago. */
  async #fresh(): Promise<void> {
    const { clock, log } = this.#options;
    if (!this.#fetching && clock.monotonic() - this.#fetchedMs < FETCH_APART_MS) return;
    await this.#fetch().catch(error =>
      log.warn('keys of service account tokens cannot be had', { error: messageOf(error) }),
    );
  }
  #fetch(): Promise<void> {
    this.#fetching ??= this.#fetchOnce().finally(() => {
      this.#fetching = undefined;
      this.#fetchedMs = this.#options.clock.monotonic();
    });
    return this.#fetching;
  }
  async #fetchOnce(): Promise<void> {
    const { clock } = this.#options;
    try {
      const { keys, dataTimestamp, refreshHintSeconds } = await this.#timed(
        'FetchKeys',
        this.#client.call('fetchKeys', {}, { deadlineMs: CALL_MS_MAX }),
      );
      if (refreshHintSeconds <= 0) throw new Error(`found invalid refresh hint (${refreshHintSeconds}s)`);
      if (keys.length === 0) throw new Error('found no keys');
      const mark = JSON.stringify(keys.map(({ key, ...rest }) => [key?.toString('base64'), rest]));
      if (mark !== this.#mark) {
        this.known = keys.map(keyOf);
        this.#mark = mark;
        this.generation++;
      }
      this.#refreshAtMs = clock.monotonic() + refreshHintSeconds * 1000;
      fetches.add(1, 'OK');
      fetchTime.set(clock.now() / 1000);
      keysTime.set(dataTimestamp / 1000);
    } catch (error) {
      fetches.add(1, codeOf(error));
      throw error;
    }
  }

  async #timed<T>(method: string, calling: Promise<T>): Promise<T> {
    const { clock } = this.#options;
    const startMs = clock.monotonic();
    const observe = (code: string) => durations.observe((clock.monotonic() - startMs) / 1000, method, code);
    try {
      const reply = await calling;
      observe('OK');
      return reply;
    } catch (error) {
      observe(codeOf(error));
      throw error;
    }
  }
}

function keyOf({
  keyId = '',
  key = Buffer.alloc(0),
  excludeFromOidcDiscovery: isHidden = false,
}: Told): VerificationKey {
  if (keyId === '' || Buffer.byteLength(keyId) > KEY_ID_BYTES_MAX)
    throw new Error(`found invalid public key id ${JSON.stringify(keyId)}`);
  if (key.length === 0) throw new Error('found empty public key');
  try {
    const parsed = createPublicKey({ key, format: 'der', type: 'spki' });
    return verificationKey(parsed, { id: keyId, isHidden });
  } catch (error) {
    throw new Error(`while parsing external public keys: ${messageOf(error)}`);
  }
}

function headerOf(header: string): Record<string, unknown> {
  try {
    return JSON.parse(Buffer.from(header, 'base64url').toString());
  } catch (error) {
    throw new Error(`while parsing header JSON: ${messageOf(error)}`);
  }
}

/** As gRPC's status codes are named in Go. */
const codeOf = (error: unknown): string => /code = (\w+)/.exec(messageOf(error))?.[1] ?? 'Unknown';
