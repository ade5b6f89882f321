/** Validation of what a pod asks of the scheduler: affinity, tolerations, taints, topology spread. */

import { fieldErrors } from '../../base/errors.ts';
import { labelValueProblems } from '../machinery/labels.ts';
import { dnsLabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkLabelKey,
  checkLabelSelector,
  type Errors,
  eachAt,
} from '../machinery/validation.ts';
import type { LabelSelector } from '../meta.ts';
import type {
  Affinity,
  NodeSelector,
  NodeSelectorTerm,
  PodAffinity,
  PodAffinityTerm,
  Taint,
  Toleration,
  TopologySpreadConstraint,
} from './v1.gen.ts';

const TAINT_EFFECTS = ['NoSchedule', 'PreferNoSchedule', 'NoExecute'];
// `Gt` and `Lt` are alpha in 1.36 (TaintTolerationComparisonOperators) and switched off.
const TOLERATION_OPERATORS = ['Equal', 'Exists'];
const REQUIRED = 'requiredDuringSchedulingIgnoredDuringExecution';
const PREFERRED = 'preferredDuringSchedulingIgnoredDuringExecution';

export function checkAffinity(errors: Errors, path: string, affinity: Affinity): void {
  const nodes = affinity.nodeAffinity;
  if (nodes) {
    if (nodes[REQUIRED]) checkNodeSelector(errors, `${path}.nodeAffinity.${REQUIRED}`, nodes[REQUIRED]);
    eachAt(nodes[PREFERRED], `${path}.nodeAffinity.${PREFERRED}`, (term, at) => {
      checkWeight(errors, `${at}.weight`, term.weight);
      checkNodeSelectorTerm(errors, `${at}.preference`, term.preference ?? {}, false);
    });
  }
  if (affinity.podAffinity) checkPodAffinity(errors, `${path}.podAffinity`, affinity.podAffinity);
  if (affinity.podAntiAffinity) checkPodAffinity(errors, `${path}.podAntiAffinity`, affinity.podAntiAffinity);
}

function checkWeight(errors: Errors, at: string, weight = 0): void {
  if (weight <= 0 || weight > 100) addInvalid(errors, at, weight, 'must be in the range 1-100');
}

export function checkNodeSelector(errors: Errors, path: string, selector: NodeSelector): void {
  if (!selector.nodeSelectorTerms?.length) {
    addRequired(errors, `${path}.nodeSelectorTerms`, 'must have at least one node selector term');
    return;
  }
  eachAt(selector.nodeSelectorTerms, `${path}.nodeSelectorTerms`, (term, at) =>
    checkNodeSelectorTerm(errors, at, term, true),
  );
}

function checkNodeSelectorTerm(errors: Errors, path: string, term: NodeSelectorTerm, strictValues: boolean): void {
  eachAt(term.matchExpressions, `${path}.matchExpressions`, (requirement, at) => {
    const values = requirement.values ?? [];
    switch (requirement.operator) {
      case 'In':
      case 'NotIn':
        if (values.length === 0)
          addRequired(errors, `${at}.values`, "must be specified when `operator` is 'In' or 'NotIn'");
        break;
      case 'Exists':
      case 'DoesNotExist':
        if (values.length > 0)
          addForbidden(errors, `${at}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        break;
      case 'Gt':
      case 'Lt':
        if (values.length !== 1)
          addRequired(errors, `${at}.values`, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        break;
      default:
        addInvalid(errors, `${at}.operator`, requirement.operator ?? '', 'not a valid selector operator');
    }
    checkLabelKey(errors, `${at}.key`, requirement.key);
    if (strictValues)
      eachAt(values, `${at}.values`, (value, valueAt) =>
        addProblems(errors, valueAt, value, labelValueProblems(value)),
      );
  });
  eachAt(term.matchFields, `${path}.matchFields`, (requirement, at) => {
    if (requirement.operator !== 'In' && requirement.operator !== 'NotIn')
      addInvalid(errors, `${at}.operator`, requirement.operator ?? '', 'not a valid selector operator');
    else if (requirement.values?.length !== 1)
      addRequired(
        errors,
        `${at}.values`,
        "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
      );
    if (requirement.key !== 'metadata.name')
      addInvalid(errors, `${at}.key`, requirement.key ?? '', 'not a valid field selector key');
    else
      eachAt(requirement.values, `${at}.values`, (value, valueAt) =>
        addProblems(errors, valueAt, value, dnsSubdomainProblems(value)),
      );
  });
}

function checkPodAffinity(errors: Errors, path: string, affinity: PodAffinity): void {
  eachAt(affinity[REQUIRED], `${path}.${REQUIRED}`, (term, at) => checkPodAffinityTerm(errors, at, term));
  eachAt(affinity[PREFERRED], `${path}.${PREFERRED}`, (weighted, at) => {
    checkWeight(errors, `${at}.weight`, weighted.weight);
    checkPodAffinityTerm(errors, `${at}.podAffinityTerm`, weighted.podAffinityTerm ?? ({} as PodAffinityTerm));
  });
}

function checkPodAffinityTerm(errors: Errors, path: string, term: PodAffinityTerm): void {
  checkLabelSelector(errors, `${path}.labelSelector`, term.labelSelector);
  checkLabelSelector(errors, `${path}.namespaceSelector`, term.namespaceSelector);
  for (const namespace of term.namespaces ?? [])
    addProblems(errors, `${path}.namespace`, namespace, dnsLabelProblems(namespace));
  checkMatchKeys(errors, path, term);
  if (!term.topologyKey) addRequired(errors, `${path}.topologyKey`, 'can not be empty');
  checkLabelKey(errors, `${path}.topologyKey`, term.topologyKey);
}

/** Of affinity and of topology spread: keys are label names, stand beside a selector and only there. */
function checkMatchKeys(
  errors: Errors,
  path: string,
  term: Pick<PodAffinityTerm, 'matchLabelKeys' | 'mismatchLabelKeys' | 'labelSelector'>,
): void {
  for (const field of ['matchLabelKeys', 'mismatchLabelKeys'] as const) {
    if (!term[field]?.length) continue;
    if (!term.labelSelector)
      addForbidden(errors, `${path}.${field}`, 'must not be specified when labelSelector is not set');
    else eachAt(term[field], `${path}.${field}`, (key, at) => checkLabelKey(errors, at, key));
  }
  const keys = term.matchLabelKeys ?? [];
  checkMentions(errors, path, keys, term.labelSelector);
  keys.forEach((key, index) => {
    if (term.mismatchLabelKeys?.includes(key))
      addInvalid(
        errors,
        `${path}.matchLabelKeys[${index}]`,
        key,
        'exists in both matchLabelKeys and mismatchLabelKeys',
      );
  });
}

export function checkTolerations(errors: Errors, path: string, tolerations: readonly Toleration[] | undefined): void {
  eachAt(tolerations, path, (toleration, at) => {
    const operator = toleration.operator ?? '';
    const value = toleration.value ?? '';
    if (toleration.key) checkLabelKey(errors, `${at}.key`, toleration.key);
    else if (operator !== 'Exists')
      addInvalid(
        errors,
        `${at}.operator`,
        operator,
        'operator must be Exists when `key` is empty, which means "match all values and all keys"',
      );
    if (toleration.tolerationSeconds !== undefined && toleration.effect !== 'NoExecute')
      addInvalid(
        errors,
        `${at}.effect`,
        toleration.effect ?? '',
        "effect must be 'NoExecute' when `tolerationSeconds` is set",
      );
    if (operator === 'Exists') {
      if (value) addInvalid(errors, `${at}.operator`, value, "value must be empty when `operator` is 'Exists'");
    } else if (operator === '' || operator === 'Equal') {
      const problems = labelValueProblems(value);
      if (problems.length) addInvalid(errors, `${at}.operator`, value, problems.join(';'));
    } else errors.push(fieldErrors.notSupported(`${at}.operator`, operator, TOLERATION_OPERATORS));
    if (toleration.effect) allowOneOf(errors, `${at}.effect`, toleration.effect, TAINT_EFFECTS);
  });
}

export function checkTaints(errors: Errors, path: string, taints: readonly Taint[] | undefined): void {
  const seen = new Set<string>();
  eachAt(taints, path, (taint, at) => {
    checkLabelKey(errors, `${at}.key`, taint.key);
    const problems = labelValueProblems(taint.value ?? '');
    if (problems.length) addInvalid(errors, `${at}.value`, taint.value, problems.join(';'));
    if (!taint.effect) addRequired(errors, `${at}.effect`);
    else allowOneOf(errors, `${at}.effect`, taint.effect, TAINT_EFFECTS);
    const key = `${taint.effect}/${taint.key}`;
    if (seen.has(key)) {
      const finding = fieldErrors.duplicate(at, taint);
      errors.push({ ...finding, message: `${finding.message}: taints must be unique by key and effect pair` });
    }
    seen.add(key);
  });
}

export function checkTopologySpread(
  errors: Errors,
  path: string,
  constraints: readonly TopologySpreadConstraint[] | undefined,
): void {
  eachAt(constraints, path, (constraint, at, index) => {
    const { maxSkew = 0, minDomains, whenUnsatisfiable = '' } = constraint;
    if (maxSkew <= 0) addInvalid(errors, `${at}.maxSkew`, maxSkew, 'must be greater than zero');
    if (!constraint.topologyKey) addRequired(errors, `${at}.topologyKey`, 'can not be empty');
    allowOneOf(errors, `${at}.whenUnsatisfiable`, whenUnsatisfiable, ['DoNotSchedule', 'ScheduleAnyway']);
    const repeated = constraints!
      .slice(index + 1)
      .some(
        other =>
          other.topologyKey === constraint.topologyKey && other.whenUnsatisfiable === constraint.whenUnsatisfiable,
      );
    if (repeated)
      addDuplicate(
        errors,
        `${at}.{topologyKey, whenUnsatisfiable}`,
        `{${constraint.topologyKey}, ${whenUnsatisfiable}}`,
      );
    if (minDomains !== undefined) {
      if (minDomains <= 0) addInvalid(errors, `${at}.minDomains`, minDomains, 'must be greater than zero');
      if (whenUnsatisfiable !== 'DoNotSchedule')
        addInvalid(
          errors,
          `${at}.minDomains`,
          minDomains,
          `can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ${whenUnsatisfiable}`,
        );
    }
    allowOneOf(errors, `${at}.nodeAffinityPolicy`, constraint.nodeAffinityPolicy, ['Honor', 'Ignore']);
    allowOneOf(errors, `${at}.nodeTaintsPolicy`, constraint.nodeTaintsPolicy, ['Honor', 'Ignore']);
    checkMatchKeys(errors, at, constraint);
    checkLabelSelector(errors, `${at}.labelSelector`, constraint.labelSelector);
  });
}

// The selector of a pod already holds the expressions made from its keys, so a second mention of one is the user's.
function checkMentions(errors: Errors, path: string, keys: readonly string[], selector: LabelSelector = {}): void {
  const seen = new Set(Object.keys(selector.matchLabels ?? {}));
  for (const { key } of selector.matchExpressions ?? []) {
    const index = keys.indexOf(key);
    if (index >= 0 && seen.has(key))
      addInvalid(errors, `${path}[${index}]`, key, 'exists in both matchLabelKeys and labelSelector');
    seen.add(key);
  }
}
