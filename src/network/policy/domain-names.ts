/**
 * Addresses of the names that policies accept (`domainNames`), as this node's DNS server answered them: known before whoever asked has the
 * answer, for as long as the answer may be kept, and after that while a connection lasts. Invariant: bounded, whatever is asked; an address
 * that pods have is none of them. It survives the process.
 */

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock, Timer } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';

/** Shorter answers are kept as long: who asked connects after it has the answer. */
const KEPT_SECONDS_MIN = 30;
const KEPT_SECONDS_MAX = 86_400;
/** For what is in use after its time, and after a restart. */
const AGAIN_SECONDS = 60;
const NAMES_MAX = 4096;
const ADDRESSES_MAX = 256;

export interface DomainNamesOptions {
  /** Where they are kept. */
  readonly path: string;
  /** Called as soon as a name has an address more or less. */
  readonly changed: () => void;
  /** Those that connections lead to. */
  readonly inUse: () => ReadonlySet<string>;
  /** Whether it is an address that pods have. */
  readonly isPods: (address: string) => boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Without the final dot, in lower case. */
export const plainName = (name: string): string => name.toLowerCase().replace(/\.$/, '');

/** `*` in front stands for one label or more. */
export function nameMatches(pattern: string, name: string): boolean {
  const plain = plainName(pattern);
  return plain.startsWith('*.') ? name.endsWith(plain.slice(1)) && name.length > plain.length - 1 : name === plain;
}

export class DomainNames {
  readonly #options: DomainNamesOptions;
  /** Name → address → when it may go (monotonic ms). */
  readonly #known = new Map<string, Map<string, number>>();
  #patterns: ReadonlySet<string> = new Set();
  #timer: Timer | undefined;

  constructor(options: DomainNamesOptions) {
    this.#options = options;
    this.#load();
    this.#plan();
  }

  /** Whether any policy speaks of names. */
  get isListening(): boolean {
    return this.#patterns.size > 0;
  }

  /** All names that policies speak of now. What others had is forgotten in its time: policies come one by one. */
  follow(patterns: ReadonlySet<string>): void {
    this.#patterns = patterns;
  }
  close(): void {
    this.#timer?.cancel();
  }

  addressesOf(pattern: string): string[] {
    const out = new Set<string>();
    for (const [name, addresses] of this.#known)
      if (nameMatches(pattern, name)) for (const address of addresses.keys()) out.add(address);
    return [...out].sort();
  }

  /** What is about to be answered: a name, those that it leads to, and their addresses. */
  hear(names: readonly string[], answers: readonly { readonly address: string; readonly ttlSeconds: number }[]): void {
    const { clock, isPods } = this.#options;
    const outside = answers.filter(({ address }) => !isPods(address));
    let isNew = false;
    for (const name of names.map(plainName)) {
      if (!this.#isMeant(name)) continue;
      const known = this.#known.get(name) ?? new Map<string, number>();
      for (const { address, ttlSeconds } of outside) {
        const seconds = Math.min(KEPT_SECONDS_MAX, Math.max(KEPT_SECONDS_MIN, ttlSeconds));
        const untilMs = Math.max(known.get(address) ?? 0, clock.monotonic() + seconds * 1000);
        isNew ||= !known.has(address);
        known.delete(address);
        known.set(address, untilMs);
        if (known.size > ADDRESSES_MAX) known.delete(known.keys().next().value!);
      }
      if (known.size === 0) continue;
      this.#known.delete(name);
      this.#known.set(name, known);
      if (this.#known.size > NAMES_MAX) this.#known.delete(this.#known.keys().next().value!);
    }
    if (!isNew) return;
    this.#save();
    this.#plan();
    this.#options.changed();
  }

  #isMeant(name: string): boolean {
    for (const pattern of this.#patterns) if (nameMatches(pattern, name)) return true;
    return false;
  }

  #plan(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const times = [...this.#known.values()].flatMap(addresses => [...addresses.values()]);
    if (times.length === 0) return;
    const { clock } = this.#options;
    const next = times.reduce((a, b) => Math.min(a, b));
    this.#timer = clock.after(Math.max(1000, next - clock.monotonic()), () => this.#expire(), { background: true });
  }

  #expire(): void {
    const { clock, inUse, changed, log } = this.#options;
    const nowMs = clock.monotonic();
    let used: ReadonlySet<string> | undefined;
    let isLess = false;
    for (const [name, addresses] of this.#known) {
      for (const [address, untilMs] of addresses) {
        if (untilMs > nowMs) continue;
        if (!this.#isMeant(name)) {
          addresses.delete(address);
          continue;
        }
        try {
          used ??= inUse();
        } catch (error) {
          log.warn('connections cannot be listed: no address of a name is forgotten', { error: messageOf(error) });
        }
        if (!used || used.has(address)) addresses.set(address, nowMs + AGAIN_SECONDS * 1000);
        else isLess = addresses.delete(address) || isLess;
      }
      if (addresses.size === 0) this.#known.delete(name);
    }
    this.#plan();
    if (!isLess) return;
    this.#save();
    changed();
  }

  #load(): void {
    const { path, clock, log } = this.#options;
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch {
      return;
    }
    try {
      const untilMs = clock.monotonic() + AGAIN_SECONDS * 1000;
      for (const [name, addresses] of Object.entries(JSON.parse(text) as Record<string, string[]>))
        this.#known.set(name, new Map(addresses.map(address => [address, untilMs])));
    } catch (error) {
      log.warn('addresses of names are not readable, learned anew', { path, error: messageOf(error) });
    }
  }

  #save(): void {
    const { path, log } = this.#options;
    const all = Object.fromEntries([...this.#known].map(([name, addresses]) => [name, [...addresses.keys()]]));
    try {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(`${path}.new`, JSON.stringify(all));
      renameSync(`${path}.new`, path);
    } catch (error) {
      log.warn('addresses of names are not kept', { path, error: messageOf(error) });
    }
  }
}
