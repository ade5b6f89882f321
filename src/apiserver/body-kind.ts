/** Whether the body of a request is of the kind that its path wants, and what upstream says where it is not. */

import type { ResourceInfo } from '../api/schema.ts';
import { typeOfKind } from '../api/schema-registry.ts';
import { badRequest } from '../base/errors.ts';
import { apiVersionOf, splitApiVersion } from './resource-table.ts';

/** Where upstream makes the list of its kinds, as its messages tell. */
const SCHEME = 'pkg/api/legacyscheme/scheme.go:30';
/** An older version that is still taken for the newer one. */
const ACCEPTED: Readonly<Record<string, string>> = { 'policy/v1 Eviction': 'policy/v1beta1' };

/** The kind that a body is to be of, and the message that describes it. */
export type BodyKind = Pick<ResourceInfo, 'group' | 'version' | 'kind' | 'type'>;

export function otherNamespace(): Error {
  return badRequest('the namespace of the provided object does not match the namespace sent on the request');
}

/** What is wrong with the kind of a body that is to be `info`, in upstream's words. */
export function otherKind(
  { apiVersion, kind }: { readonly apiVersion: string; readonly kind: string },
  info: BodyKind,
  isCustom: boolean,
): string | undefined {
  const expected = apiVersionOf(info);
  if (kind === info.kind && (apiVersion === expected || apiVersion === ACCEPTED[`${expected} ${kind}`]))
    return undefined;
  const { group, version } = splitApiVersion(apiVersion);
  const isRegistered = isCustom || typeOfKind(group, version, kind) !== undefined;
  // One kind, whose newer versions have a group of their own.
  const isSame = kind === info.kind && (group === info.group || kind === 'Event');
  if (isSame && isRegistered)
    return `the API version in the data (${apiVersion}) does not match the expected API version (${expected})`;
  const home = info.group === '' || info.kind === 'Event' ? 'core' : info.group.split('.', 1)[0];
  const why =
    isRegistered && (!isCustom || apiVersion === expected)
      ? `converting (${version}.${kind}) to (${home}.${info.kind}): unknown conversion`
      : `no kind "${kind}" is registered for version "${apiVersion}" in scheme "${SCHEME}"`;
  return `${kind} in version "${version}" cannot be handled as a ${info.kind}: ${why}`;
}
