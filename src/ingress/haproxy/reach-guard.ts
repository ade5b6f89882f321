/**
 * Keeps a node's HAProxys from what is the node's own, whatever a name that a tenant wrote leads to: the kernel refuses their new connections
 * and datagrams to such addresses. They are known by a group that nothing else runs with. Owns the nftables table `coxswain-reach`, whose
 * rule others' changes do not outlast. It says nothing of addresses that packets are translated to afterwards: the API takes no
 * endpoint there.
 */

import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { NetnsRef } from '../../sys/netns.ts';
import { NftMonitor } from '../../sys/nft-monitor.ts';
import { Nftables } from '../../sys/nftables.ts';
import { OWN_RANGES } from '../node-own-host.ts';

/** Of a range that neither Debian nor systemd gives away, so that not even the machine's own haproxy has it. */
export const REACH_GROUP = 60_780;

const TABLE = 'inet coxswain-reach';
const NFPROTO_INET = 1;

export interface ReachGuardOptions {
  /** The calling thread's own when absent. */
  readonly namespace?: NetnsRef;
  readonly log: Logger;
}

export class ReachGuard {
  readonly #text: Nftables;
  readonly #log: Logger;
  readonly #namespace: NetnsRef | undefined;
  #monitor: NftMonitor | undefined;

  constructor({ namespace, log }: ReachGuardOptions) {
    this.#namespace = namespace;
    this.#text = new Nftables(namespace);
    this.#log = log.with({ part: 'reach-guard' });
  }

  /** Returns once the rule is there, and keeps it there until `close`, after which it stays. Throws if it cannot be made. */
  keep(): void {
    this.#monitor ??= new NftMonitor({
      ...(this.#namespace === undefined ? {} : { namespace: this.#namespace }),
      tables: [{ family: NFPROTO_INET, table: TABLE.split(' ')[1]! }],
      ownPort: 0,
      onChange: () => this.#repair(),
    });
    this.#monitor.own(() => this.#text.run(RULES));
  }

  close(): void {
    this.#monitor?.close();
    this.#monitor = undefined;
  }

  #repair(): void {
    if (!this.#monitor?.takeTouched()) return;
    this.#log.warn('the rule that guards the node was changed by somebody else, made anew');
    try {
      this.keep();
    } catch (error) {
      this.#log.error('the rule that guards the node is not there', { error: messageOf(error) });
    }
  }
}

const family = (is6: boolean): string =>
  OWN_RANGES.filter(([address]) => address.includes(':') === is6)
    .map(([address, bits]) => `${address}/${bits}`)
    .join(', ');

// Before destinations are translated: a Service's address is none of these, and host ports answer at 127.0.0.1. What HAProxy answers to
// somebody at the node itself belongs to a connection that is not new.
const RULES = [
  `add table ${TABLE} { comment "what HAProxy of Coxswain may not reach"; }`,
  `add chain ${TABLE} output { type filter hook output priority -110; policy accept; }`,
  `flush chain ${TABLE} output`,
  ...[`ip daddr { ${family(false)} }`, `ip6 daddr { ${family(true)} }`].map(
    own => `add rule ${TABLE} output meta skgid ${REACH_GROUP} ct state new ${own} reject`,
  ),
].join('\n');
