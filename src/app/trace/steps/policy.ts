/** What network policies say: of the sender's way out, and of each endpoint's way in. Read from the objects, as the nodes read them. */

import type { Pod } from '../../../api/core/v1.gen.ts';
import { CLUSTER_KINDS } from '../../../network/policy/cluster-policies.ts';
import { factsOfNode, readClusterPolicy } from '../../../network/policy/cluster-policy.ts';
import { nameMatches, plainName } from '../../../network/policy/domain-names.ts';
import { type Decider, type End, explain, type Verdict } from '../../../network/policy/explain.ts';
import { factsOf, takesPart } from '../../../network/policy/pod-facts.ts';
import { type Policy, readNetworkPolicy } from '../../../network/policy/statement.ts';
import { at, type Finding, failure, type Journey, ok, type Step, warning } from '../step.ts';

const SHOWN_MAX = 5;

export const policy: Step = {
  name: 'policy',
  async run(journey) {
    const { endpoints = [], cluster, from, servicePort, target } = journey;
    const policies = await policiesOf(journey);
    if (policies.length === 0 || endpoints.length === 0) return [];
    const labels = new Map((await cluster.namespaces()).map(({ metadata }) => [metadata.name, metadata.labels]));
    const world = { policies, namespaceLabels: (name: string) => labels.get(name) };
    const protocol = servicePort?.protocol ?? target.protocol;
    const good: string[] = [];
    const bad: Finding[] = [];
    const deciding = new Set<string>();
    for (const { ip, port } of endpoints) {
      const sender = {
        ...endOf(senderIp(journey, ip), from.kind === 'pod' ? from.pod : undefined),
        ...(from.kind === 'host' ? {} : { node: from.node }),
      };
      const receiver = await cluster.podAt(ip);
      const node = receiver?.spec.nodeName ?? (await cluster.nodeAt(ip))?.metadata.name;
      const said = explain(world, { from: sender, to: { ...endOf(ip, receiver), node }, protocol, port });
      for (const verdict of [said.egress, said.ingress])
        if (verdict.by) deciding.add(`${named(verdict.by)} ${verdict.by.at}`);
      if (said.allowed) good.push(at(ip, port));
      else
        bad.push(
          denied(
            at(ip, port),
            said.egress.allowed ? 'ingress' : 'egress',
            said.egress.allowed ? said.ingress : said.egress,
          ),
        );
    }
    if (good.length === 0) return bad.slice(0, SHOWN_MAX);
    const by = deciding.size > 0 ? `, by ${[...deciding].slice(0, SHOWN_MAX).join(', ')}` : '';
    const allowed = ok(`network policies allow ${good.length === 1 ? good[0] : `${good.length} endpoints`}${by}`, {
      allowed: good,
    });
    return [allowed, ...bad.slice(0, SHOWN_MAX).map(({ text, next }) => warning(text, next))];
  },
};

function endOf(ip: string, pod: Pod | undefined): End {
  return pod && takesPart(pod) ? { ip, pod: factsOf(pod) } : { ip };
}

const senderIp = ({ from }: Journey, to: string): string =>
  from.ips.find(ip => ip.includes(':') === to.includes(':')) ?? from.ips[0] ?? '';

/** A name that was asked for is taken to lead where it leads now. */
async function policiesOf({ cluster, target, endpoints = [] }: Journey): Promise<Policy[]> {
  const behind = (name: string) => (nameMatches(name, plainName(target.host)) ? endpoints.map(({ ip }) => ip) : []);
  const nodes = (await cluster.nodes()).map(factsOfNode);
  const ofKind = CLUSTER_KINDS.map(async ({ kind, of }) =>
    (await cluster.clusterPolicies(of)).map(policy => readClusterPolicy(kind, policy, nodes, behind)),
  );
  return [...(await cluster.networkPolicies()).map(readNetworkPolicy), ...(await Promise.all(ofKind)).flat()];
}

const TIERS = { admin: 'Admin', baseline: 'Baseline' } as const;
const named = ({ policy, tier }: Decider): string =>
  tier === 'namespace' ? policy : `${policy} (${TIERS[tier]} tier)`;

function denied(where: string, direction: 'ingress' | 'egress', { why, policies, by, passedBy }: Verdict): Finding {
  const end = direction === 'egress' ? "the sender's way out" : 'the way in';
  const left = passedBy ? `; ${named(passedBy)} ${passedBy.at} left it to them` : '';
  if (why === 'rule' && by)
    return failure(`${where}: ${named(by)} denies ${end} (${by.at})`, `change that rule of ${by.policy}`);
  const closing = policies.filter(id => id.startsWith('NetworkPolicy '));
  return failure(
    `${where}: no rule of ${closing.join(', ')} allows ${end}: packets are dropped, the connection waits until it gives up${left}`,
    `add a rule to spec.${direction} of one of them`,
  );
}
