/** Who asks: whether it can ask at all. */

import { isReady } from '../live-cluster.ts';
import { type Finding, failure, ok, type Step, warning } from '../step.ts';

export const origin: Step = {
  name: 'from',
  run({ from, node, cluster }) {
    const findings: Finding[] = [];
    if (from.kind === 'host') findings.push(ok(`this machine, through 127.0.0.1 (relayed to ${from.node})`));
    else if (from.kind === 'node') findings.push(ok(`node ${from.node} (${from.ips.join(', ')})`));
    else {
      const { pod } = from;
      const name = `pod ${pod.metadata.namespace}/${pod.metadata.name}`;
      if (pod.status?.phase !== 'Running' || cluster.processOf(pod) === undefined)
        return [
          failure(
            `${name} does not run: phase ${pod.status?.phase ?? 'Pending'}`,
            `see: kubectl -n ${pod.metadata.namespace} describe pod ${pod.metadata.name}`,
          ),
        ];
      findings.push(
        ok(
          `${name} (${from.ips.join(', ')}) on ${from.node}${pod.spec.hostNetwork ? ', in the network of the node' : ''}`,
        ),
      );
    }
    if (!isReady(node))
      findings.push(warning(`node ${from.node} is not Ready`, `see: kubectl describe node ${from.node}`));
    return findings;
  },
};
