/**
 * nftables' elements and chains without hooks, and conntrack's entries, by raw nfnetlink messages: what changes often, without
 * libnftables' look at the whole ruleset. One call is one atomic transaction: all of it or nothing.
 * It refuses to make tables, base chains or sets: those are text, through `nftables.ts`.
 */

import { SystemError } from './libc.ts';
import {
  acknowledgementError,
  attribute,
  attributeText,
  eachAttribute,
  frame,
  isErrorReply,
  NETLINK_NETFILTER,
  type NetlinkReply,
  NetlinkSocket,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  readAttributes,
  textOf,
} from './netlink-socket.ts';
import type { NetnsRef } from './netns.ts';
import { type Expression, encodeRule } from './nft-expressions.ts';

export const NFPROTO_INET = 1;
export const NFPROTO_IPV4 = 2;
export const NFPROTO_IPV6 = 10;

const NLM_F_REQUEST = 1;
const NFNL_SUBSYS_CTNETLINK = 1;
const NFNL_SUBSYS_NFTABLES = 10;
const [NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END] = [16, 17];
const [NFT_MSG_GETTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN, NFT_MSG_DELCHAIN] = [1, 3, 4, 5];
const [NFT_MSG_NEWRULE, NFT_MSG_GETRULE, NFT_MSG_DELRULE] = [6, 7, 8];
const [NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_GETGEN] = [12, 13, 14, 16];
const [NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_LIST_ELEM] = [1, 2, 3, 1];
const NFTA_SET_ELEM_KEY_END = 10;
const [NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_DATA_VALUE, NFTA_DATA_VERDICT] = [1, 2, 1, 2];
const [NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN] = [1, 2];
const NFT_GOTO = -4;
const NF_DROP = 0;
const NLA_F_NESTED = 0x8000;
// Room for one transaction of some 500 000 elements; a limit, not an allocation.
const BUFFER_BYTES = 64 * 1024 * 1024;
// A nested attribute's length has 16 bits.
const LIST_BYTES_MAX = 60_000;

/** What a map gives for a key: bytes, or a verdict (a chain to go to, or drop). A set's element has none. */
export type ElementData = Uint8Array | { readonly goto: string } | 'drop' | undefined;

export interface Element {
  readonly set: string;
  /** Concatenated components, each padded to four bytes. */
  readonly key: Uint8Array;
  /** Last key of a range that begins at `key`, in sets of concatenated intervals. */
  readonly end?: Uint8Array;
  readonly data: ElementData;
}

export interface TableRef {
  readonly family: number;
  readonly table: string;
}

export interface RawChain {
  readonly name: string;
  readonly rules: readonly (readonly Expression[])[];
}

/** Grows as needed; messages and nested attributes are opened and closed, their lengths filled in afterwards. */
class Writer {
  #bytes = Buffer.allocUnsafe(64 * 1024);
  length = 0;

  reserve(count: number): void {
    if (this.length + count <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.length + count));
    this.#bytes.copy(grown, 0, 0, this.length);
    this.#bytes = grown;
  }
  beginMessage(options: { type: number; flags: number; sequence: number; family: number; resource: number }): number {
    this.reserve(20);
    const start = this.length;
    const bytes = this.#bytes;
    bytes.writeUInt16LE(options.type, start + 4);
    bytes.writeUInt16LE(options.flags, start + 6);
    bytes.writeUInt32LE(options.sequence, start + 8);
    bytes.writeUInt32LE(0, start + 12);
    bytes[start + 16] = options.family;
    bytes[start + 17] = 0;
    bytes.writeUInt16BE(options.resource, start + 18);
    this.length += 20;
    return start;
  }
  endMessage(start: number): void {
    this.#bytes.writeUInt32LE(this.length - start, start);
  }
  begin(type: number): number {
    this.reserve(4);
    const start = this.length;
    this.#bytes.writeUInt16LE(type | NLA_F_NESTED, start + 2);
    this.length += 4;
    return start;
  }
  end(start: number): void {
    this.#bytes.writeUInt16LE(this.length - start, start);
  }
  put(type: number, payload: Uint8Array): void {
    const padded = (payload.length + 3) & ~3;
    this.reserve(4 + padded);
    const bytes = this.#bytes;
    bytes.writeUInt16LE(4 + payload.length, this.length);
    bytes.writeUInt16LE(type, this.length + 2);
    bytes.set(payload, this.length + 4);
    for (let i = payload.length; i < padded; i++) bytes[this.length + 4 + i] = 0;
    this.length += 4 + padded;
  }
  putText(type: number, text: string): void {
    this.put(type, Buffer.from(`${text}\0`));
  }
  putI32BE(type: number, value: number): void {
    this.reserve(8);
    this.#bytes.writeUInt16LE(8, this.length);
    this.#bytes.writeUInt16LE(type, this.length + 2);
    this.#bytes.writeInt32BE(value, this.length + 4);
    this.length += 8;
  }
  bytes(): Buffer {
    return this.#bytes.subarray(0, this.length);
  }
}

export interface ConntrackEntry {
  readonly protocol: number;
  readonly source: Uint8Array;
  /** As the client sent it. */
  readonly destination: Uint8Array;
  readonly destinationPort: number;
  /** Who answers. */
  readonly replySource: Uint8Array;
  readonly replySourcePort: number;
  /** Names the entry to `deleteConntrack`. */
  readonly tuple: Buffer;
}

export class Nfnetlink {
  readonly #socket: NetlinkSocket;

  constructor(namespace?: NetnsRef) {
    this.#socket = new NetlinkSocket({
      protocol: NETLINK_NETFILTER,
      bufferBytes: BUFFER_BYTES,
      ...(namespace === undefined ? {} : { namespace }),
    });
  }
  /** Names this socket in the kernel's notifications: see `nft-monitor.ts`. */
  portId(): number {
    return this.#socket.portId();
  }
  close(): void {
    this.#socket.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Removes, then adds, in one transaction. An element with new data is in both lists. Throws ENOENT when one to remove is
   * missing, EEXIST when one to add is there with other data; then nothing has changed.
   */
  change(
    { family, table }: TableRef,
    changes: { readonly remove: readonly Element[]; readonly add: readonly Element[] },
  ): void {
    const { remove, add } = changes;
    if (remove.length === 0 && add.length === 0) return;
    const writer = new Writer();
    const what = new Map<number, string>();
    const control = (type: number) => {
      const start = writer.beginMessage({
        type,
        flags: NLM_F_REQUEST,
        sequence: this.#socket.nextSequence(),
        family: 0,
        resource: NFNL_SUBSYS_NFTABLES,
      });
      writer.endMessage(start);
    };
    control(NFNL_MSG_BATCH_BEGIN);
    let last = 0;
    const list = (type: number, elements: readonly Element[], verb: string) => {
      const flags = NLM_F_REQUEST | (type === NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0);
      for (let at = 0; at < elements.length; ) {
        const set = elements[at]!.set;
        last = this.#socket.nextSequence();
        what.set(last, `${verb} elements of ${set}`);
        const message = writer.beginMessage({
          type: (NFNL_SUBSYS_NFTABLES << 8) | type,
          flags,
          sequence: last,
          family,
          resource: 0,
        });
        lastFlags = message + 6;
        writer.putText(NFTA_SET_ELEM_LIST_TABLE, table);
        writer.putText(NFTA_SET_ELEM_LIST_SET, set);
        const all = writer.begin(NFTA_SET_ELEM_LIST_ELEMENTS);
        while (at < elements.length && elements[at]!.set === set && writer.length - all < LIST_BYTES_MAX)
          writeElement(writer, elements[at++]!, type === NFT_MSG_NEWSETELEM);
        writer.end(all);
        writer.endMessage(message);
      }
    };
    let lastFlags = 0;
    list(NFT_MSG_DELSETELEM, grouped(remove), 'delete');
    list(NFT_MSG_NEWSETELEM, grouped(add), 'add');
    // Only the last is acknowledged, which says that all were committed; failures are reported whether asked for or not.
    const flagged = writer.bytes();
    flagged.writeUInt16LE(flagged.readUInt16LE(lastFlags) | NLM_F_ACK, lastFlags);
    control(NFNL_MSG_BATCH_END);
    this.#socket.sendRaw(writer.bytes());
    this.#awaitCommit(last, what);
  }

  #awaitCommit(last: number, what: ReadonlyMap<number, string>): void {
    let failure: SystemError | undefined;
    let committed = false;
    // The kernel has answered within send: a failure queues its errors, and then nothing more comes.
    for (let replies = this.#socket.receive(); replies.length > 0; replies = this.#socket.receive({ wait: false })) {
      for (const reply of replies) {
        if (!isErrorReply(reply)) continue;
        const error = acknowledgementError(reply, what.get(reply.sequence) ?? 'nftables transaction');
        if (error) failure ??= error;
        else if (reply.sequence === last) committed = true;
      }
    }
    if (failure) throw failure;
    if (!committed) throw new SystemError('netlink', 5, 'nftables transaction without an answer');
  }

  /** Makes chains without hooks, or replaces the rules of those there are, in one transaction. A chain comes after those its rules go to. */
  setChains({ family, table }: TableRef, chains: readonly RawChain[]): void {
    const at = Buffer.concat([header(family), attributeText(1, table)]);
    this.#transaction(
      chains.flatMap(({ name, rules }) => [
        { type: NFT_MSG_NEWCHAIN, flags: NLM_F_CREATE, body: [at, attributeText(3, name)], what: `add chain ${name}` },
        { type: NFT_MSG_DELRULE, flags: 0, body: [at, attributeText(2, name)], what: `flush chain ${name}` },
        ...rules.map(rule => ({
          type: NFT_MSG_NEWRULE,
          flags: NLM_F_CREATE | NLM_F_APPEND,
          body: [at, attributeText(2, name), encodeRule(4, rule)],
          what: `add rule to chain ${name}`,
        })),
      ]),
    );
  }

  /** Removes chains with their rules, in one transaction. Throws EBUSY when anything else goes to one of them, ENOENT when one is missing. */
  deleteChains({ family, table }: TableRef, names: readonly string[]): void {
    const at = Buffer.concat([header(family), attributeText(1, table)]);
    const flush = { type: NFT_MSG_DELRULE, flags: 0 };
    const remove = { type: NFT_MSG_DELCHAIN, flags: 0 };
    this.#transaction([
      ...names.map(name => ({ ...flush, body: [at, attributeText(2, name)], what: `flush chain ${name}` })),
      ...names.map(name => ({ ...remove, body: [at, attributeText(3, name)], what: `delete chain ${name}` })),
    ]);
  }

  /** Names of the table's chains. */
  chains({ family, table }: TableRef): string[] {
    return this.#dump(
      NFT_MSG_GETCHAIN,
      Buffer.concat([header(family), attributeText(1, table)]),
      `list chains of ${table}`,
    )
      .map(reply => readAttributes(reply.body, 4))
      .filter(attributes => textOf(attributes.get(1)) === table)
      .map(attributes => textOf(attributes.get(3)));
  }

  #transaction(
    messages: readonly {
      readonly type: number;
      readonly flags: number;
      readonly body: readonly Buffer[];
      readonly what: string;
    }[],
  ): void {
    if (messages.length === 0) return;
    const control = (type: number) =>
      frame({
        type,
        flags: NLM_F_REQUEST,
        sequence: this.#socket.nextSequence(),
        body: Buffer.from([0, 0, 0, NFNL_SUBSYS_NFTABLES]),
      });
    const frames = [control(NFNL_MSG_BATCH_BEGIN)];
    const names = new Map<number, string>();
    let last = 0;
    messages.forEach(({ type, flags, body, what }, i) => {
      last = this.#socket.nextSequence();
      names.set(last, what);
      const ack = i === messages.length - 1 ? NLM_F_ACK : 0;
      frames.push(
        frame({
          type: (NFNL_SUBSYS_NFTABLES << 8) | type,
          flags: NLM_F_REQUEST | ack | flags,
          sequence: last,
          body: Buffer.concat(body),
        }),
      );
    });
    frames.push(control(NFNL_MSG_BATCH_END));
    this.#socket.sendRaw(Buffer.concat(frames));
    this.#awaitCommit(last, names);
  }

  /** Elements of one set or map. Throws ENOENT when table or set is missing. */
  elements({ family, table }: TableRef, set: string): Element[] {
    const body = Buffer.concat([
      header(family),
      attributeText(NFTA_SET_ELEM_LIST_TABLE, table),
      attributeText(NFTA_SET_ELEM_LIST_SET, set),
    ]);
    const out: Element[] = [];
    for (const reply of this.#dump(NFT_MSG_GETSETELEM, body, `list elements of ${set}`)) {
      const list = readAttributes(reply.body, 4).get(NFTA_SET_ELEM_LIST_ELEMENTS);
      if (!list) continue;
      for (const [, value] of eachAttribute(list)) {
        const attributes = readAttributes(value);
        const key = attributes.get(NFTA_SET_ELEM_KEY);
        if (!key) continue;
        const data = attributes.get(NFTA_SET_ELEM_DATA);
        const end = attributes.get(NFTA_SET_ELEM_KEY_END);
        out.push({
          set,
          key: readAttributes(key).get(NFTA_DATA_VALUE)!,
          ...(end ? { end: readAttributes(end).get(NFTA_DATA_VALUE)! } : {}),
          data: data && dataOf(data),
        });
      }
    }
    return out;
  }

  /** Counts transactions of the namespace: unchanged means that nobody changed anything. */
  generation(): number {
    const reply = this.#socket.get({
      type: (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN,
      flags: 0,
      body: header(0),
      what: 'get generation',
    });
    return readAttributes(reply.body, 4).get(1)?.readUInt32BE() ?? 0;
  }

  /** Changes when the table is made anew or any of its chains or rules is added or removed; '' when there is no table. */
  fingerprint({ family, table }: TableRef): string {
    let handle: string;
    try {
      const reply = this.#socket.get({
        type: (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETTABLE,
        flags: 0,
        body: Buffer.concat([header(family), attributeText(1, table)]),
        what: `get table ${table}`,
      });
      handle = readAttributes(reply.body, 4).get(4)?.toString('hex') ?? '';
    } catch (error) {
      if (error instanceof SystemError && error.code === 'ENOENT') return '';
      throw error;
    }
    const of = (type: number, handleAttribute: number) =>
      this.#dump(type, Buffer.concat([header(family), attributeText(1, table)]), `list table ${table}`)
        .map(reply => readAttributes(reply.body, 4))
        .filter(attributes => textOf(attributes.get(1)) === table)
        .map(attributes => attributes.get(handleAttribute)?.toString('hex').replace(/^0+/, ''))
        .join(' ');
    return `${handle}: ${of(NFT_MSG_GETCHAIN, 2)}; ${of(NFT_MSG_GETRULE, 3)}`;
  }

  // A change during a dump interrupts it: it is then repeated.
  #dump(type: number, body: Buffer, what: string): NetlinkReply[] {
    for (let attempt = 0; ; attempt++) {
      try {
        return this.#socket.dump({ type: (NFNL_SUBSYS_NFTABLES << 8) | type, flags: 0, body, what });
      } catch (error) {
        if (!(error instanceof SystemError && error.code === 'EINTR') || attempt === 10) throw error;
      }
    }
  }

  /** All conntrack entries of a protocol and family. */
  conntrack(options: { readonly family: number; readonly protocol: number }): ConntrackEntry[] {
    const out: ConntrackEntry[] = [];
    const type = (NFNL_SUBSYS_CTNETLINK << 8) | 1;
    for (const reply of this.#socket.dump({ type, flags: 0, body: header(options.family), what: 'list conntrack' })) {
      const attributes = readAttributes(reply.body, 4);
      const [tuple, replyTuple] = [attributes.get(1), attributes.get(2)];
      if (!tuple || !replyTuple) continue;
      const [original, answer] = [readTuple(tuple), readTuple(replyTuple)];
      if (original.protocol !== options.protocol) continue;
      out.push({
        protocol: original.protocol,
        source: original.source,
        destination: original.destination,
        destinationPort: original.destinationPort,
        replySource: answer.source,
        replySourcePort: answer.sourcePort,
        tuple,
      });
    }
    return out;
  }

  /** Forgets flows, so that their next packet is looked up anew. Those already gone are passed over. */
  deleteConntrack(family: number, entries: readonly ConntrackEntry[]): void {
    this.#socket.request(
      entries.map(({ tuple }) => ({
        type: (NFNL_SUBSYS_CTNETLINK << 8) | 2,
        flags: 0,
        body: Buffer.concat([header(family), attribute(1 | NLA_F_NESTED, tuple)]),
        what: 'delete conntrack entry',
        ignore: ['ENOENT'],
      })),
    );
  }
}

function header(family: number): Buffer {
  return Buffer.from([family, 0, 0, 0]);
}

function grouped(elements: readonly Element[]): Element[] {
  return [...elements].sort((a, b) => (a.set < b.set ? -1 : a.set > b.set ? 1 : 0));
}

function writeElement(writer: Writer, element: Element, withData: boolean): void {
  const one = writer.begin(NFTA_LIST_ELEM);
  const key = writer.begin(NFTA_SET_ELEM_KEY);
  writer.put(NFTA_DATA_VALUE, element.key);
  writer.end(key);
  if (element.end) {
    const end = writer.begin(NFTA_SET_ELEM_KEY_END);
    writer.put(NFTA_DATA_VALUE, element.end);
    writer.end(end);
  }
  const { data } = element;
  if (withData && data !== undefined) {
    const start = writer.begin(NFTA_SET_ELEM_DATA);
    if (data instanceof Uint8Array) writer.put(NFTA_DATA_VALUE, data);
    else {
      const verdict = writer.begin(NFTA_DATA_VERDICT);
      writer.putI32BE(NFTA_VERDICT_CODE, data === 'drop' ? NF_DROP : NFT_GOTO);
      if (data !== 'drop') writer.putText(NFTA_VERDICT_CHAIN, data.goto);
      writer.end(verdict);
    }
    writer.end(start);
  }
  writer.end(one);
}

function dataOf(data: Buffer): ElementData {
  const attributes = readAttributes(data);
  const value = attributes.get(NFTA_DATA_VALUE);
  if (value) return value;
  const verdict = readAttributes(attributes.get(NFTA_DATA_VERDICT) ?? Buffer.alloc(0));
  return verdict.get(NFTA_VERDICT_CODE)?.readInt32BE() === NF_DROP
    ? 'drop'
    : { goto: textOf(verdict.get(NFTA_VERDICT_CHAIN)) };
}

function readTuple(tuple: Buffer): {
  source: Buffer;
  destination: Buffer;
  protocol: number;
  sourcePort: number;
  destinationPort: number;
} {
  const attributes = readAttributes(tuple);
  const ip = readAttributes(attributes.get(1) ?? Buffer.alloc(0));
  const transport = readAttributes(attributes.get(2) ?? Buffer.alloc(0));
  const none = Buffer.alloc(0);
  return {
    source: ip.get(1) ?? ip.get(3) ?? none,
    destination: ip.get(2) ?? ip.get(4) ?? none,
    protocol: transport.get(1)?.[0] ?? 0,
    sourcePort: transport.get(2)?.readUInt16BE() ?? 0,
    destinationPort: transport.get(3)?.readUInt16BE() ?? 0,
  };
}
