/**
 * Rules of policy routing (`ip rule`) of one namespace: which routing table a packet's route comes from, or that it has none.
 * It knows only the selectors named here; rules with others are listed by what of them it knows.
 */

import { formatAddress, parsePrefix } from './address.ts';
import { AF_INET, AF_INET6 } from './file-descriptor.ts';
import {
  attribute,
  attributeText,
  attributeU32,
  NETLINK_ROUTE,
  type NetlinkMessage,
  NetlinkSocket,
  NLM_F_CREATE,
  NLM_F_EXCL,
  readAttributes,
  textOf,
} from './netlink-socket.ts';
import type { NetnsRef } from './netns.ts';

const [RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE] = [32, 33, 34];
const [FRA_DST, FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK] = [1, 3, 6, 10, 15, 16];
const [FR_ACT_TO_TBL, FR_ACT_BLACKHOLE] = [1, 6];
const HEADER_BYTES = 12;

export interface RoutingRule {
  readonly family: 4 | 6;
  readonly priority: number;
  /** Only packets that came in by this link; `lo` for what the machine sends itself. */
  readonly inputLink?: string;
  /** Only packets with all of these bits in their mark. */
  readonly mark?: number;
  /** Only packets to this prefix. */
  readonly to?: string;
  readonly table: number | 'blackhole';
}

export class RoutingRules {
  readonly #socket: NetlinkSocket;

  /** Of the calling thread's own namespace when none is given. */
  constructor(namespace?: NetnsRef) {
    this.#socket = new NetlinkSocket({ protocol: NETLINK_ROUTE, ...(namespace === undefined ? {} : { namespace }) });
  }
  close(): void {
    this.#socket.close();
  }

  list(family: 4 | 6): RoutingRule[] {
    const body = Buffer.alloc(HEADER_BYTES);
    body[0] = family === 4 ? AF_INET : AF_INET6;
    return this.#socket
      .dump({ type: RTM_GETRULE, flags: 0, body, what: 'list routing rules' })
      .map(({ body }) => ruleOf(body, family));
  }
  /** Adds in order, then removes in order. What is there already, or gone already, is passed over. */
  change(changes: { readonly add: readonly RoutingRule[]; readonly remove: readonly RoutingRule[] }): void {
    this.#socket.request([
      ...changes.add.map(rule =>
        message(rule, { type: RTM_NEWRULE, flags: NLM_F_CREATE | NLM_F_EXCL, ignore: 'EEXIST' }),
      ),
      ...changes.remove.map(rule => message(rule, { type: RTM_DELRULE, flags: 0, ignore: 'ENOENT' })),
    ]);
  }
}

function message(rule: RoutingRule, how: { type: number; flags: number; ignore: string }): NetlinkMessage {
  const header = Buffer.alloc(HEADER_BYTES);
  header[0] = rule.family === 4 ? AF_INET : AF_INET6;
  const attributes = [attributeU32(FRA_PRIORITY, rule.priority)];
  if (rule.to !== undefined) {
    const { address, length } = parsePrefix(rule.to);
    header[1] = length;
    attributes.push(attribute(FRA_DST, address));
  }
  if (rule.table === 'blackhole') header[7] = FR_ACT_BLACKHOLE;
  else {
    header[7] = FR_ACT_TO_TBL;
    attributes.push(attributeU32(FRA_TABLE, rule.table));
  }
  if (rule.inputLink !== undefined) attributes.push(attributeText(FRA_IIFNAME, rule.inputLink));
  if (rule.mark !== undefined)
    attributes.push(attributeU32(FRA_FWMARK, rule.mark), attributeU32(FRA_FWMASK, rule.mark));
  return {
    type: how.type,
    flags: how.flags,
    body: Buffer.concat([header, ...attributes]),
    what: `routing rule ${rule.priority}`,
    ignore: [how.ignore],
  };
}

function ruleOf(body: Buffer, family: 4 | 6): RoutingRule {
  const attributes = readAttributes(body, HEADER_BYTES);
  const [to, link, mark] = [attributes.get(FRA_DST), attributes.get(FRA_IIFNAME), attributes.get(FRA_FWMARK)];
  return {
    family,
    priority: attributes.get(FRA_PRIORITY)?.readUInt32LE() ?? 0,
    ...(link ? { inputLink: textOf(link) } : {}),
    ...(mark ? { mark: mark.readUInt32LE() } : {}),
    ...(to ? { to: `${formatAddress(to)}/${body[1]}` } : {}),
    table: body[7] === FR_ACT_BLACKHOLE ? 'blackhole' : (attributes.get(FRA_TABLE)?.readUInt32LE() ?? body[4]!),
  };
}
