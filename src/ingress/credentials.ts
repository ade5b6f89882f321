/**
 * What Secrets hold for an Ingress, checked: certificates with their keys, and users with the hashes of their passwords.
 * Nothing that comes out has a line that HAProxy would read as something else.
 */

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { messageOf } from '../base/errors.ts';
import type { BasicAuth } from './settings.ts';

export type SecretData = Readonly<Record<string, string>>;

/** Certificate chain and key in one text without empty lines, or why not. */
export type Certificate = { readonly pem: string; readonly warning?: string } | { readonly problem: string };

const BLOCK = /-----BEGIN ([A-Z ]+)-----[A-Za-z0-9+/=\s]+-----END \1-----/g;

export function readCertificate(data: SecretData | undefined, host: string): Certificate {
  const read = readKeyPair(data);
  if ('problem' in read) return read;
  const warning = certificateWarning(new X509Certificate(read.pem), host);
  return warning ? { ...read, warning } : read;
}

/** The same, whomever it is for. */
export function readKeyPair(data: SecretData | undefined): { readonly pem: string } | { readonly problem: string } {
  const { 'tls.crt': chain, 'tls.key': key } = data ?? {};
  if (!data) return { problem: 'does not exist' };
  if (!chain || !key) return { problem: `has no ${chain ? 'tls.key' : 'tls.crt'}` };
  try {
    const first = new X509Certificate(chain);
    if (!first.checkPrivateKey(createPrivateKey(key)))
      return { problem: 'holds a key that is not that of its certificate' };
    const certificates = [...chain.matchAll(BLOCK)].filter(([, type]) => type === 'CERTIFICATE');
    for (const [text] of certificates) new X509Certificate(text);
    const keys = [...key.matchAll(BLOCK)].filter(([, type]) => type!.endsWith('PRIVATE KEY'));
    if (certificates.length === 0 || keys.length === 0) return { problem: 'holds no PEM certificate and key' };
    return { pem: [...certificates, keys[0]!].map(([text]) => text.replace(/\s*\n\s*/g, '\n')).join('\n') };
  } catch (error) {
    return { problem: `holds no usable certificate: ${messageOf(error)}` };
  }
}

function certificateWarning(certificate: X509Certificate, host: string): string | undefined {
  const name = host.replace(/^\*/, 'any');
  if (!certificate.checkHost(name))
    return `is not for ${host} but for ${certificate.subjectAltName ?? certificate.subject}`;
  return undefined;
}

/** Certificates of authorities without what stands between them; undefined when there is none, or one that is none. */
export function readAuthorities(text: string | undefined): string | undefined {
  const blocks = [...(text ?? '').matchAll(BLOCK)].filter(([, type]) => type === 'CERTIFICATE');
  if (blocks.length === 0) return undefined;
  try {
    for (const [block] of blocks) new X509Certificate(block);
  } catch {
    return undefined;
  }
  return blocks.map(([block]) => `${block.replace(/\s*\n\s*/g, '\n')}\n`).join('');
}

export interface Users {
  /** Hashes that crypt(3) knows. */
  readonly crypt: ReadonlyMap<string, string>;
  /** htpasswd's own: `$apr1$` and `{SHA}`. */
  readonly htpasswd: ReadonlyMap<string, string>;
  readonly problem?: string;
}

const USER = /^[\x21-\x39\x3b-\x7e]{1,255}$/;
const CRYPT = /^(\$(1|5|6|2[aby]|y)\$[A-Za-z0-9./$=,]{8,200}|[A-Za-z0-9./]{13})$/;
const HTPASSWD = /^(\$apr1\$[A-Za-z0-9./]{1,8}\$[A-Za-z0-9./]{22}|\{SHA\}[A-Za-z0-9+/]{27}=)$/;

export function readUsers(data: SecretData | undefined, format: BasicAuth['format']): Users {
  const crypt = new Map<string, string>();
  const htpasswd = new Map<string, string>();
  const finish = (problem?: string): Users => ({ crypt, htpasswd, ...(problem ? { problem } : {}) });
  if (!data) return finish('does not exist; nobody is let in');
  if (format === 'file' && data['auth'] === undefined) return finish('has no key auth; nobody is let in');
  const pairs =
    format === 'map'
      ? Object.entries(data)
      : data['auth']!.split(/\r?\n/)
          .filter(line => line.includes(':') && !line.startsWith('#'))
          .map(line => splitAt(line));
  let skipped = 0;
  for (const [user, raw] of pairs) {
    const hash = raw.trim();
    if (!USER.test(user) || !(CRYPT.test(hash) || HTPASSWD.test(hash))) skipped++;
    else (HTPASSWD.test(hash) ? htpasswd : crypt).set(user, hash);
  }
  return finish(skipped > 0 ? `has ${skipped} users whose names or hashes are not understood` : undefined);
}

function splitAt(line: string): [string, string] {
  const at = line.indexOf(':');
  return [line.slice(0, at), line.slice(at + 1).split(':')[0]!];
}
