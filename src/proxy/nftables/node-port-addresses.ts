/**
 * Where node ports answer: kube-proxy's `nodePortAddresses`. `primary` stands for the node's own addresses; a range for
 * every address in it that a link of the node has now. Loopback addresses never count, whatever the ranges say: a node port
 * is not served there, because that would take `route_localnet`.
 */

import { parseAddress, parsePrefix, prefixContains } from '../../sys/address.ts';
import { RouteSocket } from '../../sys/netlink.ts';
import type { NetnsRef } from '../../sys/netns.ts';

const LOOPBACK_LINK = 1;

export class NodePortAddresses {
  readonly #nodeIps: readonly string[];
  readonly #primary: boolean;
  readonly #ranges: ReturnType<typeof parsePrefix>[];
  readonly #routes: RouteSocket | undefined;

  /** Throws on a range that is none. */
  constructor(options: {
    readonly namespace?: NetnsRef;
    readonly nodeIps: readonly string[];
    readonly ranges: readonly string[];
  }) {
    this.#nodeIps = options.nodeIps;
    this.#primary = options.ranges.includes('primary');
    this.#ranges = options.ranges.filter(range => range !== 'primary').map(parsePrefix);
    this.#routes = this.#ranges.length > 0 ? new RouteSocket(options.namespace) : undefined;
  }

  /** As of now, sorted. */
  current(): string[] {
    const found = new Set(this.#primary ? this.#nodeIps : []);
    for (const { index, prefix } of this.#routes?.addresses() ?? []) {
      const address = prefix.slice(0, prefix.lastIndexOf('/'));
      if (index !== LOOPBACK_LINK && this.#ranges.some(range => prefixContains(range, parseAddress(address))))
        found.add(address);
    }
    return [...found].sort();
  }

  changed(since: readonly string[]): boolean {
    return this.#routes !== undefined && this.current().join() !== since.join();
  }

  close(): void {
    this.#routes?.close();
  }
}
