/**
 * RBAC. Bindings are indexed by subject and kept current from the Reader, one binding a change, so that a decision looks
 * only at the bindings of the user and its groups. What they come to is remembered for each user object (a connection's
 * requests share one) until any RBAC object changes. Only grants exist: no rule can deny.
 */

import type {
  ClusterRole,
  ClusterRoleBinding,
  PolicyRule,
  Role,
  RoleBinding,
  RoleRef,
  Subject,
} from '../../api/rbac/v1.gen.ts';
import { CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES } from '../../client/resources.ts';
import type { Authorizer, Decision, Reader, RequestAttributes, UserInfo } from '../request.ts';
import { ruleAllows } from './rules.ts';

interface Grant {
  readonly roleRef: RoleRef;
  /** '' for cluster-wide. */
  readonly namespace: string;
  readonly binding: string;
  readonly subject: Subject;
  /** What a request that it allows is told; made when first needed. */
  allows?: Decision;
}

type Grants = Map<string, Grant[]>;

/** What one user has been granted in one namespace; rules are undefined where the role is missing. */
type Granted = readonly { readonly grant: Grant; readonly rules: readonly PolicyRule[] | undefined }[];

/** Namespaces remembered for one user; a controller of all namespaces starts over there. */
const NAMESPACES_MAX = 1000;
const DENIED: Decision = { allowed: false, reason: '' };

export class RbacAuthorizer implements Authorizer {
  readonly #reader: () => Reader;
  /** Namespace ('' for cluster-wide) → subject key → grants. Built at the first question. */
  #index: Map<string, Grants> | undefined;
  /** By user and namespace; replaced when anything that it was made from changes. */
  #granted = new WeakMap<UserInfo, Map<string, Granted>>();

  constructor(reader: () => Reader) {
    this.#reader = reader;
  }

  authorize(attributes: RequestAttributes): Decision {
    const granted = this.#grantedTo(attributes.user, attributes.isResource ? attributes.namespace : '');
    for (const { grant, rules } of granted)
      if (rules)
        for (const rule of rules)
          if (ruleAllows(rule, attributes)) return (grant.allows ??= { allowed: true, reason: allowedBy(grant) });
    const problems: string[] = [];
    for (const { grant, rules } of granted) {
      if (rules) continue;
      const { kind, name } = grant.roleRef;
      const problem = `${kind.toLowerCase()}.rbac.authorization.k8s.io ${JSON.stringify(name)} not found`;
      if (!problems.includes(problem)) problems.push(problem);
    }
    if (problems.length === 0) return DENIED;
    return { allowed: false, reason: `RBAC: ${problems.length === 1 ? problems[0] : `[${problems.join(', ')}]`}` };
  }

  /** Everything granted to the user in the namespace, cluster-wide grants first. */
  policyRules(user: UserInfo, namespace: string): PolicyRule[] {
    return this.#grantedTo(user, namespace).flatMap(({ rules }) => rules ?? []);
  }

  rulesFor(
    user: UserInfo,
    namespace: string,
  ): { resourceRules: unknown[]; nonResourceRules: unknown[]; incomplete: boolean } {
    const rules = this.policyRules(user, namespace);
    return {
      resourceRules: rules
        .filter(rule => rule.resources?.length)
        .map(({ verbs, apiGroups, resources, resourceNames }) => ({
          verbs,
          apiGroups,
          resources,
          ...(resourceNames?.length ? { resourceNames } : {}),
        })),
      nonResourceRules: rules
        .filter(rule => rule.nonResourceURLs?.length)
        .map(({ verbs, nonResourceURLs }) => ({ verbs, nonResourceURLs })),
      incomplete: false,
    };
  }

  /** Rules behind a role reference; undefined when there is no such role. */
  rulesOfRole(roleRef: RoleRef, namespace: string): readonly PolicyRule[] | undefined {
    const role =
      roleRef.kind === 'ClusterRole'
        ? (this.#reader().get(CLUSTER_ROLES, '', roleRef.name) as ClusterRole | undefined)
        : (this.#reader().get(ROLES, namespace, roleRef.name) as Role | undefined);
    return role && (role.rules ?? []);
  }

  // Cluster-wide grants first.
  #grantedTo(user: UserInfo, namespace: string): Granted {
    this.#index ??= this.#build();
    let ofUser = this.#granted.get(user);
    if (!ofUser) this.#granted.set(user, (ofUser = new Map()));
    let granted = ofUser.get(namespace);
    if (!granted) {
      const grants: Grant[] = [];
      for (const scope of namespace ? ['', namespace] : ['']) {
        const here = this.#index.get(scope);
        if (!here) continue;
        grants.push(...(here.get(`u:${user.name}`) ?? []));
        for (const group of user.groups) grants.push(...(here.get(`g:${group}`) ?? []));
      }
      granted = grants.map(grant => ({ grant, rules: this.rulesOfRole(grant.roleRef, grant.namespace) }));
      if (ofUser.size >= NAMESPACES_MAX) ofUser.clear();
      ofUser.set(namespace, granted);
    }
    return granted;
  }

  #build(): Map<string, Grants> {
    const reader = this.#reader();
    const index = new Map<string, Grants>();
    const forget = () => {
      this.#granted = new WeakMap();
    };
    reader.onChange(CLUSTER_ROLES, forget);
    reader.onChange(ROLES, forget);
    for (const resource of [CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS]) {
      const change = (object: unknown, old: unknown) => {
        if (old) remove(index, old as RoleBinding);
        if (object) add(index, object as RoleBinding);
        forget();
      };
      for (const binding of reader.list(resource)) change(binding, undefined);
      reader.onChange(resource, change);
    }
    return index;
  }
}

function add(index: Map<string, Grants>, binding: ClusterRoleBinding | RoleBinding): void {
  const namespace = binding.metadata.namespace ?? '';
  let grants = index.get(namespace);
  if (!grants) index.set(namespace, (grants = new Map()));
  for (const subject of binding.subjects ?? []) {
    const key = keyOfSubject(subject, namespace);
    const grant: Grant = { roleRef: binding.roleRef, namespace, binding: binding.metadata.name, subject };
    const existing = grants.get(key);
    if (existing) existing.push(grant);
    else grants.set(key, [grant]);
  }
}

function remove(index: Map<string, Grants>, binding: ClusterRoleBinding | RoleBinding): void {
  const namespace = binding.metadata.namespace ?? '';
  const grants = index.get(namespace);
  for (const subject of binding.subjects ?? []) {
    const key = keyOfSubject(subject, namespace);
    const rest = grants?.get(key)?.filter(grant => grant.binding !== binding.metadata.name);
    if (rest?.length) grants!.set(key, rest);
    else grants?.delete(key);
  }
  if (grants?.size === 0) index.delete(namespace);
}

function keyOfSubject(subject: Subject, namespace: string): string {
  if (subject.kind === 'Group') return `g:${subject.name}`;
  if (subject.kind === 'ServiceAccount')
    return `u:system:serviceaccount:${subject.namespace || namespace}:${subject.name}`;
  return `u:${subject.name}`;
}

function allowedBy({ binding, namespace, roleRef, subject }: Grant): string {
  const bound = namespace
    ? `RoleBinding ${JSON.stringify(`${binding}/${namespace}`)}`
    : `ClusterRoleBinding ${JSON.stringify(binding)}`;
  const name = subject.kind === 'ServiceAccount' ? `${subject.name}/${subject.namespace || namespace}` : subject.name;
  return `RBAC: allowed by ${bound} of ${roleRef.kind} ${JSON.stringify(roleRef.name)} to ${subject.kind} ${JSON.stringify(name)}`;
}
