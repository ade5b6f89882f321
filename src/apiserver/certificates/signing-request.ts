/** PKCS #10 requests for certificates, as a client of certificates.k8s.io sends them. */

import { type KeyObject, sign } from 'node:crypto';
import { isIP } from 'node:net';
import { bits, integer, octets, oid, primitive, sequence, set, tagged, utf8 } from '../../api/certificates/der.ts';
import { addressBytes, keyPem, newKey, type Subject } from './certificate.ts';

/** A request for the subject with the alternative names, signed with its key; base64 of its PEM, and its key as PEM. */
export function makeRequest(
  { commonName, organizations = [] }: Subject,
  names: readonly string[] = [],
  { privateKey, publicKey }: { privateKey: KeyObject; publicKey: KeyObject } = newKey(),
): { readonly request: string; readonly key: string } {
  const part = (type: string, value: string) => set(sequence(oid(type), utf8(value)));
  const alternative = names.map(name =>
    isIP(name) ? primitive(7, addressBytes(name)) : primitive(2, Buffer.from(name)),
  );
  const extensions = sequence(sequence(oid('2.5.29.17'), octets(sequence(...alternative))));
  const body = sequence(
    integer(Buffer.from([0])),
    sequence(...organizations.map(value => part('2.5.4.10', value)), part('2.5.4.3', commonName)),
    publicKey.export({ type: 'spki', format: 'der' }),
    tagged(0, ...(names.length > 0 ? [sequence(oid('1.2.840.113549.1.9.14'), set(extensions))] : [])),
  );
  const whole = sequence(body, sequence(oid('1.2.840.10045.4.3.2')), bits(sign('sha256', body, privateKey)));
  const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${whole.toString('base64').replace(/.{1,64}/g, '$&\n')}-----END CERTIFICATE REQUEST-----\n`;
  return { request: Buffer.from(pem).toString('base64'), key: keyPem(privateKey) };
}
