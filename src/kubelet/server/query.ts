/** Query parameters read as Kubernetes' conversions read them. */

import { badRequest } from '../../base/errors.ts';

/** Present, and neither empty nor `0` nor `false`. */
export function flag(query: URLSearchParams, name: string): boolean {
  const value = query.get(name);
  return value !== null && !['', '0', 'false'].includes(value.toLowerCase());
}

/** A decimal integer; undefined when absent or empty. Throws BadRequest. */
export function integer(query: URLSearchParams, name: string): number | undefined {
  const value = query.get(name);
  if (value === null || value === '') return undefined;
  if (!/^[+-]?\d{1,18}$/.test(value)) throw badRequest('{"message": "Unable to decode query."}');
  return Number(value);
}
