/**
 * Keeps RBAC's own objects right: writes what is missing of the bootstrap policy at start, and the rules of aggregated
 * cluster roles whenever a cluster role changes. Only ever adds to bootstrap objects, and leaves alone those annotated
 * `rbac.authorization.kubernetes.io/autoupdate: "false"`.
 */

import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject } from '../../api/rbac/v1.gen.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import {
  CLUSTER_ROLE_BINDINGS,
  CLUSTER_ROLES,
  CLUSTER_TRUST_BUNDLES,
  ROLE_BINDINGS,
  ROLES,
} from '../../client/resources.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import type { Reader } from '../request.ts';
import { bootstrapPolicy, mergeRules } from './bootstrap-policy.ts';
import { missingRules } from './rules.ts';

export interface PolicyReconcilerOptions {
  readonly reader: () => Reader;
  readonly transport: () => Transport;
  readonly log: Logger;
}

export class PolicyReconciler {
  readonly #options: PolicyReconcilerOptions;
  #aggregating: Promise<void> = Promise.resolve();
  #scheduled = false;

  constructor(options: PolicyReconcilerOptions) {
    this.#options = options;
  }

  /** One pass: all missing objects at once (the store groups the commits); on an unchanged cluster it writes nothing. */
  async bootstrap(): Promise<void> {
    const policy = bootstrapPolicy({
      trustBundles: this.#options.reader().table?.of(CLUSTER_TRUST_BUNDLES) !== undefined,
    });
    await Promise.all([
      ...policy.clusterRoles.map(role => this.#ensure(CLUSTER_ROLES, role, addRules)),
      ...policy.clusterRoleBindings.map(binding => this.#ensure(CLUSTER_ROLE_BINDINGS, binding, addSubjects)),
      ...policy.roles.map(role => this.#ensure(ROLES, role, addRules)),
      ...policy.roleBindings.map(binding => this.#ensure(ROLE_BINDINGS, binding, addSubjects)),
    ]);
  }

  /** Follows cluster roles and rewrites aggregated ones; returns a function that ends it. */
  watchAggregation(): () => void {
    const end = this.#options.reader().onChange(CLUSTER_ROLES, () => this.#schedule());
    this.#schedule();
    return end;
  }

  // Changes come in bursts: one pass follows them all.
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#aggregating = this.#aggregating.then(async () => {
      await new Promise(resolve => setImmediate(resolve));
      this.#scheduled = false;
      await this.#aggregate().catch(error =>
        this.#options.log.warn('aggregating cluster roles failed', { error: messageOf(error) }),
      );
    });
  }

  async #aggregate(): Promise<void> {
    const roles = this.#options.reader().list(CLUSTER_ROLES) as readonly ClusterRole[];
    for (const role of roles) {
      const selectors = role.aggregationRule?.clusterRoleSelectors;
      if (!selectors) continue;
      const matches = selectors.map(labelSelectorMatch);
      const parts = new Set<ClusterRole>();
      // Upstream's order: selector by selector, and roles by name within one.
      for (const match of matches)
        for (const part of [...roles].sort(byName)) if (part !== role && match(part.metadata.labels)) parts.add(part);
      const rules = mergeRules([...parts]);
      if (JSON.stringify(rules.map(normal)) === JSON.stringify((role.rules ?? []).map(normal))) continue;
      try {
        await this.#options
          .transport()
          .update({ of: CLUSTER_ROLES, name: role.metadata.name }, { ...role, rules } as KubeObject);
      } catch (error) {
        if (!isReason(error, 'Conflict', 'NotFound')) throw error;
        this.#schedule();
      }
    }
  }

  async #ensure<T extends KubeObject>(
    of: ResourceId,
    wanted: T,
    merge: (existing: T, wanted: T) => T | undefined,
  ): Promise<void> {
    const { namespace = '', name } = wanted.metadata;
    const existing = this.#options.reader().get(of, namespace, name) as T | undefined;
    try {
      if (!existing) {
        await this.#options.transport().create({ of, namespace }, wanted);
        return;
      }
      if (existing.metadata.annotations?.['rbac.authorization.kubernetes.io/autoupdate'] === 'false') return;
      const changed = merge(existing, wanted);
      const labels = { ...existing.metadata.labels, ...wanted.metadata.labels };
      const unlabelled = Object.keys(labels).length !== Object.keys(existing.metadata.labels ?? {}).length;
      if (!changed && !unlabelled) return;
      const update = { ...(changed ?? existing), metadata: { ...existing.metadata, labels } };
      await this.#options.transport().update({ of, namespace, name }, update);
    } catch (error) {
      if (!isReason(error, 'AlreadyExists', 'Conflict')) throw error;
    }
  }
}

const byName = (a: KubeObject, b: KubeObject): number => (a.metadata.name < b.metadata.name ? -1 : 1);
const normal = (rule: PolicyRule) => [
  rule.verbs,
  rule.apiGroups ?? [],
  rule.resources ?? [],
  rule.resourceNames ?? [],
  rule.nonResourceURLs ?? [],
];

function addRules<T extends ClusterRole | Role>(existing: T, wanted: T): T | undefined {
  // Aggregated roles get their rules from aggregation alone.
  if ('aggregationRule' in wanted || JSON.stringify(existing.rules) === JSON.stringify(wanted.rules)) return undefined;
  const lacking = (wanted.rules ?? []).filter(rule => missingRules(existing.rules ?? [], [rule]).length > 0);
  return lacking.length ? { ...existing, rules: [...(existing.rules ?? []), ...lacking] } : undefined;
}

function addSubjects<T extends ClusterRoleBinding | RoleBinding>(existing: T, wanted: T): T | undefined {
  const has = (subject: Subject) =>
    existing.subjects?.some(
      other =>
        other.kind === subject.kind &&
        other.name === subject.name &&
        (other.namespace ?? '') === (subject.namespace ?? ''),
    );
  const lacking = (wanted.subjects ?? []).filter(subject => !has(subject));
  return lacking.length ? { ...existing, subjects: [...(existing.subjects ?? []), ...lacking] } : undefined;
}
