/**
 * `cache`: remembers what other servers answered, for as long as they allow and at most as long as it is told, bounded in
 * number and bytes. Questions asked at the same time are asked once. It never remembers the cluster's own answers: those
 * are in memory anyway, and must follow every change at once.
 */

import type { Clock } from '../../base/clock.ts';
import type { Directive } from '../corefile.ts';
import { type Answer, FLAG, RCODE } from '../message.ts';
import { denialTtl, shortestTtl, withTtl } from '../records.ts';
import {
  durationMs,
  type Plugin,
  type PluginContext,
  type Request,
  takes,
  unknownProperty,
  wholeNumber,
  withinAny,
  wrong,
  zonesOf,
  zonesOr,
} from './plugin.ts';

const CAPACITY = 9984;
const SUCCESS_SECONDS_MAX = 3600;
const DENIAL_SECONDS_MAX = 1800;
const SECONDS_MIN = 5;
const SERVFAIL_SECONDS = 5;
const STALE_MS = 3_600_000;
/** What a half of the cache holds at most, besides the number of its entries. */
const BYTES_MAX = 16 * 1024 * 1024;
const ENTRY_BYTES = 200;

interface Entry {
  readonly answer: Answer;
  readonly untilMs: number;
  readonly lifeMs: number;
  /** Since the last gap. */
  hits: number;
  lastMs: number;
}

interface HalfOptions {
  capacity: number;
  secondsMax: number;
  secondsMin: number;
  disabled: (name: string) => boolean;
}

/** Successes, or denials. The oldest entry goes first. */
class Half {
  readonly entries = new Map<string, Entry>();
  readonly options: HalfOptions;
  bytes = 0;
  constructor(options: HalfOptions) {
    this.options = options;
  }
  put(key: string, entry: Entry): void {
    this.remove(key);
    this.entries.set(key, entry);
    this.bytes += entry.answer.body.length + ENTRY_BYTES;
    for (const oldest of this.entries.keys()) {
      if (this.entries.size <= this.options.capacity && this.bytes <= BYTES_MAX) break;
      this.remove(oldest);
    }
  }
  remove(key: string): void {
    const entry = this.entries.get(key);
    if (!entry) return;
    this.entries.delete(key);
    this.bytes -= entry.answer.body.length + ENTRY_BYTES;
  }
}

interface CacheOptions {
  success: HalfOptions;
  denial: HalfOptions;
  covers: (name: string) => boolean;
  servfailMs: number;
  staleMs: number;
  /** Popular answers are asked for again before they end. */
  prefetch: { hits: number; gapMs: number; share: number } | undefined;
  keepsTtl: boolean;
}

export const cache: Plugin = {
  name: 'cache',
  setup([directive], context) {
    const known = new Cache(optionsOf(directive!, context), context);
    return { stage: (request, next) => known.answer(request, next) };
  },
};

class Cache {
  readonly #options: CacheOptions;
  readonly #clock: Clock;
  readonly #success: Half;
  readonly #denial: Half;
  readonly #pending = new Map<string, Promise<Answer>>();
  readonly #counts: { hits: number; denials: number; misses: number; stale: number; prefetches: number } = {
    hits: 0,
    denials: 0,
    misses: 0,
    stale: 0,
    prefetches: 0,
  };

  constructor(options: CacheOptions, { clock, metrics }: PluginContext) {
    this.#options = options;
    this.#clock = clock;
    this.#success = new Half(options.success);
    this.#denial = new Half(options.denial);
    const hits = metrics.counter('coredns_cache_hits_total', 'The count of cache hits.', ['type']);
    const misses = metrics.counter('coredns_cache_misses_total', 'The count of cache misses.');
    const entries = metrics.gauge('coredns_cache_entries', 'The number of elements in the cache.', ['type']);
    const stale = metrics.counter(
      'coredns_cache_served_stale_total',
      'The number of requests served from stale entries.',
    );
    const prefetches = metrics.counter('coredns_cache_prefetch_total', 'The number of times an entry was prefetched.');
    metrics.onCollect(() => {
      hits.set(this.#counts.hits, 'success');
      hits.set(this.#counts.denials, 'denial');
      misses.set(this.#counts.misses);
      entries.set(this.#success.entries.size, 'success');
      entries.set(this.#denial.entries.size, 'denial');
      stale.set(this.#counts.stale);
      prefetches.set(this.#counts.prefetches);
    });
  }

  answer(request: Request, next: (request: Request) => Answer | Promise<Answer>): Answer | Promise<Answer> {
    // Questions of our own (a look for a loop) must go out.
    if (request.remote === '' || !this.#options.covers(request.name)) return next(request);
    const key = `${request.type} ${Number(request.dnssecOk)}${Number(request.checkingDisabled)} ${request.name}`;
    const known = this.#known(key);
    if (known) {
      const nowMs = this.#clock.monotonic();
      const leftMs = known.untilMs - nowMs;
      if (leftMs <= 0) this.#counts.stale++;
      else if (known.answer.rcode === RCODE.NOERROR && known.answer.answers > 0) this.#counts.hits++;
      else this.#counts.denials++;
      if (leftMs <= 0 || this.#isDueAgain(known, nowMs)) this.#refresh(key, request, next);
      if (this.#options.keepsTtl && leftMs > 0) return known.answer;
      return withTtl(known.answer, Math.max(0, Math.ceil(leftMs / 1000)));
    }
    const pending = this.#pending.get(key);
    if (pending) return pending;
    const reply = next(request);
    if (!(reply instanceof Promise)) return reply;
    this.#counts.misses++;
    return this.#await(key, request.name, reply);
  }

  #known(key: string): Entry | undefined {
    const nowMs = this.#clock.monotonic();
    for (const half of [this.#success, this.#denial]) {
      const entry = half.entries.get(key);
      if (entry && nowMs < entry.untilMs + this.#options.staleMs) return entry;
      if (entry) half.remove(key);
    }
    return undefined;
  }

  #isDueAgain(entry: Entry, nowMs: number): boolean {
    const { prefetch } = this.#options;
    if (!prefetch) return false;
    entry.hits = nowMs - entry.lastMs > prefetch.gapMs ? 1 : entry.hits + 1;
    entry.lastMs = nowMs;
    const due = entry.hits >= prefetch.hits && entry.untilMs - nowMs < Math.max(1000, entry.lifeMs * prefetch.share);
    if (due) this.#counts.prefetches++;
    return due;
  }

  #refresh(key: string, request: Request, next: (request: Request) => Answer | Promise<Answer>): void {
    if (this.#pending.has(key)) return;
    const reply = next(request);
    if (reply instanceof Promise) this.#await(key, request.name, reply).catch(() => {});
  }

  async #await(key: string, name: string, reply: Promise<Answer>): Promise<Answer> {
    const kept = reply.then(answer => this.#keep(key, name, answer));
    this.#pending.set(key, kept);
    try {
      return await kept;
    } finally {
      this.#pending.delete(key);
    }
  }

  /** The answer as it is told: its times to live cut to what this cache allows. */
  #keep(key: string, name: string, answer: Answer): Answer {
    const flags = answer.flags ?? 0;
    if (flags & (FLAG.AA | FLAG.TC)) return answer;
    if (answer.rcode === RCODE.SERVFAIL) {
      // An older answer that may still be served is worth more than a failure.
      if (!this.#denial.entries.has(key) && !this.#success.entries.has(key))
        this.#store(this.#denial, key, answer, this.#options.servfailMs);
      return answer;
    }
    const denies = answer.rcode === RCODE.NXDOMAIN || (answer.rcode === RCODE.NOERROR && answer.answers === 0);
    if (!denies && answer.rcode !== RCODE.NOERROR) return answer;
    const half = denies ? this.#denial : this.#success;
    const { secondsMax, secondsMin, disabled } = half.options;
    if (disabled(name)) return answer;
    const allowed = denies ? denialTtl(answer, name) : shortestTtl(answer);
    const seconds = Math.min(Math.max(allowed ?? SECONDS_MIN, secondsMin), secondsMax);
    (denies ? this.#success : this.#denial).remove(key);
    this.#store(half, key, answer, seconds * 1000);
    return this.#options.keepsTtl ? answer : withTtl(answer, seconds);
  }

  #store(half: Half, key: string, answer: Answer, lifeMs: number): void {
    if (lifeMs <= 0) return;
    const nowMs = this.#clock.monotonic();
    half.put(key, { answer, untilMs: nowMs + lifeMs, lifeMs, hits: 0, lastMs: nowMs });
  }
}

function optionsOf(directive: Directive, context: PluginContext): CacheOptions {
  const [first, ...rest] = directive.args;
  const hasTtl = first !== undefined && /^\d+$/.test(first);
  const ttl = hasTtl ? wholeNumber(directive, first, { min: 1, max: 86_400 * 365 }) : undefined;
  const never = (): boolean => false;
  const options: CacheOptions = {
    success: { capacity: CAPACITY, secondsMax: ttl ?? SUCCESS_SECONDS_MAX, secondsMin: SECONDS_MIN, disabled: never },
    denial: { capacity: CAPACITY, secondsMax: ttl ?? DENIAL_SECONDS_MAX, secondsMin: SECONDS_MIN, disabled: never },
    covers: withinAny(zonesOr(directive, hasTtl ? rest : directive.args, context)),
    servfailMs: SERVFAIL_SECONDS * 1000,
    staleMs: 0,
    prefetch: undefined,
    keepsTtl: false,
  };
  for (const property of directive.block) {
    const { name, args } = property;
    if (name === 'success' || name === 'denial') {
      takes(property, { args: 3 });
      const half = options[name];
      half.capacity = wholeNumber(property, args[0], { min: 1, max: 1_000_000 });
      if (args[1] !== undefined) half.secondsMax = wholeNumber(property, args[1], { min: 1, max: 86_400 * 365 });
      if (args[2] !== undefined) half.secondsMin = wholeNumber(property, args[2], { min: 0, max: half.secondsMax });
    } else if (name === 'servfail') {
      options.servfailMs = Math.min(durationMs(property, args[0]), 5 * 60_000);
    } else if (name === 'serve_stale') {
      takes(property, { args: 2 });
      if (args[1] !== undefined && args[1] !== 'immediate')
        wrong(property, `refresh mode '${args[1]}' is not supported; use 'immediate'`);
      options.staleMs = args[0] === undefined ? STALE_MS : durationMs(property, args[0]);
    } else if (name === 'prefetch') {
      const percent = /^(\d+)%$/.exec(args[2] ?? '10%')?.[1];
      options.prefetch = {
        hits: wholeNumber(property, args[0], { min: 1, max: 1_000_000 }),
        gapMs: args[1] === undefined ? 60_000 : durationMs(property, args[1]),
        share: wholeNumber(property, percent, { min: 10, max: 90 }) / 100,
      };
    } else if (name === 'disable') {
      const [which, ...zones] = args;
      if (which !== 'success' && which !== 'denial')
        wrong(property, `must be 'success' or 'denial', not '${which ?? ''}'`);
      options[which].disabled = withinAny(zones.length > 0 ? zonesOf(property, zones) : ['']);
    } else if (name === 'keepttl') options.keepsTtl = true;
    else unknownProperty(directive, property);
  }
  return options;
}
