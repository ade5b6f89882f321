/**
 * One way to keep a value at rest, by its key: `seal` for what is written, `open` for what was. Sealed values begin with a prefix that
 * names provider and key (`k8s:enc:aescbc:v1:key1:`), the same as upstream's, so that either server reads what the other wrote.
 */

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { xsalsa20poly1305 } from '@noble/ciphers/salsa.js';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';

export interface Envelope {
  /** What its sealed values begin with; '' for plain ones. */
  readonly prefix: string;
  /** `context` is the value's place in the store: it cannot be opened at another, where the provider binds it. */
  seal(plain: Uint8Array, context: string): Buffer;
  /** Throws for what was not sealed by this key, or has been changed. */
  open(sealed: Buffer, context: string): Buffer;
  /** Where keys change under one prefix: which one seals now, and which one sealed a value (without its prefix). */
  readonly mark?: string;
  markOf?(sealed: Buffer): string;
  /** Must be waited for before `open` where it returns a promise. */
  prepare?(sealed: Buffer): Promise<void> | undefined;
  /** Must be waited for before anything else. */
  start?(options: { readonly clock: Clock; readonly log: Logger; readonly signal: AbortSignal }): Promise<void>;
  /** Why it is not in order. */
  problem?(): string | undefined;
}

export const IDENTITY: Envelope = {
  prefix: '',
  seal: plain => Buffer.from(plain),
  open: sealed => sealed,
};

const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const BLOCK_BYTES = 16;
const BOX_NONCE_BYTES = 24;

export function aesGcm(key: Buffer): Omit<Envelope, 'prefix'> {
  const algorithm = `aes-${key.length * 8}-gcm` as 'aes-256-gcm';
  return {
    seal(plain, context) {
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv(algorithm, key, nonce).setAAD(Buffer.from(context));
      return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    },
    open(sealed, context) {
      if (sealed.length < NONCE_BYTES + TAG_BYTES)
        throw new Error('the stored data was shorter than the required size');
      const end = sealed.length - TAG_BYTES;
      const decipher = createDecipheriv(algorithm, key, sealed.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
      decipher.setAAD(Buffer.from(context)).setAuthTag(sealed.subarray(end));
      return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, end)), decipher.final()]);
    },
  };
}

export function aesCbc(key: Buffer): Omit<Envelope, 'prefix'> {
  const algorithm = `aes-${key.length * 8}-cbc`;
  return {
    seal(plain) {
      const vector = randomBytes(BLOCK_BYTES);
      const cipher = createCipheriv(algorithm, key, vector);
      return Buffer.concat([vector, cipher.update(plain), cipher.final()]);
    },
    open(sealed) {
      if (sealed.length < 2 * BLOCK_BYTES) throw new Error('the stored data was shorter than the required size');
      const decipher = createDecipheriv(algorithm, key, sealed.subarray(0, BLOCK_BYTES));
      return Buffer.concat([decipher.update(sealed.subarray(BLOCK_BYTES)), decipher.final()]);
    },
  };
}

export function secretBox(key: Buffer): Omit<Envelope, 'prefix'> {
  return {
    seal(plain) {
      const nonce = randomBytes(BOX_NONCE_BYTES);
      return Buffer.concat([nonce, xsalsa20poly1305(key, nonce).encrypt(plain)]);
    },
    open(sealed) {
      if (sealed.length < BOX_NONCE_BYTES + TAG_BYTES)
        throw new Error('the stored data was shorter than the required size');
      const nonce = sealed.subarray(0, BOX_NONCE_BYTES);
      return Buffer.from(xsalsa20poly1305(key, nonce).decrypt(sealed.subarray(BOX_NONCE_BYTES)));
    },
  };
}
