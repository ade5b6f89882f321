/** Randomness, injected: names, jitter and tie-breaks. Secrets use `node:crypto` instead, never this. */

import { randomUUID } from 'node:crypto';

export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  uuid(): string;
}

export const systemRandom: Random = { next: Math.random, uuid: randomUUID };

/** A repeatable source (mulberry32) for tests and simulation. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const hex = (digits: number) => Array.from({ length: digits }, () => Math.floor(next() * 16).toString(16)).join('');
  return { next, uuid: () => `${hex(8)}-${hex(4)}-4${hex(3)}-a${hex(3)}-${hex(12)}` };
}

// Kubernetes' alphabet for generated names: no vowels or look-alikes, so that no words arise (apimachinery util/rand).
const NAME_ALPHABET = 'bcdfghjklmnpqrstvwxz2456789';

export function randomSuffix(random: Random, length = 5): string {
  let out = '';
  for (let i = 0; i < length; i++) out += NAME_ALPHABET[Math.floor(random.next() * NAME_ALPHABET.length)];
  return out;
}

/** Kubernetes' SafeEncodeString: maps a number's decimal digits into the name alphabet (pod-template-hash). */
export function safeEncode(text: string): string {
  let out = '';
  for (const char of text) out += NAME_ALPHABET[char.charCodeAt(0) % NAME_ALPHABET.length];
  return out;
}
