/**
 * A store whose values are sealed at rest as a configuration says, resource by resource. Callers see plain values only. Invariant: what
 * the store below gets for a configured resource was sealed by its first provider. It knows which keys are still sealed another way
 * (`isStale`), so that writing an unchanged object seals it anew: that is how keys are rotated.
 */

import { messageOf } from '../../base/errors.ts';
import type {
  Change,
  Delete,
  Entry,
  Key,
  Page,
  Progress,
  Put,
  Revision,
  Store,
  StoreEvent,
} from '../../store/store.ts';
import { ConflictError } from '../../store/store.ts';
import type { EncryptionRule } from './encryption-configuration.ts';
import { type Envelope, IDENTITY } from './envelope.ts';

const SEALED = Buffer.from('k8s:enc:');
const PLAIN: readonly Envelope[] = [IDENTITY];

export class EncryptedStore implements Store {
  readonly #store: Store;
  #rules: readonly EncryptionRule[];
  /** Envelopes by `/registry/GROUP/RESOURCE/`. */
  #byPrefix = new Map<string, readonly Envelope[]>();
  /** How the values of configured resources are sealed: key → prefix of its envelope. */
  readonly #sealedBy = new Map<Key, string>();
  /** Plain values of what is on its way through the store, by their sealed form. */
  readonly #passing = new WeakMap<Uint8Array, Uint8Array>();

  constructor(store: Store, rules: readonly EncryptionRule[]) {
    this.#store = store;
    this.#rules = rules;
  }

  /** Other rules from now on; what was written before is read by them too. */
  use(rules: readonly EncryptionRule[]): void {
    this.#rules = rules;
    this.#byPrefix = new Map();
  }

  /** Whether the value is kept in another way than it would be written now. */
  isStale(key: Key): boolean {
    const sealedBy = this.#sealedBy.get(key);
    if (sealedBy === undefined) return false;
    const [{ prefix, mark = '' }] = this.#envelopes(key) as readonly [Envelope];
    return sealedBy !== prefix + mark;
  }

  revision(): Revision {
    return this.#store.revision();
  }
  async get(key: Key, at?: Revision): Promise<Entry | undefined> {
    const entry = await this.#store.get(key, at);
    if (entry) await this.#prepared([entry]);
    return entry && this.#opened(entry);
  }
  async list(prefix: Key, page?: { at?: Revision; limit?: number; after?: Key }): Promise<Page> {
    const found = await this.#store.list(prefix, page);
    const isNow = page?.at === undefined;
    await this.#prepared(found.entries);
    return {
      ...found,
      entries: found.entries.map(entry => {
        if (isNow) this.#note(entry);
        return this.#opened(entry);
      }),
    };
  }
  async commit(op: Put | Delete): Promise<Revision> {
    try {
      if (op.type === 'delete') return await this.#store.commit(op);
      const [envelope] = this.#envelopes(op.key);
      if (envelope === IDENTITY) return await this.#store.commit(op);
      const sealed = Buffer.concat([Buffer.from(envelope!.prefix), envelope!.seal(op.value, op.key)]);
      this.#passing.set(sealed, op.value);
      return await this.#store.commit({ ...op, value: sealed });
    } catch (error) {
      if (error instanceof ConflictError && error.current)
        throw new ConflictError(error.key, this.#opened(error.current));
      throw error;
    }
  }
  async *watch(prefix: Key, from: Revision, signal: AbortSignal): AsyncIterable<StoreEvent | Progress> {
    for await (const event of this.#store.watch(prefix, from, signal)) {
      if (event.type !== 'progress')
        await this.#prepared([
          ...(event.type === 'put' ? [event.entry] : []),
          ...(event.previous ? [event.previous] : []),
        ]);
      if (event.type === 'progress') yield event;
      else if (event.type === 'delete') yield { ...event, previous: this.#opened(event.previous) };
      else
        yield {
          ...event,
          entry: this.#opened(event.entry),
          ...(event.previous ? { previous: this.#opened(event.previous) } : {}),
        };
    }
  }
  follow(from: Revision, apply: (change: Change) => void, signal: AbortSignal): Promise<void> {
    return this.#store.follow(
      from,
      change => {
        if (change.type === 'delete') {
          this.#sealedBy.delete(change.key);
          return apply(change);
        }
        this.#note(change.entry);
        apply({ type: 'put', entry: this.#opened(change.entry) });
      },
      signal,
    );
  }
  bytesOnDisk(): number {
    return this.#store.bytesOnDisk?.() ?? 0;
  }
  compact(before: Revision): Promise<void> {
    return this.#store.compact(before);
  }
  close(): Promise<void> {
    return this.#store.close();
  }

  /** Resolves when all of them can be opened; what cannot is found out then. */
  async #prepared(entries: readonly Entry[]): Promise<void> {
    const rules = this.#rules;
    for (const { key, value } of entries) {
      if (!isSealed(value) || this.#passing.has(value)) continue;
      const envelope = envelopeOf(this.#envelopes(key), value);
      const waiting = envelope?.prepare?.(bodyOf(envelope, value));
      if (waiting)
        await waiting.catch(error => {
          throw new Error(`${key} cannot be decrypted with the key ${envelope!.prefix}: ${messageOf(error)}`);
        });
    }
    // Meanwhile others may have come, who know nothing yet.
    if (this.#rules !== rules) await this.#prepared(entries);
  }

  /** What is wrong with whoever keeps the keys; undefined when nothing is. */
  problem(): string | undefined {
    for (const { envelopes } of this.#rules)
      for (const envelope of envelopes) {
        const problem = envelope.problem?.();
        if (problem) return `${envelope.prefix} ${problem}`;
      }
    return undefined;
  }

  #note({ key, value }: Entry): void {
    const envelopes = this.#envelopes(key);
    if (envelopes === PLAIN && !isSealed(value)) return;
    const envelope = envelopeOf(envelopes, value);
    const mark = envelope?.markOf?.(bodyOf(envelope, value)) ?? '';
    this.#sealedBy.set(key, (envelope?.prefix ?? '') + mark);
  }

  #opened(entry: Entry): Entry {
    const { key, value } = entry;
    const passing = this.#passing.get(value);
    if (passing) return { ...entry, value: passing };
    if (!isSealed(value)) return entry;
    const envelope = envelopeOf(this.#envelopes(key), value);
    if (!envelope)
      throw new Error(
        `${key} is encrypted (${prefixText(value)}) and no provider of --encryption-provider-config has its key; give the file that it was written with`,
      );
    try {
      return { ...entry, value: envelope.open(bodyOf(envelope, value), key) };
    } catch (error) {
      throw new Error(`${key} cannot be decrypted with the key ${envelope.prefix}: ${messageOf(error)}`);
    }
  }

  #envelopes(key: Key): readonly Envelope[] {
    const end = key.indexOf('/', key.indexOf('/', '/registry/'.length) + 1) + 1;
    const prefix = key.slice(0, end);
    let found = this.#byPrefix.get(prefix);
    if (!found) this.#byPrefix.set(prefix, (found = this.#find(prefix)));
    return found;
  }

  // The first rule that names the resource, as upstream: exact names come before wildcards only by their order.
  #find(prefix: string): readonly Envelope[] {
    const [, , group = '', resource = ''] = prefix.split('/');
    const ofGroup = group === 'core' ? '' : group;
    const rule = this.#rules.find(({ resources }) => resources.some(text => fits(text, { group: ofGroup, resource })));
    return rule?.envelopes ?? PLAIN;
  }
}

function fits(text: string, { group, resource }: { group: string; resource: string }): boolean {
  const dot = text.indexOf('.');
  const [name, ofGroup] = dot < 0 ? [text, ''] : [text.slice(0, dot), text.slice(dot + 1)];
  if (text === '*.*') return true;
  return (name === '*' || name === resource) && ofGroup === group;
}

function isSealed(value: Uint8Array): boolean {
  if (value.length < SEALED.length) return false;
  for (let at = 0; at < SEALED.length; at++) if (value[at] !== SEALED[at]) return false;
  return true;
}

function envelopeOf(envelopes: readonly Envelope[], value: Uint8Array): Envelope | undefined {
  if (!isSealed(value)) return IDENTITY;
  const head = Buffer.from(value.buffer, value.byteOffset, Math.min(value.length, 512)).toString('latin1');
  return envelopes.find(({ prefix }) => prefix !== '' && head.startsWith(prefix));
}

/** The value without its prefix. */
function bodyOf({ prefix }: Envelope, value: Uint8Array): Buffer {
  return Buffer.from(value.buffer, value.byteOffset, value.length).subarray(prefix.length);
}

function prefixText(value: Uint8Array): string {
  const head = Buffer.from(value.buffer, value.byteOffset, Math.min(value.length, 128)).toString('latin1');
  return /^k8s:enc:[a-z0-9]+:v\d+:[^:]*:/.exec(head)?.[0] ?? 'k8s:enc:…';
}
