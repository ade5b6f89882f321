/**
 * Ports of the node that lead to pods (`hostPort`): one lookup in a map for each connection to an address of the node.
 * Owns the nftables table `coxswain-host-ports`, which is there only while a pod has such a port, and touches no other.
 */

import type { NftablesDoor } from '../sys/nftables.ts';

const TABLE = 'coxswain-host-ports';

export interface HostPort {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly hostPort: number;
  /** One address of the node; all of them when absent. */
  readonly hostIp?: string;
  readonly podIp: string;
  readonly port: number;
}

/** The whole table, replacing the former one, as one transaction. Of two claims to one port the first wins. */
export function renderHostPorts(ports: readonly HostPort[], nodeIps: readonly string[]): string {
  const any = new Map<string, string>();
  const bound = new Map<string, string>();
  for (const { protocol, hostPort, hostIp, podIp, port } of ports) {
    if (podIp.includes(':')) continue;
    const [map, key] = isEverywhere(hostIp)
      ? [any, `${protocol.toLowerCase()} . ${hostPort}`]
      : [bound, `${hostIp} . ${protocol.toLowerCase()} . ${hostPort}`];
    if (!map.has(key)) map.set(key, `${podIp} . ${port}`);
  }
  const remove = `add table ip ${TABLE}\ndelete table ip ${TABLE}\n`;
  if (any.size + bound.size === 0 || nodeIps.length === 0) return remove;
  const elements = (map: ReadonlyMap<string, string>) =>
    map.size ? `\n\t\telements = { ${[...map].map(([key, value]) => `${key} : ${value}`).join(', ')} }` : '';
  const pods = [...new Set(ports.map(({ podIp }) => podIp))].filter(ip => !ip.includes(':'));
  const rules = `ip daddr @node dnat ip to ip daddr . meta l4proto . th dport map @bound
\t\tip daddr @node dnat ip to meta l4proto . th dport map @any`;
  return `${remove}table ip ${TABLE} {
\tcomment "host ports of pods, by Coxswain"
\tset node {
\t\ttype ipv4_addr
\t\telements = { ${nodeIps.join(', ')} }
\t}
\tmap any {
\t\ttype inet_proto . inet_service : ipv4_addr . inet_service${elements(any)}
\t}
\tmap bound {
\t\ttype ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service${elements(bound)}
\t}
\tset itself {
\t\ttype ipv4_addr . ipv4_addr
\t\telements = { ${pods.map(ip => `${ip} . ${ip}`).join(', ')} }
\t}
\tchain prerouting {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\t${rules}
\t}
\tchain output {
\t\ttype nat hook output priority -100; policy accept;
\t\t${rules}
\t}
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tct status dnat ip saddr . ip daddr @itself masquerade
\t}
}
`;
}

function isEverywhere(hostIp: string | undefined): boolean {
  return !hostIp || hostIp === '0.0.0.0' || hostIp === '::';
}

export class HostPorts {
  readonly #nftables: NftablesDoor;
  #applied = '';

  constructor(nftables: NftablesDoor) {
    this.#nftables = nftables;
  }
  /** Replaces all that was given before. Connections under way keep their pod. */
  apply(ports: readonly HostPort[], nodeIps: readonly string[]): void {
    const text = renderHostPorts(ports, nodeIps);
    if (text === this.#applied) return;
    this.#nftables.run(text);
    this.#applied = text;
  }
}
