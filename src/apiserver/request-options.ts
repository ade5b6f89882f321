/**
 * Options of requests, from query or body: upstream's ListOptions, CreateOptions and the like. They are checked before
 * anything happens, with the messages of their validation. Nothing here looks at an object.
 */

import { checkFields, type FieldValidation } from '../api/structural.ts';
import { badRequest, type FieldError, fieldErrors, invalid } from '../base/errors.ts';
import { fieldManagerProblem, managerOf } from './apply/managers.ts';
import type { Trail } from './audit/trail.ts';
import type { Deletion } from './deletion.ts';
import type { Selectors } from './dispatcher.ts';
import { intProblem } from './go-numbers.ts';
import type { ListQuery } from './list.ts';
import type { Operation } from './registry.ts';
import type { RequestAttributes } from './request.ts';
import type { Served } from './resource-table.ts';

const GROUP = 'meta.k8s.io';
const KINDS: Readonly<Record<string, string>> = {
  create: 'CreateOptions',
  patch: 'PatchOptions',
  delete: 'DeleteOptions',
  deletecollection: 'DeleteOptions',
};
const READS = new Set(['get', 'list', 'watch']);
const FIELD_VALIDATIONS: readonly FieldValidation[] = ['Ignore', 'Strict', 'Warn'];
const PROPAGATIONS = ['Foreground', 'Background', 'Orphan', 'nil'];
export const NO_QUERY = new URLSearchParams();

/** What a request is to do and by whose name; options of writes mean nothing to reads. */
export function operationOf(
  warnings: (message: string) => void,
  request: {
    attributes: RequestAttributes;
    served: Served;
    query: URLSearchParams;
    userAgent?: string | undefined;
    trail: Trail | undefined;
  },
): Operation {
  const { attributes, served, query, userAgent, trail } = request;
  const written = query !== NO_QUERY && !READS.has(attributes.verb) ? writeOptions(attributes.verb, query) : undefined;
  return {
    attributes,
    served,
    fieldManager: managerOf(written?.fieldManager ?? null, userAgent),
    dryRun: written?.dryRun ?? false,
    fieldValidation: written?.fieldValidation ?? 'Warn',
    warn: warnings,
    ...(trail ? { trail } : {}),
  };
}

function writeOptions(
  verb: string,
  query: URLSearchParams,
): Pick<Operation, 'dryRun' | 'fieldValidation'> & { fieldManager: string | null } {
  const errors: FieldError[] = [];
  const dryRun = query.getAll('dryRun');
  checkDryRun(errors, dryRun);
  const fieldValidation = (query.get('fieldValidation') || 'Warn') as FieldValidation;
  if (!FIELD_VALIDATIONS.includes(fieldValidation))
    errors.push(fieldErrors.notSupported('fieldValidation', fieldValidation, FIELD_VALIDATIONS));
  const fieldManager = query.get('fieldManager');
  const problem = fieldManager && fieldManagerProblem(fieldManager);
  if (problem) errors.push({ ...problem, field: 'fieldManager' });
  if (errors.length > 0) throw invalid({ group: GROUP, kind: KINDS[verb] ?? 'UpdateOptions' }, '', errors);
  return { dryRun: dryRun.length > 0, fieldValidation, fieldManager };
}

function checkDryRun(errors: FieldError[], dryRun: readonly string[]): void {
  if (dryRun.some(value => value !== 'All')) errors.push(fieldErrors.notSupported('dryRun', dryRun, ['All']));
}

/** DeleteOptions, of which a dry run is the request's and not the deletion's. */
export type AskedDeletion = Deletion & { readonly dryRun?: readonly string[] };

export function deletionOf(query: URLSearchParams): AskedDeletion {
  const grace = numberOf(query, 'gracePeriodSeconds');
  const policy = query.get('propagationPolicy');
  const orphan = query.get('orphanDependents');
  return {
    ...(grace === undefined ? {} : { gracePeriodSeconds: grace }),
    ...(policy !== null ? { propagationPolicy: policy as NonNullable<Deletion['propagationPolicy']> } : {}),
    ...(orphan === null ? {} : { orphanDependents: isTrue(orphan) }),
  };
}

/** DeleteOptions from a body. Older clients name another group's version of them. */
export function decodeDeletion(body: unknown): AskedDeletion {
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw badRequest('the object provided is unrecognized (must be of type DeleteOptions)');
  const { kind } = body as { kind?: unknown };
  if (kind && kind !== 'DeleteOptions')
    throw badRequest(`${String(kind)} cannot be handled as a DeleteOptions: decoded object cannot be converted`);
  const { mismatch } = checkFields('meta.v1.DeleteOptions', body, 'Ignore');
  if (mismatch !== undefined)
    throw badRequest(`DeleteOptions in version "v1" cannot be handled as a DeleteOptions: ${mismatch}`);
  return Object.fromEntries(Object.entries(body).filter(([, field]) => field !== null)) as AskedDeletion;
}

/** Throws Invalid. */
export function checkDeletion({ propagationPolicy, orphanDependents, dryRun = [] }: AskedDeletion): void {
  const errors: FieldError[] = [];
  if (propagationPolicy !== undefined) {
    if (orphanDependents !== undefined)
      errors.push(
        fieldErrors.invalid(
          'propagationPolicy',
          propagationPolicy,
          'orphanDependents and deletionPropagation cannot be both set',
        ),
      );
    if (!PROPAGATIONS.slice(0, -1).includes(propagationPolicy))
      errors.push(fieldErrors.notSupported('propagationPolicy', propagationPolicy, PROPAGATIONS));
  }
  checkDryRun(errors, dryRun);
  if (errors.length > 0) throw invalid({ group: GROUP, kind: 'DeleteOptions' }, '', errors);
}

export function isTrue(value: string | null): boolean {
  return value !== null && value !== '0' && value.toLowerCase() !== 'false';
}

export function numberOf(query: URLSearchParams, name: string): number | undefined {
  const value = query.get(name);
  if (value === null) return undefined;
  const problem = intProblem(value);
  if (problem) throw badRequest(problem);
  return Number(value);
}

export function selectors(query: URLSearchParams): Selectors {
  return {
    labelSelector: query.get('labelSelector') ?? undefined,
    fieldSelector: query.get('fieldSelector') ?? undefined,
  };
}

export function listQuery(query: URLSearchParams): ListQuery & Selectors {
  numberOf(query, 'timeoutSeconds');
  return {
    ...selectors(query),
    resourceVersion: query.get('resourceVersion') ?? '',
    resourceVersionMatch: query.get('resourceVersionMatch') ?? '',
    limit: numberOf(query, 'limit') ?? 0,
    continue: query.get('continue') ?? '',
  };
}

export function includeObjectOf(query: URLSearchParams): 'None' | 'Metadata' | 'Object' {
  const asked = query.get('includeObject') || 'Metadata';
  if (asked === 'None' || asked === 'Metadata' || asked === 'Object') return asked;
  const { field, message } = fieldErrors.invalid(
    'includeObject',
    asked,
    "must be 'Metadata', 'Object', 'None', or empty",
  );
  throw badRequest(`Unable to convert to Table as requested: ${field}: ${message}`);
}
