/**
 * Validation of a CustomResourceDefinition, in upstream's words. What an update does not touch is not judged again, so that
 * definitions stay usable when rules grow stricter. Nor are the schemas that every cluster begins with: `own-definitions.test.ts` has.
 */

import { isDeepStrictEqual } from 'node:util';
import { fieldErrors } from '../../base/errors.ts';
import { dns1035LabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  checkUnchanged,
  type Errors,
  eachAt,
  requireOneOf,
  requireText,
} from '../machinery/validation.ts';
import { caBundleProblem, checkWebhookClient } from '../machinery/webhook-client.ts';
import { ownSchema } from '../own-definitions.ts';
import { compilePath, fieldsOfPath } from './simple-path.ts';
import { structuralProblems } from './structural-check.ts';
import type {
  CustomResourceColumnDefinition,
  CustomResourceDefinition,
  CustomResourceDefinitionSpec,
  CustomResourceDefinitionVersion,
  CustomResourceSubresourceScale,
  JSONSchemaProps,
} from './v1.gen.ts';

const COLUMN_TYPES = ['boolean', 'date', 'integer', 'number', 'string'];
const COLUMN_FORMATS = ['byte', 'date', 'date-time', 'double', 'float', 'int32', 'int64', 'password'];
const SELECTABLE_FIELDS_MAX = 8;
const APPROVAL = 'api-approved.kubernetes.io';
const APPROVAL_HELP = 'see https://github.com/kubernetes/enhancements/pull/1111';

export function validateDefinition(object: CustomResourceDefinition, old?: CustomResourceDefinition): Errors {
  const errors: Errors = [];
  const spec = object.spec ?? ({} as CustomResourceDefinitionSpec);
  const wanted = `${spec.names?.plural ?? ''}.${spec.group ?? ''}`;
  if (!old && object.metadata.name !== wanted)
    addInvalid(errors, 'metadata.name', object.metadata.name, 'must be spec.names.plural+"."+spec.group');
  if (requireText(errors, 'spec.group', spec.group)) {
    const problems = dnsSubdomainProblems(spec.group);
    addProblems(errors, 'spec.group', spec.group, problems);
    if (problems.length === 0 && !spec.group.includes('.'))
      addInvalid(errors, 'spec.group', spec.group, 'should be a domain with at least one dot');
  }
  requireOneOf(errors, 'spec.scope', spec.scope, ['Cluster', 'Namespaced']);
  checkNames(spec, errors);
  checkVersions(object, old, errors);
  checkConversion(spec, old, errors);
  if (spec.preserveUnknownFields && !old?.spec?.preserveUnknownFields)
    addInvalid(
      errors,
      'spec.preserveUnknownFields',
      true,
      'cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead',
    );
  checkApproval(object, old, errors);
  if (old?.spec && object.spec) checkChange(object, old, errors);
  return errors;
}

function checkNames({ names }: CustomResourceDefinitionSpec, errors: Errors): void {
  const { plural = '', kind = '', singular, listKind, shortNames, categories } = names ?? {};
  if (requireText(errors, 'spec.names.plural', plural))
    addProblems(errors, 'spec.names.plural', plural, dns1035LabelProblems(plural));
  if (singular) addProblems(errors, 'spec.names.singular', singular, dns1035LabelProblems(singular));
  requireText(errors, 'spec.names.kind', kind);
  for (const [field, value] of [
    ['kind', kind],
    ['listKind', listKind],
  ])
    for (const problem of value ? dns1035LabelProblems(value.toLowerCase()) : [])
      addInvalid(errors, `spec.names.${field}`, value, `may have mixed case, but should otherwise match: ${problem}`);
  if (listKind && listKind === kind)
    addInvalid(errors, 'spec.names.listKind', listKind, 'kind and listKind may not be the same');
  const label = (name: string, at: string) => addProblems(errors, at, name, dns1035LabelProblems(name));
  eachAt(shortNames, 'spec.names.shortNames', label);
  eachAt(categories, 'spec.names.categories', label);
}

function checkVersions(
  { metadata, spec }: CustomResourceDefinition,
  old: CustomResourceDefinition | undefined,
  errors: Errors,
): void {
  const versions = spec?.versions ?? [];
  const names = versions.map(version => version.name);
  if (new Set(names).size < names.length)
    addInvalid(errors, 'spec.versions', versions, 'must contain unique version names');
  if (versions.filter(version => version.storage).length !== 1)
    addInvalid(errors, 'spec.versions', versions, 'must have exactly one version marked as storage version');
  const hoisted = hoistedFields(versions);
  eachAt(versions, 'spec.versions', (version, at, index) => {
    /** Where errors of a part of the version are told, if they are: of what all have, once. */
    const place = (field: Hoisted): string | undefined =>
      !hoisted.has(field)
        ? `${at}.${field}`
        : index === 0
          ? `spec.${field === 'schema' ? 'validation' : field}`
          : undefined;
    const before = old?.spec?.versions?.find(other => other.name === version.name);
    addProblems(errors, `${at}.name`, version.name ?? '', dns1035LabelProblems(version.name ?? ''));
    const schema = version.schema?.openAPIV3Schema;
    if (!schema) addRequired(errors, `${at}.schema.openAPIV3Schema`, 'schemas are required');
    else if (
      place('schema') &&
      !isDeepStrictEqual(schema, before?.schema?.openAPIV3Schema) &&
      !isDeepStrictEqual(schema, ownSchema(metadata.name, version.name))
    )
      errors.push(...structuralProblems(schema, `${place('schema')}.openAPIV3Schema`));
    if (version.deprecationWarning !== undefined && !version.deprecated)
      addInvalid(
        errors,
        `${at}.deprecationWarning`,
        version.deprecationWarning,
        'can only be set for deprecated versions',
      );
    const columns = place('additionalPrinterColumns');
    if (columns)
      eachAt(version.additionalPrinterColumns, columns, (column, where) => checkColumn(column, where, errors));
    const scale = version.subresources?.scale;
    const subresources = place('subresources');
    if (scale && subresources) checkScale(scale, `${subresources}.scale`, errors);
    const selectable = place('selectableFields');
    if (selectable && !isDeepStrictEqual(version.selectableFields, before?.selectableFields))
      checkSelectable(version, selectable, errors);
  });
}

const HOISTED = ['schema', 'subresources', 'additionalPrinterColumns', 'selectableFields'] as const;
type Hoisted = (typeof HOISTED)[number];

/** What all versions have alike belongs to the definition itself upstream, and that is where errors are said to be. */
function hoistedFields(versions: readonly CustomResourceDefinitionVersion[]): ReadonlySet<Hoisted> {
  return new Set(
    HOISTED.filter(field => versions.every(version => isDeepStrictEqual(version[field], versions[0]![field]))),
  );
}

function checkColumn(column: CustomResourceColumnDefinition, at: string, errors: Errors): void {
  requireText(errors, `${at}.name`, column.name);
  if (requireText(errors, `${at}.type`, column.type, `must be one of ${COLUMN_TYPES.join(',')}`)) {
    if (!COLUMN_TYPES.includes(column.type))
      addInvalid(errors, `${at}.type`, column.type, `must be one of ${COLUMN_TYPES.join(',')}`);
  }
  if (column.format && !COLUMN_FORMATS.includes(column.format))
    addInvalid(errors, `${at}.format`, column.format, `must be one of ${COLUMN_FORMATS.join(',')}`);
  if (requireText(errors, `${at}.jsonPath`, column.jsonPath))
    if (!/^[.{[$]/.test(column.jsonPath) || !compilePath(column.jsonPath))
      addInvalid(errors, `${at}.jsonPath`, column.jsonPath, 'must be a valid JSON path');
}

function checkScale(scale: CustomResourceSubresourceScale, at: string, errors: Errors): void {
  const check = (field: keyof CustomResourceSubresourceScale, homes: readonly string[], says: string) => {
    const path = scale[field];
    if (path === undefined || path === '') return;
    const fields = fieldsOfPath(path);
    if (!fields) addInvalid(errors, `${at}.${field}`, path, 'must be a simple json path in dot notation');
    else if (!homes.includes(fields[0]!) || fields.length < 2) addInvalid(errors, `${at}.${field}`, path, says);
  };
  requireText(errors, `${at}.specReplicasPath`, scale.specReplicasPath);
  requireText(errors, `${at}.statusReplicasPath`, scale.statusReplicasPath);
  check('specReplicasPath', ['spec'], 'should be a json path under .spec');
  check('statusReplicasPath', ['status'], 'should be a json path under .status');
  check('labelSelectorPath', ['spec', 'status'], 'should be a json path under either .spec or .status');
}

function checkSelectable(
  { selectableFields, schema }: CustomResourceDefinitionVersion,
  at: string,
  errors: Errors,
): void {
  const fields = selectableFields ?? [];
  if (fields.length > SELECTABLE_FIELDS_MAX) errors.push(fieldErrors.tooMany(at, fields.length, SELECTABLE_FIELDS_MAX));
  const seen = new Set<string>();
  eachAt(fields, at, ({ jsonPath }, where) => {
    if (!requireText(errors, `${where}.jsonPath`, jsonPath)) return;
    if (seen.has(jsonPath)) errors.push(fieldErrors.duplicate(`${where}.jsonPath`, jsonPath));
    seen.add(jsonPath);
    const steps = fieldsOfPath(jsonPath);
    if (!steps)
      return addInvalid(errors, `${where}.jsonPath`, jsonPath, 'is an invalid path: must be a simple path of fields');
    if (steps[0] === 'metadata')
      return addInvalid(errors, `${where}.jsonPath`, jsonPath, 'must not point to fields in metadata');
    let node: JSONSchemaProps | undefined = schema?.openAPIV3Schema;
    for (const step of steps)
      node = node?.properties && Object.hasOwn(node.properties, step) ? node.properties[step] : undefined;
    if (!node) addInvalid(errors, `${where}.jsonPath`, jsonPath, 'is an invalid path: does not refer to a valid field');
    else if (!['string', 'boolean', 'integer'].includes(node.type ?? ''))
      addInvalid(
        errors,
        `${where}.jsonPath`,
        jsonPath,
        `must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.`,
      );
  });
}

// Fields are told by the names that they have inside of upstream's server.
function checkConversion(
  { conversion }: CustomResourceDefinitionSpec,
  old: CustomResourceDefinition | undefined,
  errors: Errors,
): void {
  if (!conversion) return;
  const at = 'spec.conversion';
  requireOneOf(errors, `${at}.strategy`, conversion.strategy, ['None', 'Webhook']);
  const { clientConfig: client, conversionReviewVersions: reviews = [] } = conversion.webhook ?? {};
  if (conversion.strategy !== 'Webhook') {
    const unwanted = 'should not be set when strategy is not set to Webhook';
    if (client) addForbidden(errors, `${at}.webhookClientConfig`, unwanted);
    if (reviews.length > 0) addForbidden(errors, `${at}.conversionReviewVersions`, unwanted);
    return;
  }
  if (!client) addRequired(errors, `${at}.webhookClientConfig`, 'required when strategy is set to Webhook');
  else {
    checkWebhookClient(errors, `${at}.webhookClientConfig`, client);
    const problem = mayHaveInvalidBundle(old) ? undefined : caBundleProblem(client.caBundle);
    if (problem)
      addInvalid(errors, `${at}.webhookClientConfig.caBundle`, Buffer.from(client.caBundle!, 'base64'), problem);
  }
  if (reviews.length === 0) return addRequired(errors, `${at}.conversionReviewVersions`);
  eachAt(reviews, `${at}.conversionReviewVersions`, (version, where, index) => {
    if (reviews.indexOf(version) < index) addInvalid(errors, where, version, 'duplicate version');
    else addProblems(errors, where, version, dns1035LabelProblems(version));
  });
  if (!reviews.some(version => version === 'v1' || version === 'v1beta1'))
    addInvalid(errors, `${at}.conversionReviewVersions`, reviews, 'must include at least one of v1, v1beta1');
}

/** Until it is served; what is served by a valid one must not lose it. */
function mayHaveInvalidBundle(old: CustomResourceDefinition | undefined): boolean {
  if (!old?.status?.conditions?.some(({ type, status }) => type === 'Established' && status === 'True')) return true;
  return caBundleProblem(old.spec.conversion?.webhook?.clientConfig?.caBundle) !== undefined;
}

/** Whether a group belongs to the Kubernetes community, whose definitions name the pull request that approved them. */
export function isProtectedGroup(group: string): boolean {
  return ['k8s.io', 'kubernetes.io'].some(domain => group === domain || group.endsWith(`.${domain}`));
}

function checkApproval(
  { metadata, spec }: CustomResourceDefinition,
  old: CustomResourceDefinition | undefined,
  errors: Errors,
): void {
  if (!isProtectedGroup(spec?.group ?? '')) return;
  const approval = metadata.annotations?.[APPROVAL] ?? '';
  if (old && (old.metadata.annotations?.[APPROVAL] ?? '') === approval) return;
  const path = `metadata.annotations[${APPROVAL}]`;
  if (approval === '')
    addRequired(errors, path, `protected groups must have approval annotation "${APPROVAL}", ${APPROVAL_HELP}`);
  else if (!approval.startsWith('unapproved') && !URL.canParse(approval))
    addInvalid(
      errors,
      path,
      approval,
      `protected groups must have approval annotation "${APPROVAL}" with either a URL or a reason starting with "unapproved", ${APPROVAL_HELP}`,
    );
}

function checkChange(object: CustomResourceDefinition, old: CustomResourceDefinition, errors: Errors): void {
  const [now, then] = [object.spec, old.spec];
  checkUnchanged(errors, 'spec.group', now.group, then.group);
  checkUnchanged(errors, 'spec.names.plural', now.names?.plural, then.names?.plural);
  const isEstablished = old.status?.conditions?.some(({ type, status }) => type === 'Established' && status === 'True');
  if (isEstablished) {
    checkUnchanged(errors, 'spec.scope', now.scope, then.scope);
    checkUnchanged(errors, 'spec.names.kind', now.names?.kind, then.names?.kind);
  }
  eachAt(object.status?.storedVersions, 'status.storedVersions', (version, at) => {
    if (!now.versions?.some(({ name }) => name === version))
      addInvalid(errors, at, version, 'must appear in spec.versions');
  });
}

/** Rules of an update of the status. */
export function validateDefinitionStatus(object: CustomResourceDefinition): Errors {
  const errors: Errors = [];
  const stored = object.status?.storedVersions ?? [];
  const storage = object.spec?.versions?.find(version => version.storage)?.name;
  if (stored.length === 0) addInvalid(errors, 'status.storedVersions', stored, 'must have at least one version');
  else if (storage && !stored.includes(storage))
    addInvalid(errors, 'status.storedVersions', stored, `must have the storage version ${storage}`);
  eachAt(stored, 'status.storedVersions', (version, at) => {
    if (!object.spec?.versions?.some(({ name }) => name === version))
      addInvalid(errors, at, version, 'must appear in spec.versions');
  });
  return errors;
}
