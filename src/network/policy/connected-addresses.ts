/** Where this node's connections lead, as the kernel remembers them. */

import { formatAddress } from '../../sys/address.ts';
import type { NetnsRef } from '../../sys/netns.ts';
import { NFPROTO_IPV4, NFPROTO_IPV6, Nfnetlink } from '../../sys/nfnetlink.ts';

const PROTOCOLS = [6, 17, 132];

/** Lists all flows: for now and then. */
export function connectedAddresses(namespace: NetnsRef): ReadonlySet<string> {
  const kernel = new Nfnetlink(namespace);
  try {
    const flows = [NFPROTO_IPV4, NFPROTO_IPV6].flatMap(family =>
      PROTOCOLS.flatMap(protocol => kernel.conntrack({ family, protocol })),
    );
    return new Set(flows.map(({ replySource }) => formatAddress(replySource)));
  } finally {
    kernel.close();
  }
}
