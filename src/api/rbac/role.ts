/** Roles and cluster roles. */

import type { Column } from '../kind.ts';
import { defineKind } from '../kind.ts';
import { nameColumn } from '../machinery/columns.ts';
import { pathSegmentName } from '../machinery/names.ts';
import { addInvalid, addRequired, checkLabelSelector, type Errors, eachAt } from '../machinery/validation.ts';
import type { KubeObject } from '../meta.ts';
import type { ClusterRole, PolicyRule, Role } from './v1.gen.ts';

const createdColumn: Column<KubeObject> = {
  name: 'Created At',
  type: 'date',
  cell: object => object.metadata.creationTimestamp ?? null,
};

export const role = defineKind<Role>({
  group: 'rbac.authorization.k8s.io',
  version: 'v1',
  kind: 'Role',
  createOnUpdate: true,
  validateName: pathSegmentName,
  validate: object => {
    const errors: Errors = [];
    eachAt(object.rules, 'rules', (rule, at) => checkRule(errors, at, rule, true));
    return errors;
  },
  columns: [nameColumn, createdColumn],
});

export const clusterRole = defineKind<ClusterRole>({
  group: 'rbac.authorization.k8s.io',
  version: 'v1',
  kind: 'ClusterRole',
  createOnUpdate: true,
  validateName: pathSegmentName,
  validate: object => {
    const errors: Errors = [];
    eachAt(object.rules, 'rules', (rule, at) => checkRule(errors, at, rule, false));
    if (object.aggregationRule) {
      const path = 'aggregationRule.clusterRoleSelectors';
      const selectors = object.aggregationRule.clusterRoleSelectors ?? [];
      if (selectors.length === 0)
        addRequired(errors, path, 'at least one clusterRoleSelector required if aggregationRule is non-nil');
      eachAt(selectors, path, (selector, at) => checkLabelSelector(errors, at, selector));
    }
    return errors;
  },
  columns: [nameColumn, createdColumn],
});

function checkRule(errors: Errors, path: string, rule: PolicyRule, namespaced: boolean): void {
  if (!rule.verbs?.length) addRequired(errors, `${path}.verbs`, 'verbs must contain at least one value');
  if (rule.nonResourceURLs?.length) {
    if (namespaced)
      addInvalid(
        errors,
        `${path}.nonResourceURLs`,
        rule.nonResourceURLs,
        'namespaced rules cannot apply to non-resource URLs',
      );
    if (rule.apiGroups?.length || rule.resources?.length || rule.resourceNames?.length)
      addInvalid(
        errors,
        `${path}.nonResourceURLs`,
        rule.nonResourceURLs,
        'rules cannot apply to both regular resources and non-resource URLs',
      );
    return;
  }
  if (!rule.apiGroups?.length)
    addRequired(errors, `${path}.apiGroups`, 'resource rules must supply at least one api group');
  if (!rule.resources?.length)
    addRequired(errors, `${path}.resources`, 'resource rules must supply at least one resource');
}
