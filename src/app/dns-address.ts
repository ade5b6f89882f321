/**
 * Gives a node the cluster's DNS address, so that each node answers its own pods and a node alone still resolves. It goes on the
 * loopback link of the node's namespace: pods reach it through their gateway, and no kernel module is needed.
 */

import { hostPrefix } from '../network/pod-links.ts';
import { addAddress, withRoutes } from '../sys/netlink.ts';
import { closeNetns, openOwnNetns } from '../sys/netns.ts';
import { bindUdp } from '../sys/socket.ts';

const LOOPBACK_INDEX = 1;
export const DNS_PORT = 53;

/**
 * The socket that the node's DNS is asked by, held by the node's supervisor: questions that come while the agent is started again
 * wait in it instead of being refused. The caller closes its descriptor once the supervisor has it.
 */
export function openDnsSocket(options: { readonly namespace: string; readonly address: string }): number {
  return bindUdp({ ...options, port: DNS_PORT, freebind: true });
}

/** Idempotent; in the calling thread's own network namespace, which is the node's. */
export function ensureDnsAddress(address: string): void {
  const namespace = openOwnNetns();
  try {
    withRoutes(namespace, routes =>
      routes.request([addAddress({ index: LOOPBACK_INDEX, prefix: hostPrefix(address) })]),
    );
  } finally {
    closeNetns(namespace);
  }
}
