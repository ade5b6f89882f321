/** Whether a webhook or a policy is about a request: rules, selectors, and the versions in which a resource can be seen. */

import type { NamedRuleWithOperations, RuleWithOperations } from '../../api/admissionregistration/v1.gen.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import type { KubeObject, LabelSelector } from '../../api/meta.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { NAMESPACES } from '../../client/resources.ts';
import type { AdmissionRequest, Reader } from '../request.ts';

/** Their own objects are out of reach of webhooks and policies: a bad one could never be repaired. */
const EXEMPT = new Set([
  'validatingwebhookconfigurations',
  'mutatingwebhookconfigurations',
  'validatingadmissionpolicies',
  'validatingadmissionpolicybindings',
  'mutatingadmissionpolicies',
  'mutatingadmissionpolicybindings',
]);
/** Questions, not objects. */
const QUESTIONS = new Set(['authentication.k8s.io', 'authorization.k8s.io']);

export function isExempt({ attributes: { group, resource } }: AdmissionRequest): boolean {
  return QUESTIONS.has(group) || (group === 'admissionregistration.k8s.io' && EXEMPT.has(resource));
}

export interface Criteria {
  readonly rules: readonly (RuleWithOperations | NamedRuleWithOperations)[];
  readonly excluded?: readonly NamedRuleWithOperations[];
  readonly namespaceSelector?: LabelSelector | undefined;
  readonly objectSelector?: LabelSelector | undefined;
  /** `Exact`, or `Equivalent`: also by other versions of the same resource. */
  readonly matchPolicy?: string | undefined;
}

/** The version of the resource by which the criteria are about the request; undefined when they are not. */
export function matchedResource(
  criteria: Criteria,
  request: AdmissionRequest,
  reader: Reader,
): ResourceInfo | undefined {
  if (!isInNamespace(criteria.namespaceSelector, request, reader)) return undefined;
  if (!hasLabels(criteria.objectSelector, request)) return undefined;
  const own = ownResource(request, reader);
  if (criteria.excluded?.some(rule => isAbout(rule, own, request))) return undefined;
  if (criteria.rules.some(rule => isAbout(rule, own, request))) return own;
  if (criteria.matchPolicy === 'Exact') return undefined;
  return equivalents(own, reader).find(
    info =>
      criteria.rules.some(rule => isAbout(rule, info, request)) &&
      !criteria.excluded?.some(rule => isAbout(rule, info, request)),
  );
}

/** The resource in the version of the request, which is not always the one it is worked on in. */
export function ownResource({ attributes, info }: AdmissionRequest, reader: Reader): ResourceInfo {
  return reader.table?.find(attributes.group, attributes.version, attributes.resource)?.info ?? info;
}

function equivalents(own: ResourceInfo, reader: Reader): ResourceInfo[] {
  const { table } = reader;
  const prefix = table?.find(own.group, own.version, own.resource)?.prefix;
  if (!table || !prefix) return [];
  return table.infos.filter(
    info =>
      info.kind === own.kind && info !== own && table.find(info.group, info.version, info.resource)?.prefix === prefix,
  );
}

const has = (values: readonly string[] | undefined, value: string): boolean =>
  values?.some(one => one === '*' || one === value) ?? false;

function isAbout(rule: NamedRuleWithOperations, info: ResourceInfo, request: AdmissionRequest): boolean {
  const { attributes, operation } = request;
  if (!has(rule.operations, operation)) return false;
  if (!has(rule.apiGroups, info.group) || !has(rule.apiVersions, info.version)) return false;
  if (!isScope(rule.scope, info, attributes.resource)) return false;
  if (rule.resourceNames?.length && !rule.resourceNames.includes(request.object?.metadata?.name || attributes.name))
    return false;
  return rule.resources?.some(pattern => isResource(pattern, info.resource, attributes.subresource)) ?? false;
}

function isScope(scope: string | undefined, info: ResourceInfo, resource: string): boolean {
  if (!scope || scope === '*') return true;
  // A namespace is in itself for requests, but no object of a namespace.
  const isNamespaced = info.namespaced && !(info.group === '' && resource === 'namespaces');
  return scope === (isNamespaced ? 'Namespaced' : 'Cluster');
}

function isResource(pattern: string, resource: string, subresource: string): boolean {
  const slash = pattern.indexOf('/');
  const [wanted, below] = slash < 0 ? [pattern, ''] : [pattern.slice(0, slash), pattern.slice(slash + 1)];
  return (wanted === '*' || wanted === resource) && (below === '*' || below === subresource);
}

function isInNamespace(selector: LabelSelector | undefined, request: AdmissionRequest, reader: Reader): boolean {
  if (isEverything(selector)) return true;
  const { attributes } = request;
  const isNamespace = attributes.group === '' && attributes.resource === 'namespaces';
  if (!isNamespace && attributes.namespace === '') return true;
  const labels = isNamespace
    ? (request.object ?? request.oldObject)?.metadata?.labels
    : reader.get(NAMESPACES, '', attributes.namespace)?.metadata.labels;
  return labelSelectorMatch(selector!)(labels);
}

function hasLabels(selector: LabelSelector | undefined, { object, oldObject }: AdmissionRequest): boolean {
  if (isEverything(selector)) return true;
  const matches = labelSelectorMatch(selector!);
  // Options of a connection have no metadata, so no selector finds them.
  return [object, oldObject].some((one: KubeObject | undefined) => one?.metadata && matches(one.metadata.labels));
}

function isEverything(selector: LabelSelector | undefined): boolean {
  return !selector || (!selector.matchExpressions?.length && Object.keys(selector.matchLabels ?? {}).length === 0);
}
