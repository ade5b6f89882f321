/**
 * Routing rules that let only packets with the mark of policies out of and into pods. They stay when nftables' rules are gone,
 * so a flushed table closes pods until it is back, instead of opening them. What the node itself sends, and what is for the
 * node itself, is not their business. Owns the rules of its priorities and no other.
 */

import { ROUTE_TABLE_MAIN } from '../../sys/netlink.ts';
import type { NetnsRef } from '../../sys/netns.ts';
import { type RoutingRule, RoutingRules } from '../../sys/routing-rule.ts';
import { ensureSysctls } from '../../sys/sysctl.ts';
import { PASSED_MARK } from './rules.ts';

/** Before the main table (32766), after whatever an administrator has for certain packets. */
const PRIORITY = 32_100;

export class RoutingGuard {
  readonly #namespace: NetnsRef;
  readonly #kernel: RoutingRules;
  readonly #bridge: string;

  constructor(options: { readonly namespace: NetnsRef; readonly bridge: string }) {
    this.#namespace = options.namespace;
    this.#kernel = new RoutingRules(options.namespace);
    this.#bridge = options.bridge;
  }

  /** Idempotent; rules for ranges of before go. */
  install(podCidrs: readonly string[]): void {
    // The check of the reverse path asks these rules too, and without its mark a packet from another node would fail it.
    ensureSysctls(this.#namespace, { 'ipv4/conf/all/src_valid_mark': '1' });
    this.#make(this.#rules(podCidrs));
  }
  remove(): void {
    this.#make([]);
  }
  close(): void {
    this.#kernel.close();
  }

  #rules(podCidrs: readonly string[]): RoutingRule[] {
    return podCidrs.flatMap((cidr): RoutingRule[] => {
      const family = cidr.includes(':') ? 6 : 4;
      return [
        { family, priority: PRIORITY, inputLink: 'lo', table: ROUTE_TABLE_MAIN },
        { family, priority: PRIORITY + 1, mark: PASSED_MARK, table: ROUTE_TABLE_MAIN },
        { family, priority: PRIORITY + 2, inputLink: this.#bridge, table: 'blackhole' },
        { family, priority: PRIORITY + 3, to: cidr, table: 'blackhole' },
      ];
    });
  }

  // New rules that let pass come before those that stop, old ones go in the opposite order.
  #make(wanted: readonly RoutingRule[]): void {
    const text = (rule: RoutingRule) =>
      [rule.family, rule.priority, rule.inputLink, rule.mark, rule.to, rule.table].map(String).join(' ');
    const present = ([4, 6] as const).flatMap(family => this.#kernel.list(family)).filter(isOwn);
    const [have, want] = [new Set(present.map(text)), new Set(wanted.map(text))];
    this.#kernel.change({
      add: wanted.filter(rule => !have.has(text(rule))),
      remove: present.filter(rule => !want.has(text(rule))).sort((a, b) => b.priority - a.priority),
    });
  }
}

function isOwn({ priority }: RoutingRule): boolean {
  return priority >= PRIORITY && priority <= PRIORITY + 3;
}
