/**
 * Source NAT of pods that talk to the world: from this node's range to anything but pods and nodes, packets get the node's
 * address. Pod ↔ pod and pod ↔ node keep theirs. Owns the nftables table `coxswain-network`, and touches no other.
 */

import type { NftablesDoor } from '../sys/nftables.ts';

export const MASQUERADE_TABLE = 'coxswain-network';

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
  return `add table ip ${MASQUERADE_TABLE}
delete table ip ${MASQUERADE_TABLE}
table ip ${MASQUERADE_TABLE} {
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
  readonly #fingerprint: () => string;
  #applied = '';
  #made = '';

  /** `fingerprint` tells the table in the kernel from any other: see `Nfnetlink.fingerprint`. */
  constructor(options: { readonly nftables: NftablesDoor; readonly fingerprint: () => string }) {
    this.#nftables = options.nftables;
    this.#fingerprint = options.fingerprint;
  }
  /** Replaces the table when it differs from what was last applied. Connections under way keep their addresses. */
  apply(rule: MasqueradeRule): void {
    const text = renderMasquerade(rule);
    if (text === this.#applied) return;
    this.#nftables.run(text);
    this.#applied = text;
    this.#made = this.#fingerprint();
  }
  /** Makes the table again if somebody else has removed or changed it. Returns whether. */
  repair(): boolean {
    if (this.#applied === '' || this.#fingerprint() === this.#made) return false;
    this.#nftables.run(this.#applied);
    this.#made = this.#fingerprint();
    return true;
  }
}
