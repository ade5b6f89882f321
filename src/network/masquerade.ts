/**
 * Source NAT of pods that talk to the world: from this node's range to anything but pods and nodes, packets get the node's
 * address. Pod ↔ pod and pod ↔ node keep theirs. Owns the nftables table `coxswain-network`, and touches no other.
 */

import type { NftablesDoor } from '../sys/nftables.ts';

const TABLE = 'coxswain-network';

export interface MasqueradeRule {
  readonly podCidr: string;
  /** Ranges of all pods. */
  readonly clusterCidrs: readonly string[];
  readonly nodeIps: readonly string[];
}

/** The whole table, replacing the former one, as one transaction. */
export function renderMasquerade({ podCidr, clusterCidrs, nodeIps }: MasqueradeRule): string {
  const isV4 = (text: string) => !text.includes(':');
  // An address within a cluster range would overlap it, which nft refuses without auto-merge.
  const internal = [...new Set([...clusterCidrs.filter(isV4), ...nodeIps.filter(isV4), '224.0.0.0/4'])].sort();
  return `add table ip ${TABLE}
delete table ip ${TABLE}
table ip ${TABLE} {
\tcomment "pod network of Coxswain"
\tset internal {
\t\ttype ipv4_addr
\t\tflags interval
\t\tauto-merge
\t\telements = { ${internal.join(', ')} }
\t}
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr ${podCidr} ip daddr != @internal masquerade fully-random
\t}
}
`;
}

export class Masquerade {
  readonly #nftables: NftablesDoor;
  #applied = '';

  constructor(nftables: NftablesDoor) {
    this.#nftables = nftables;
  }
  /** Replaces the table when it differs from what was last applied. Connections under way keep their addresses. */
  apply(rule: MasqueradeRule): void {
    const text = renderMasquerade(rule);
    if (text === this.#applied) return;
    this.#nftables.run(text);
    this.#applied = text;
  }
}
