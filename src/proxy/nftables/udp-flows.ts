/** Which UDP flows conntrack should forget: those that came in by a Service and lead to what is not its endpoint. Pure. */

import { formatAddress } from '../../sys/address.ts';
import type { ConntrackEntry } from '../../sys/nfnetlink.ts';
import type { Endpoint, Frontend } from '../model.ts';

export interface UdpFrontend {
  readonly frontend: Frontend;
  /** As they are now. */
  readonly endpoints: readonly Endpoint[];
}

export function staleFlows(
  flows: readonly ConntrackEntry[],
  frontends: readonly UdpFrontend[],
  nodeIps: readonly string[],
): ConntrackEntry[] {
  const allowed = new Map<string, ReadonlySet<string>>();
  for (const { frontend, endpoints } of frontends) {
    const set = new Set(endpoints.map(({ ip, port }) => `${ip} ${port}`));
    for (const address of frontend.address === undefined ? nodeIps : [frontend.address])
      allowed.set(`${address} ${frontend.port}`, set);
  }
  return flows.filter(({ destination, destinationPort, replySource, replySourcePort }) => {
    const endpoints = allowed.get(`${formatAddress(destination)} ${destinationPort}`);
    return endpoints !== undefined && !endpoints.has(`${formatAddress(replySource)} ${replySourcePort}`);
  });
}
