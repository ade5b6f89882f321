/**
 * Validation of `metadata` for every kind, on create and on update, as apimachinery's `ValidateObjectMeta`. Pure; it
 * never fills anything in (the registry sets uid, creationTimestamp, generation and resourceVersion).
 */

import { type FieldError, fieldErrors } from '../../base/errors.ts';
import type { ObjectMeta, OwnerReference } from '../meta.ts';
import { qualifiedNameProblems, validateLabels } from './labels.ts';
import { byteLength, dnsLabelProblems, type NameRule, subdomainName } from './names.ts';

const TOTAL_ANNOTATION_BYTES_MAX = 256 * 1024;
const STANDARD_FINALIZERS = ['kubernetes', 'orphan', 'foregroundDeletion'];

export interface MetadataRules {
  readonly namespaced: boolean;
  /** Default: DNS-1123 subdomain. */
  readonly nameRule?: NameRule;
  /** Default `metadata`. */
  readonly path?: string;
  /** Finalizers need not name a domain: kinds that upstream does not keep among its core types. */
  readonly freeFinalizers?: boolean;
}

/** Findings for the metadata of an object that is about to be created. */
export function validateObjectMeta(meta: ObjectMeta, rules: MetadataRules): FieldError[] {
  const path = rules.path ?? 'metadata';
  const nameRule = rules.nameRule ?? subdomainName;
  const errors: FieldError[] = [];
  if (meta.generateName)
    for (const problem of nameRule(meta.generateName, true))
      errors.push(fieldErrors.invalid(`${path}.generateName`, meta.generateName, problem));
  if (!meta.name) errors.push(fieldErrors.required(`${path}.name`, 'name or generateName is required'));
  else
    for (const problem of nameRule(meta.name, false))
      errors.push(fieldErrors.invalid(`${path}.name`, meta.name, problem));
  if (!rules.namespaced) {
    if (meta.namespace) errors.push(fieldErrors.forbidden(`${path}.namespace`, 'not allowed on this type'));
  } else if (!meta.namespace) errors.push(fieldErrors.required(`${path}.namespace`));
  else
    for (const problem of dnsLabelProblems(meta.namespace))
      errors.push(fieldErrors.invalid(`${path}.namespace`, meta.namespace, problem));
  if ((meta.generation ?? 0) < 0)
    errors.push(fieldErrors.invalid(`${path}.generation`, meta.generation, 'must be greater than or equal to 0'));
  validateChangeable(meta, path, errors, rules.freeFinalizers);
  return errors;
}

/** Findings for metadata that replaces `old`. Run it after the registry carried over what it owns. */
export function validateObjectMetaUpdate(
  meta: ObjectMeta,
  old: ObjectMeta,
  { path = 'metadata', freeFinalizers }: Pick<MetadataRules, 'path' | 'freeFinalizers'> = {},
): FieldError[] {
  const errors: FieldError[] = [];
  if (old.deletionTimestamp) {
    const before = new Set(old.finalizers);
    const added = [...new Set(meta.finalizers)].filter(finalizer => !before.has(finalizer)).sort();
    if (added.length)
      errors.push(
        fieldErrors.forbidden(
          `${path}.finalizers`,
          `no new finalizers can be added if the object is being deleted, found new finalizers []string{${added.map(finalizer => JSON.stringify(finalizer)).join(', ')}}`,
        ),
      );
  }
  if (!meta.resourceVersion)
    errors.push(fieldErrors.invalid(`${path}.resourceVersion`, '', 'must be specified for an update'));
  if ((meta.generation ?? 0) < (old.generation ?? 0))
    errors.push(fieldErrors.invalid(`${path}.generation`, meta.generation ?? 0, 'must not be decremented'));
  for (const field of [
    'name',
    'namespace',
    'uid',
    'creationTimestamp',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
  ] as const)
    if ((meta[field] ?? '') !== (old[field] ?? ''))
      errors.push(fieldErrors.invalid(`${path}.${field}`, meta[field] ?? null, 'field is immutable'));
  validateChangeable(meta, path, errors, freeFinalizers);
  return errors;
}

function validateChangeable(meta: ObjectMeta, path: string, errors: FieldError[], freeFinalizers = false): void {
  if (meta.labels) errors.push(...validateLabels(meta.labels, `${path}.labels`));
  if (meta.annotations) errors.push(...validateAnnotations(meta.annotations, `${path}.annotations`));
  if (meta.ownerReferences?.length) validateOwnerReferences(meta.ownerReferences, `${path}.ownerReferences`, errors);
  if (meta.finalizers?.length) validateFinalizers(meta.finalizers, `${path}.finalizers`, errors, freeFinalizers);
}

/** Keys are qualified names whatever their case; all together at most 256 KiB. */
export function validateAnnotations(annotations: Readonly<Record<string, string>>, path: string): FieldError[] {
  const errors: FieldError[] = [];
  let bytes = 0;
  for (const key in annotations) {
    for (const problem of qualifiedNameProblems(key.toLowerCase()))
      errors.push(fieldErrors.invalid(path, key, problem));
    bytes += byteLength(key) + byteLength(annotations[key] ?? '');
  }
  if (bytes > TOTAL_ANNOTATION_BYTES_MAX) errors.push(fieldErrors.tooLong(path, TOTAL_ANNOTATION_BYTES_MAX));
  return errors;
}

/** Of a template of other objects, which may have labels and annotations only. Upstream's fields begin with one small letter. */
export function validateTemplateMeta(meta: Partial<ObjectMeta> | undefined, path: string): FieldError[] {
  const errors: FieldError[] = [];
  if (meta?.annotations) errors.push(...validateAnnotations(meta.annotations, `${path}.annotations`));
  if (meta?.labels) errors.push(...validateLabels(meta.labels, `${path}.labels`));
  for (const field in meta) {
    const isSet = Boolean(meta[field as keyof ObjectMeta]);
    if (isSet && field !== 'labels' && field !== 'annotations')
      errors.push(fieldErrors.forbidden(`${path}.${field === 'uid' ? 'uID' : field}`, 'cannot be set'));
  }
  return errors;
}

function validateOwnerReferences(references: readonly OwnerReference[], path: string, errors: FieldError[]): void {
  let controller: string | undefined;
  for (const reference of references) {
    const apiVersion = reference.apiVersion ?? '';
    const version = apiVersion.includes('/') ? apiVersion.slice(apiVersion.lastIndexOf('/') + 1) : apiVersion;
    if (!version) errors.push(fieldErrors.invalid(`${path}.apiVersion`, apiVersion, 'version must not be empty'));
    for (const field of ['kind', 'name', 'uid'] as const)
      if (!reference[field])
        errors.push(fieldErrors.invalid(`${path}.${field}`, reference[field] ?? '', 'must not be empty'));
    if (apiVersion === 'v1' && reference.kind === 'Event')
      errors.push(fieldErrors.invalid(path, reference, '/v1, Kind=Event is disallowed from being an owner'));
    if (!reference.controller) continue;
    if (controller === undefined) controller = reference.name;
    else
      errors.push(
        fieldErrors.invalid(
          path,
          references,
          `Only one reference can have Controller set to true. Found "true" in references for ${controller} and ${reference.name}`,
        ),
      );
  }
}

function validateFinalizers(finalizers: readonly string[], path: string, errors: FieldError[], isFree: boolean): void {
  finalizers.forEach((finalizer, index) => {
    for (const problem of qualifiedNameProblems(finalizer)) errors.push(fieldErrors.invalid(path, finalizer, problem));
    if (!isFree) errors.push(...finalizerNameErrors(finalizer, `${path}[${index}]`));
  });
  if (finalizers.includes('orphan') && finalizers.includes('foregroundDeletion'))
    errors.push(fieldErrors.invalid(path, finalizers, 'finalizer orphan and foregroundDeletion cannot be both set'));
}

/** An unqualified finalizer must be one of Kubernetes' own. */
export function finalizerNameErrors(finalizer: string, path: string): FieldError[] {
  if (finalizer.includes('/') || STANDARD_FINALIZERS.includes(finalizer)) return [];
  return [fieldErrors.invalid(path, finalizer, 'name is neither a standard finalizer name nor is it fully qualified')];
}
