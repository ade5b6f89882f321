/**
 * Brings CustomResourceDefinitions that a cluster begins with to the form that this version has. Invariant: what somebody else has installed
 * or changed stays, and so does what a newer version has written. It refuses to remove a definition.
 */

import { isDeepStrictEqual } from 'node:util';
import type { CustomResourceDefinition } from '../api/apiextensions/v1.gen.ts';
import { isReason } from '../base/errors.ts';
import type { Client } from './client.ts';
import { CUSTOM_RESOURCE_DEFINITIONS } from './resources.ts';

const BUNDLE_VERSION = /\/bundle-version$/;

/**
 * Whether it was created. With a `manager` only what this field manager alone has written is touched; without one everything
 * is, for groups that are nobody else's.
 */
export async function keepDefinition(
  client: Client,
  wanted: CustomResourceDefinition,
  { manager }: { readonly manager?: string | undefined } = {},
): Promise<boolean> {
  const definitions = client.of<CustomResourceDefinition>(CUSTOM_RESOURCE_DEFINITIONS);
  const options = { fieldManager: manager };
  const { name, annotations = {}, labels = {} } = wanted.metadata;
  const stored = await definitions.get('', name).catch(error => {
    if (!isReason(error, 'NotFound')) throw error;
  });
  if (!stored) {
    try {
      await definitions.create(wanted, options);
      return true;
    } catch (error) {
      if (!isReason(error, 'AlreadyExists')) throw error;
      return false;
    }
  }
  if (manager && !isWrittenBy(stored, manager)) return false;
  if (isOlder(wanted, stored)) return false;
  const { versions, names } = wanted.spec;
  const isAsWanted =
    isDeepStrictEqual(stored.spec.versions, versions) &&
    holds(stored.spec.names, names) &&
    holds(stored.metadata.annotations, annotations) &&
    holds(stored.metadata.labels, labels);
  if (isAsWanted) return false;
  // Whoever changes it between these two requests is not overwritten: it is looked at again.
  const { resourceVersion } = stored.metadata;
  const patch = { metadata: { resourceVersion, annotations, labels }, spec: { versions, names } };
  try {
    await definitions.patch('', name, patch, undefined, options);
    return false;
  } catch (error) {
    if (!isReason(error, 'Conflict')) throw error;
    return keepDefinition(client, wanted, { manager });
  }
}

const holds = (stored: object = {}, wanted: object) =>
  Object.entries(wanted).every(([key, value]) => isDeepStrictEqual((stored as Record<string, unknown>)[key], value));

function isWrittenBy({ metadata }: CustomResourceDefinition, manager: string): boolean {
  const writers = (metadata.managedFields ?? []).filter(({ fieldsV1 }) => Object.hasOwn(fieldsV1 ?? {}, 'f:spec'));
  return writers.length > 0 && writers.every(entry => entry.manager === manager);
}

/** By the annotation of upstream's bundles (`v1.5.0`); a pre-release is its release. */
function isOlder(one: CustomResourceDefinition, other: CustomResourceDefinition): boolean {
  const [[major, minor, patch], [otherMajor, otherMinor, otherPatch]] = [bundleVersion(one), bundleVersion(other)];
  return (major - otherMajor || minor - otherMinor || patch - otherPatch) < 0;
}

function bundleVersion({ metadata }: CustomResourceDefinition): readonly [number, number, number] {
  const found = Object.entries(metadata.annotations ?? {}).find(([key]) => BUNDLE_VERSION.test(key))?.[1];
  const [, major = 0, minor = 0, patch = 0] = /^v(\d+)\.(\d+)\.(\d+)/.exec(found ?? '') ?? [];
  return [Number(major), Number(minor), Number(patch)];
}
