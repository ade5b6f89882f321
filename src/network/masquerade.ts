/**
 * Source NAT of pods that talk to the world: from this node's ranges to anything but pods and nodes, packets get the node's
 * address. Pod ↔ pod and pod ↔ node keep theirs. Owns the nftables table `coxswain-network` of each family that pods have,
 * and touches no other.
 */

import { NFPROTO_IPV4, NFPROTO_IPV6 } from '../sys/nfnetlink.ts';
import type { NftablesDoor } from '../sys/nftables.ts';

export const MASQUERADE_TABLE = 'coxswain-network';

const FAMILIES = [
  { number: NFPROTO_IPV4, word: 'ip', type: 'ipv4_addr', multicast: '224.0.0.0/4', isV6: false },
  { number: NFPROTO_IPV6, word: 'ip6', type: 'ipv6_addr', multicast: 'ff00::/8', isV6: true },
] as const;

export interface MasqueradeRule {
  /** This node's ranges, one of each family. */
  readonly podCidrs: readonly string[];
  /** Ranges of all pods. */
  readonly clusterCidrs: readonly string[];
  readonly nodeIps: readonly string[];
}

/** The tables of the families that the node's pods have, replacing the former ones, as one transaction. */
export function renderMasquerade({ podCidrs, clusterCidrs, nodeIps }: MasqueradeRule): string {
  return FAMILIES.map(({ word, type, multicast, isV6 }) => {
    const own = (addresses: readonly string[]) => addresses.filter(address => address.includes(':') === isV6);
    const [podCidr] = own(podCidrs);
    if (!podCidr) return '';
    // An address within a cluster range overlaps it, which nft refuses without auto-merge.
    const internal = [...new Set([...own(clusterCidrs), ...own(nodeIps), multicast])].sort();
    return `add table ${word} ${MASQUERADE_TABLE}
delete table ${word} ${MASQUERADE_TABLE}
table ${word} ${MASQUERADE_TABLE} {
\tcomment "pod network of Coxswain"
\tset internal {
\t\ttype ${type}
\t\tflags interval
\t\tauto-merge
\t\telements = { ${internal.join(', ')} }
\t}
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\t${word} saddr ${podCidr} ${word} daddr != @internal masquerade fully-random
\t}
}
`;
  }).join('');
}

export interface MasqueradeOptions {
  readonly nftables: NftablesDoor;
  /** Tells a table in the kernel from any other: see `Nfnetlink.fingerprint`. */
  readonly fingerprint: (table: { readonly family: number; readonly table: string }) => string;
}

export class Masquerade {
  readonly #options: MasqueradeOptions;
  #applied = '';
  #made = '';

  constructor(options: MasqueradeOptions) {
    this.#options = options;
  }
  /** Replaces the tables when they differ from what was last applied. Connections under way keep their addresses. */
  apply(rule: MasqueradeRule): void {
    const text = renderMasquerade(rule);
    if (text === this.#applied) return;
    this.#options.nftables.run(text);
    this.#applied = text;
    this.#made = this.#fingerprint();
  }
  /** Makes the tables again if somebody else has removed or changed one. Returns whether. */
  repair(): boolean {
    if (this.#applied === '' || this.#fingerprint() === this.#made) return false;
    this.#options.nftables.run(this.#applied);
    this.#made = this.#fingerprint();
    return true;
  }
  #fingerprint(): string {
    return FAMILIES.map(({ number: family }) => this.#options.fingerprint({ family, table: MASQUERADE_TABLE })).join();
  }
}
