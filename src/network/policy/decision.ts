/**
 * What statements decide about one peer: which ports are allowed. Tiers are asked in their order; within the namespace tier
 * policies only add up, in the others the first statement that speaks of a port decides. Pure.
 */

import { ALL_PORTS, intersect, NO_PORTS, type PortSet, portRange, subtract, union } from './port-set.ts';
import type { PortSpec, Protocol, Statement, Tier } from './statement.ts';

/** Numbers of a pod's named ports, by `TCP/http`. */
export type NamedPorts = ReadonlyMap<string, number>;
export const NO_NAMES: NamedPorts = new Map();
const PROTOCOLS: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];

export interface Ranked {
  readonly tier: Tier;
  readonly statement: Statement;
  /** Nobody knows yet whether the peer is one of those that the statement speaks of: then it only takes away. */
  readonly perhaps?: boolean;
}

/** Keys under which a pod may have this named port. */
export function nameKeys({
  protocol,
  name,
}: {
  readonly protocol: Protocol | undefined;
  readonly name: string;
}): string[] {
  return (protocol ? [protocol] : PROTOCOLS).map(one => `${one}/${name}`);
}

export function portsOf(specs: readonly PortSpec[] | 'all', names: NamedPorts): PortSet {
  if (specs === 'all') return ALL_PORTS;
  let out: PortSet = NO_PORTS;
  for (const spec of specs) {
    if (!('name' in spec)) out = union(out, portRange(spec.protocol, spec.from, spec.to));
    else
      for (const key of nameKeys(spec)) {
        const number = names.get(key);
        if (number !== undefined) out = union(out, portRange(key.split('/')[0] as Protocol, number, number));
      }
  }
  return out;
}

/**
 * `matching`: the statements that speak of the peer, in the order in which they are asked. `isolated`: whether a policy of
 * the namespace tier selects the pod in this direction. `names`: the destination pod's. `toOwnNode`: the peer is the pod's own
 * node, which NetworkPolicies always let through.
 */
export function decide(
  matching: readonly Ranked[],
  options: { isolated: boolean; names: NamedPorts; toOwnNode?: boolean },
): PortSet {
  let [undecided, allowed]: [PortSet, PortSet] = [ALL_PORTS, NO_PORTS];
  const ask = (tier: Tier) => {
    let [passed, perhapsPassed]: [PortSet, PortSet] = [NO_PORTS, NO_PORTS];
    for (const { tier: own, statement, perhaps } of matching) {
      if (own !== tier) continue;
      let hit = intersect(undecided, portsOf(statement.ports, options.names));
      if (statement.action === 'allow') hit = perhaps ? NO_PORTS : subtract(hit, perhapsPassed);
      if (hit.length === 0) continue;
      if (statement.action === 'pass' && perhaps) {
        perhapsPassed = union(perhapsPassed, hit);
        continue;
      }
      undecided = subtract(undecided, hit);
      if (statement.action === 'allow') allowed = union(allowed, hit);
      else if (statement.action === 'pass') passed = union(passed, hit);
    }
    undecided = union(undecided, passed);
  };
  ask('admin');
  if (options.isolated) {
    if (options.toOwnNode) return union(allowed, undecided);
    ask('namespace');
    return allowed;
  }
  ask('baseline');
  return union(allowed, undecided);
}
