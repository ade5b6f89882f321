/**
 * The annotation in which client-side apply keeps its configuration. `kubectl apply --server-side` takes over what that
 * annotation vouches for, and keeps it current so that one can go back.
 */

import type { KubeObject } from '../../api/meta.ts';
import { compareObjects, isMap } from './comparison.ts';
import { fieldsNamed } from './configuration.ts';
import { difference, type FieldSet } from './field-set.ts';
import type { FieldTable } from './structure.ts';

/** The manager that uses it. */
export const KUBECTL = 'kubectl';
export const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration';
const TOTAL_ANNOTATION_BYTES_MAX = 256 * 1024;

/** Fields that the annotation of the live object names and that still have its values. */
export function vouchedByLastApplied(table: FieldTable, live: KubeObject): FieldSet | undefined {
  const text = live.metadata.annotations?.[LAST_APPLIED];
  if (!text) return undefined;
  let configuration: unknown;
  try {
    configuration = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isMap(configuration) || configuration['apiVersion'] !== live.apiVersion) return undefined;
  const comparison = compareObjects(table, configuration, live);
  const named = fieldsNamed(table, configuration);
  return difference(difference(named, comparison?.changed), comparison?.removed);
}

/** The object with the annotation, which it must have already, brought up to the configuration. */
export function withLastApplied(object: KubeObject, configuration: KubeObject): KubeObject {
  const annotations = object.metadata.annotations;
  if (!annotations?.[LAST_APPLIED]) return object;
  const { [LAST_APPLIED]: _, ...own } = configuration.metadata.annotations ?? {};
  const metadata: Record<string, unknown> = { ...configuration.metadata, annotations: own };
  if (Object.keys(own).length === 0 && configuration.metadata.annotations === undefined) delete metadata['annotations'];
  const text = `${escaped(JSON.stringify(inKeyOrder({ ...configuration, metadata })))}\n`;
  const { [LAST_APPLIED]: old, ...others } = annotations;
  if (old === text) return object;
  const next: Record<string, string> = { ...others, [LAST_APPLIED]: text };
  if (bytesOf(next) > TOTAL_ANNOTATION_BYTES_MAX) delete next[LAST_APPLIED];
  return { ...object, metadata: { ...object.metadata, annotations: next } };
}

/** As Go writes JSON, so that kubectl finds the text that it would write itself. */
function escaped(json: string): string {
  return json.replace(/[<>&\u2028\u2029]/g, letter => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function bytesOf(annotations: Record<string, string>): number {
  let bytes = 0;
  for (const key in annotations) bytes += Buffer.byteLength(key) + Buffer.byteLength(annotations[key]!);
  return bytes;
}

function inKeyOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inKeyOrder);
  if (!isMap(value)) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map(key => [key, inKeyOrder(value[key])]),
  );
}
