/**
 * Why a connection is allowed or denied: which policies select each end, and which rule decides. Pure, from the objects alone;
 * it says what the kernel's table was made to do, it does not look at the table.
 */

import type { Labels } from '../../api/machinery/labels.ts';
import { type NamedPorts, NO_NAMES, portsOf } from './decision.ts';
import { belongs } from './peer-classes.ts';
import { hasPort } from './port-set.ts';
import type { Direction, PodFacts, Policy, Statement } from './statement.ts';

/** One end of a connection: an address, and the pod whose it is. Pods in the node's network have none: they are the node. */
export interface End {
  readonly ip: string;
  readonly pod?: (PodFacts & { readonly names: NamedPorts }) | undefined;
  /** Name of the node that it is, or is on. */
  readonly node?: string | undefined;
}

export interface Verdict {
  readonly allowed: boolean;
  /**
   * `no pod`: this end is under no policy because it is no pod · `not isolated`: no policy speaks of this direction ·
   * `rule`: `by` decides · `no rule`: policies select the pod and none of their rules fits · `own node`: the other end is the
   * node of this pod; only cluster-scoped policies speak of the way there, none of the way from there.
   */
  readonly why: 'no pod' | 'not isolated' | 'rule' | 'no rule' | 'own node';
  /** Policies that select the pod in this direction. */
  readonly policies: readonly string[];
  readonly by?: Decider;
  /** The rule of the admin tier that left it to the others. */
  readonly passedBy?: Decider;
}

export interface Decider {
  readonly policy: string;
  readonly tier: Policy['tier'];
  readonly at: string;
  readonly action: Statement['action'];
}

export interface Explanation {
  readonly allowed: boolean;
  /** A pod that talks to itself is asked nothing. */
  readonly itself: boolean;
  /** The sender's side, then the receiver's; the first that denies decides. */
  readonly egress: Verdict;
  readonly ingress: Verdict;
}

export function explain(
  world: { readonly policies: Iterable<Policy>; readonly namespaceLabels: (namespace: string) => Labels },
  question: { readonly from: End; readonly to: End; readonly protocol: string; readonly port: number },
): Explanation {
  const { from, to } = question;
  const policies = [...world.policies];
  const egress = side('egress', from, to);
  const ingress = side('ingress', to, from);
  const itself = from.ip === to.ip;
  return { allowed: itself || (egress.allowed && ingress.allowed), itself, egress, ingress };

  function side(direction: Direction, own: End, other: End): Verdict {
    const { pod } = own;
    if (!pod) return { allowed: true, why: 'no pod', policies: [] };
    const isOwnNode = !other.pod && own.node !== undefined && own.node === other.node;
    if (isOwnNode && direction === 'ingress') return { allowed: true, why: 'own node', policies: [] };
    const labels = world.namespaceLabels(pod.namespace);
    const selecting = policies.filter(
      policy =>
        policy.statements[direction] &&
        (policy.namespace === undefined || policy.namespace === pod.namespace) &&
        policy.selects(pod, labels),
    );
    const names = selecting.map(({ id }) => id).sort();
    const first = (tier: Policy['tier']): Decider | undefined => {
      const ordered = selecting
        .filter(policy => policy.tier === tier)
        .sort((a, b) => a.priority - b.priority || (a.id < b.id ? -1 : 1));
      for (const policy of ordered)
        for (const statement of policy.statements[direction]!)
          if (fits(statement, other)) return { policy: policy.id, tier, at: statement.at, action: statement.action };
      return undefined;
    };
    const admin = first('admin');
    const passed = admin?.action === 'pass' ? { passedBy: admin } : {};
    const verdict = (by: Decider): Verdict => ({
      allowed: by.action === 'allow',
      why: 'rule',
      policies: names,
      by,
      ...passed,
    });
    if (admin && admin.action !== 'pass') return verdict(admin);
    if (selecting.some(({ tier }) => tier === 'namespace')) {
      if (isOwnNode) return { allowed: true, why: 'own node', policies: names, ...passed };
      const rule = first('namespace');
      return rule ? verdict(rule) : { allowed: false, why: 'no rule', policies: names, ...passed };
    }
    const baseline = first('baseline');
    if (baseline && baseline.action !== 'pass') return verdict(baseline);
    return { allowed: true, why: 'not isolated', policies: names, ...passed };
  }

  function fits({ peers, ports }: Statement, { ip, pod }: End): boolean {
    const { protocol, port } = question;
    if (!hasPort(portsOf(ports, to.pod?.names ?? NO_NAMES), protocol, port)) return false;
    if (peers === 'all') return true;
    return peers.some(peer =>
      peer.kind === 'block'
        ? belongs({ ip, pod: NOBODY }, peer, undefined)
        : pod !== undefined && belongs({ ip, pod }, peer, world.namespaceLabels(pod.namespace)),
    );
  }
}

const NOBODY: PodFacts = { namespace: '', labels: undefined };
