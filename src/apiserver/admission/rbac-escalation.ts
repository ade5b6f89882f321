/**
 * Nobody grants what they do not have: a role may hold only rules that its writer has (or who may `escalate`), a binding
 * may refer only to a role whose rules its writer has (or who may `bind`). Upstream does this in the storage of roles.
 */

import type { KubeObject } from '../../api/meta.ts';
import type { PolicyRule, Role, RoleBinding } from '../../api/rbac/v1.gen.ts';
import { PRIVILEGED_GROUP } from '../authz/authorizer.ts';
import { describeRules, missingRules } from '../authz/rules.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { type AdmissionContext, refusal } from './context.ts';

const RBAC = 'rbac.authorization.k8s.io';

export function rbacEscalation({ authorizer }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'RBACEscalation',
    validate(request) {
      const { attributes, object, oldObject } = request;
      if (attributes.group !== RBAC || !object || attributes.user.groups.includes(PRIVILEGED_GROUP)) return;
      return judge(request, object, oldObject);
    },
  };

  async function judge(
    request: AdmissionRequest,
    object: KubeObject,
    oldObject: KubeObject | undefined,
  ): Promise<void> {
    const { attributes } = request;
    const may = async (verb: string, target: { resource: string; name: string; namespace: string }) =>
      (await authorizer.authorize({ ...attributes, ...target, verb, subresource: '' })).allowed;
    const namespace = attributes.namespace;
    if (attributes.resource === 'roles' || attributes.resource === 'clusterroles') {
      const rules = (object as Role).rules ?? [];
      if (
        oldObject &&
        JSON.stringify((oldObject as Role).rules ?? []) === JSON.stringify(rules) &&
        !('aggregationRule' in object)
      )
        return;
      if (await may('escalate', { resource: attributes.resource, name: object.metadata.name, namespace })) return;
      // An aggregation rule can pull in anything, so it needs everything.
      const wanted =
        'aggregationRule' in object && object.aggregationRule && !(oldObject && 'aggregationRule' in oldObject)
          ? [...rules, ...EVERYTHING]
          : rules;
      check(request, wanted, namespace);
      return;
    }
    const { roleRef, subjects } = object as RoleBinding;
    const old = oldObject as RoleBinding | undefined;
    if (old && JSON.stringify([old.roleRef, old.subjects]) === JSON.stringify([roleRef, subjects])) return;
    if (!roleRef) return;
    const resource = roleRef.kind === 'ClusterRole' ? 'clusterroles' : 'roles';
    if (await may('bind', { resource, name: roleRef.name, namespace })) return;
    const rules = authorizer.rbac.rulesOfRole(roleRef, namespace);
    if (rules === undefined)
      throw refusal(request, `${roleRef.kind.toLowerCase()}.${RBAC} ${JSON.stringify(roleRef.name)} not found`);
    check(request, rules, namespace);
  }

  function check(request: AdmissionRequest, rules: readonly PolicyRule[], namespace: string): void {
    const { user } = request.attributes;
    const missing = missingRules(authorizer.rbac.policyRules(user, namespace), rules);
    if (missing.length === 0) return;
    const groups = `[${user.groups.map(group => JSON.stringify(group)).join(' ')}]`;
    throw refusal(
      request,
      `user ${JSON.stringify(user.name)} (groups=${groups}) is attempting to grant RBAC permissions not currently held:\n${describeRules(missing).join('\n')}`,
    );
  }
}

const EVERYTHING: readonly PolicyRule[] = [
  { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
  { verbs: ['*'], nonResourceURLs: ['*'] },
];
