/**
 * Addresses and ranges in forms that are going out of use. New ones are refused or warned of; what an object already has
 * stays, so that whoever updates something else in it is not kept from that. The same for pods whose rules grew. Pure.
 */

import type { FieldError } from '../../base/errors.ts';
import { canonicalIp, isMappedIp, STRICT_FORM_PROBLEMS } from './names.ts';

const PROBLEMS = Object.values(STRICT_FORM_PROBLEMS).map(problem => `: ${problem}`);

/** The findings but for forms of addresses that the old object has in the same list; `old` is asked only when there are any. */
export function forgiveOldForms(
  errors: readonly FieldError[],
  old: () => readonly FieldError[] | undefined,
): readonly FieldError[] {
  return forgiveStored(errors, old, isAboutForm);
}

/** The findings but for those that the old object has too, whatever its index in a list. */
export function forgiveStored(
  errors: readonly FieldError[],
  old: () => readonly FieldError[] | undefined,
  isForgivable: (error: FieldError) => boolean = () => true,
): readonly FieldError[] {
  if (!errors.some(isForgivable)) return errors;
  const place = ({ field, message }: FieldError): string => `${field.replace(/\[\d+\]/g, '')}\n${message}`;
  const before = new Set((old() ?? []).filter(isForgivable).map(place));
  return errors.filter(error => !isForgivable(error) || !before.has(place(error)));
}

function isAboutForm({ message }: FieldError): boolean {
  return PROBLEMS.some(problem => message.endsWith(problem));
}

/** Adds what upstream says of a valid address that is not in its one spelling. */
export function warnOfAddress(warnings: string[], path: string, address: string | undefined): void {
  if (!address?.includes(':')) return;
  const canonical = canonicalIp(address);
  if (canonical === undefined) return;
  if (isMappedIp(address))
    warnings.push(
      `${path}: non-standard IP address "${address}" will be considered invalid in a future Kubernetes release: use "${canonical.slice('::ffff:'.length)}"`,
    );
  else if (canonical !== address)
    warnings.push(`${path}: IPv6 address "${address}" should be in RFC 5952 canonical format ("${canonical}")`);
}

/** The same of a range. */
export function warnOfRange(warnings: string[], path: string, range: string | undefined): void {
  if (!range?.includes(':')) return;
  const [address = '', length = ''] = range.split('/');
  const canonical = canonicalIp(address);
  if (canonical === undefined || isMappedIp(address) || canonical === address) return;
  warnings.push(
    `${path}: IPv6 CIDR value "${range}" should be in RFC 5952 canonical format ("${canonical}/${length}")`,
  );
}
