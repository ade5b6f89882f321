/**
 * The status that a definition ought to have, given the others of its group: whether its names are free, and whether what
 * it defines is served. Pure, as upstream's naming and establishing controllers together.
 */

import { isProtectedGroup } from '../../api/apiextensions/definition-validation.ts';
import type {
  CustomResourceDefinition,
  CustomResourceDefinitionCondition,
  CustomResourceDefinitionNames,
} from '../../api/apiextensions/v1.gen.ts';
import { caBundleProblem } from '../../api/machinery/webhook-client.ts';

type Condition = Omit<CustomResourceDefinitionCondition, 'lastTransitionTime'>;
type Status = NonNullable<CustomResourceDefinition['status']>;

const APPROVAL = 'api-approved.kubernetes.io';

export function conditionOf(
  { status }: CustomResourceDefinition,
  type: string,
): CustomResourceDefinitionCondition | undefined {
  return status?.conditions?.find(condition => condition.type === type);
}

export function isEstablished(definition: CustomResourceDefinition): boolean {
  return conditionOf(definition, 'Established')?.status === 'True';
}

/** The definition's status as it should be; the very same object when it is so already. */
export function desiredStatus(
  definition: CustomResourceDefinition,
  others: readonly CustomResourceDefinition[],
  now: string,
): Status {
  const { names, refused } = acceptedNames(definition, others);
  const wanted: Condition[] = [
    refused
      ? { type: 'NamesAccepted', status: 'False', ...refused }
      : { type: 'NamesAccepted', status: 'True', reason: 'NoConflicts', message: 'no conflicts found' },
  ];
  if (!isEstablished(definition))
    wanted.push(
      refused
        ? { type: 'Established', status: 'False', reason: 'NotAccepted', message: 'not all names are accepted' }
        : caBundleProblem(definition.spec.conversion?.webhook?.clientConfig?.caBundle)
          ? {
              type: 'Established',
              status: 'False',
              reason: 'InvalidCABundle',
              message: 'The conversion webhook CABundle is invalid',
            }
          : {
              type: 'Established',
              status: 'True',
              reason: 'InitialNamesAccepted',
              message: 'the initial names have been accepted',
            },
    );
  const approval = approvalCondition(definition);
  if (approval) wanted.push(approval);
  const status = withConditions(definition, wanted, now);
  if (JSON.stringify(status.acceptedNames) === JSON.stringify(names)) return status;
  return { ...status, acceptedNames: names };
}

/** The status with these conditions set; the same object when nothing changes. */
export function withConditions(
  definition: CustomResourceDefinition,
  wanted: readonly Condition[],
  now: string,
): Status {
  const status = definition.status ?? ({} as Status);
  const conditions = [...(status.conditions ?? [])];
  let changed = definition.status === undefined;
  for (const condition of wanted) {
    const at = conditions.findIndex(({ type }) => type === condition.type);
    const old = conditions[at];
    if (old && old.status === condition.status && old.reason === condition.reason && old.message === condition.message)
      continue;
    changed = true;
    const lastTransitionTime = old?.status === condition.status ? old.lastTransitionTime : now;
    const { type, status: value, reason, message } = condition;
    const next: CustomResourceDefinitionCondition = {
      ...(lastTransitionTime ? { lastTransitionTime } : {}),
      ...(message === undefined ? {} : { message }),
      ...(reason === undefined ? {} : { reason }),
      status: value,
      type,
    };
    if (at < 0) conditions.push(next);
    else conditions[at] = next;
  }
  return changed ? { ...status, conditions } : status;
}

interface Acceptance {
  readonly names: CustomResourceDefinitionNames;
  readonly refused?: { readonly reason: string; readonly message: string };
}

function acceptedNames(definition: CustomResourceDefinition, others: readonly CustomResourceDefinition[]): Acceptance {
  const asked = definition.spec.names;
  const accepted = definition.status?.acceptedNames ?? { plural: '', kind: '' };
  const resources = new Set<string>();
  const kinds = new Set<string>();
  for (const { spec, status } of others) {
    if (spec.group !== definition.spec.group || !status?.acceptedNames) continue;
    const { plural, singular, shortNames = [], kind, listKind } = status.acceptedNames;
    for (const name of [plural, singular, ...shortNames]) if (name) resources.add(name);
    for (const name of [kind, listKind]) if (name) kinds.add(name);
  }
  let refused: Acceptance['refused'];
  const take = (name: string | undefined, own: string | undefined, used: Set<string>, reason: string) => {
    if (!name || name === own || !used.has(name)) return name;
    refused = { reason, message: `${JSON.stringify(name)} is already in use` };
    return own;
  };
  const plural = take(asked.plural, accepted.plural, resources, 'PluralConflict') ?? '';
  const singular = take(asked.singular, accepted.singular, resources, 'SingularConflict');
  let shortNames = asked.shortNames;
  const taken = (asked.shortNames ?? []).filter(name => !accepted.shortNames?.includes(name) && resources.has(name));
  if (taken.length > 0) {
    const messages = taken.map(name => `${JSON.stringify(name)} is already in use`);
    const message = messages.length === 1 ? messages[0]! : `[${messages.join(', ')}]`;
    refused = { reason: 'ShortNamesConflict', message };
    shortNames = accepted.shortNames;
  }
  const kind = take(asked.kind, accepted.kind, kinds, 'KindConflict') ?? '';
  const listKind = take(asked.listKind, accepted.listKind, kinds, 'ListKindConflict');
  const names: CustomResourceDefinitionNames = {
    plural,
    ...(singular ? { singular } : {}),
    ...(shortNames?.length ? { shortNames } : {}),
    kind,
    ...(listKind ? { listKind } : {}),
    ...(asked.categories?.length ? { categories: asked.categories } : {}),
  };
  return { names, ...(refused ? { refused } : {}) };
}

function approvalCondition({ metadata, spec }: CustomResourceDefinition): Condition | undefined {
  if (!isProtectedGroup(spec.group)) return undefined;
  const type = 'KubernetesAPIApprovalPolicyConformant';
  const approval = metadata.annotations?.[APPROVAL];
  if (!approval)
    return {
      type,
      status: 'False',
      reason: 'MissingAnnotation',
      message: `protected groups must have approval annotation "${APPROVAL}", see https://github.com/kubernetes/enhancements/pull/1111`,
    };
  if (approval.startsWith('unapproved'))
    return {
      type,
      status: 'False',
      reason: 'UnapprovedAnnotation',
      message: `not approved: ${JSON.stringify(approval)}`,
    };
  if (!URL.canParse(approval))
    return {
      type,
      status: 'False',
      reason: 'InvalidAnnotation',
      message: `protected groups must have approval annotation "${APPROVAL}" with either a URL or a reason starting with "unapproved", see https://github.com/kubernetes/enhancements/pull/1111`,
    };
  return { type, status: 'True', reason: 'ApprovedAnnotation', message: `approved in ${approval}` };
}
