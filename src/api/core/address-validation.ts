/** Addresses that may stand for an endpoint or be reached from outside. */

import { ipFamily } from '../machinery/names.ts';
import { addInvalid, type Errors } from '../machinery/validation.ts';

/** Refuses unspecified, loopback and link-local addresses: they mean something else on every node. */
export function checkNonSpecialAddress(errors: Errors, path: string, address: string): void {
  const family = ipFamily(address);
  if (!family) {
    addInvalid(errors, path, address, 'must be a valid IP address');
    return;
  }
  const text = address.toLowerCase();
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(text)?.[1];
  const four = family === 4 ? text : mapped;
  const unspecified = four === '0.0.0.0' || (family === 6 && /^[0:]+$/.test(text));
  const loopback = four?.startsWith('127.') || (family === 6 && /^(0*:)+0*1$/.test(text));
  const linkLocal = four?.startsWith('169.254.') || (family === 6 && /^fe[89ab][0-9a-f]:/.test(text));
  const multicast = four?.startsWith('224.0.0.') || (family === 6 && /^ff[0-9a-f]2:/.test(text));
  if (unspecified) addInvalid(errors, path, address, `may not be unspecified (${address})`);
  if (loopback) addInvalid(errors, path, address, 'may not be in the loopback range (127.0.0.0/8, ::1/128)');
  if (linkLocal) addInvalid(errors, path, address, 'may not be in the link-local range (169.254.0.0/16, fe80::/10)');
  if (multicast)
    addInvalid(errors, path, address, 'may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)');
}
