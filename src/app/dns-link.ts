/** Gives a node the cluster's DNS address: a dummy link, so that each node answers its own pods and a node alone still resolves. */

import { addAddress, addLink, withRoutes } from '../sys/netlink.ts';
import { closeNetns, openOwnNetns } from '../sys/netns.ts';

const LINK = 'cox.dns';

/** Idempotent; in the calling thread's own network namespace, which is the node's. */
export function ensureDnsLink(address: string): void {
  const namespace = openOwnNetns();
  try {
    withRoutes(namespace, routes => {
      routes.request([{ ...addLink({ kind: 'dummy', name: LINK, up: true }), ignore: ['EEXIST'] }]);
      routes.request([addAddress({ index: routes.linkIndex(LINK), prefix: `${address}/32` })]);
    });
  } finally {
    closeNetns(namespace);
  }
}
