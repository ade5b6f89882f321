/** What is rewritten on the way: the destination, and the sender where answers would not come back otherwise. */

import { at, type Finding, ok, type Step } from '../step.ts';

export const nat: Step = {
  name: 'nat',
  run({ frontend, endpoints, from, node }) {
    if (!frontend || !endpoints || endpoints.length === 0) return [];
    const target = endpoints.length === 1 ? at(endpoints[0]!.ip, endpoints[0]!.port) : 'the endpoint chosen';
    const address = frontend.address ? at(frontend.address, frontend.port) : `the node:${frontend.port}`;
    const findings: Finding[] = [ok(`destination ${address} becomes ${target}`)];
    const own = endpoints.some(({ ip }) => from.ips.includes(ip));
    const isPod = from.kind === 'pod' && !from.pod.spec.hostNetwork;
    const keepsOutsiders = frontend.localEndpoints !== undefined && from.kind === 'host';
    const hidden = frontend.masquerade === 'always' ? !keepsOutsiders && !(frontend.localEndpoints && isPod) : !isPod;
    if (hidden)
      findings.push(
        ok(`the sender becomes ${node.metadata.name} (masqueraded), so that answers come back this way`, {
          masquerade: true,
        }),
      );
    else
      findings.push(
        ok(
          `the sender's address is kept${own ? ', except where it reaches itself (hairpin): then it becomes the node' : ''}`,
          { masquerade: false },
        ),
      );
    return findings;
  },
};
