/**
 * Who of the cluster's announcers is alive, known within half a second: each says so by multicast on the nodes' segment, where a
 * Node's own conditions would take most of a minute. A node that falls silent is dead only when its kernel does not answer
 * either: an agent that is started again must not cost the connections that its kernel goes on forwarding.
 *
 * It is no protection against somebody on the segment: who can send here can claim addresses by ARP as well. Messages count
 * only from the address that the Node object names, and pods cannot send to a link-local group of the nodes' segment.
 */

import { createSocket, type Socket } from 'node:dgram';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { withRoutes } from '../sys/netlink.ts';
import { bindUdp, connectTcp } from '../sys/socket.ts';

/** Link-local groups: their packets stay on the segment. */
const GROUPS = { 4: '224.0.0.112', 6: 'ff02::c0c5' } as const;
const PORT = 7946;
const INTERVAL_MS = 100;
/** Three messages may be lost. */
const SILENT_MS = 350;
/** How long a silent node's kernel has to answer. */
const PROBE_MS = 200;
/** A silent node whose kernel answers is left its addresses for so long: its agent is being started again. */
const RESTART_MS = 10_000;
/** A node that starts waits for the others' messages before it claims what may be theirs. */
const LISTEN_MS = 2 * INTERVAL_MS;

export interface MembershipOptions {
  readonly node: string;
  readonly address: string;
  /** Other nodes' addresses by name; nodes that have not joined are not alive. */
  readonly peers: () => ReadonlyMap<string, string>;
  /** A TCP port whose refusal, too, tells that the kernel is alive. */
  readonly probePort: number;
  readonly changed: () => void;
  readonly namespace?: string;
  readonly log: Logger;
  readonly clock: Clock;
}

interface Peer {
  heardMs: number;
  alive: boolean;
  probing: boolean;
}

export class Membership {
  readonly #options: MembershipOptions;
  readonly #peers = new Map<string, Peer>();
  #run: { stop: AbortController; socket: Socket; done: Promise<void> } | undefined;
  #listening = false;

  constructor(options: MembershipOptions) {
    this.#options = options;
  }

  /** Undecided, thus nobody but the others, until it has listened. */
  isAlive(node: string): boolean {
    if (node === this.#options.node) return !this.#listening;
    return this.#peers.get(node)?.alive ?? false;
  }

  /** Runs while there is something to announce and somebody to share it with. Idempotent. */
  setActive(active: boolean): void {
    if (active === (this.#run !== undefined)) return;
    if (active) this.#start();
    else void this.stop();
  }

  async stop(): Promise<void> {
    const run = this.#run;
    this.#run = undefined;
    this.#peers.clear();
    this.#listening = false;
    if (!run) return;
    run.stop.abort();
    await run.done;
    run.socket.close();
  }

  #start(): void {
    const { address, namespace, log } = this.#options;
    const family = address.includes(':') ? 6 : 4;
    const group = GROUPS[family];
    const socket = createSocket(`udp${family}`);
    socket.on('message', (message, from) => this.#heard(String(message), from.address));
    socket.on('error', error => log.warn('membership socket failed', { error: messageOf(error) }));
    const fd = bindUdp({ address: family === 4 ? '0.0.0.0' : '::', port: PORT, ...(namespace ? { namespace } : {}) });
    const onLink = family === 4 ? address : `::%${linkOf(address, namespace)}`;
    socket.bind({ fd }, () => {
      try {
        socket.addMembership(group, onLink);
        socket.setMulticastInterface(onLink);
        socket.setMulticastLoopback(false);
        socket.setMulticastTTL(1);
      } catch (error) {
        log.warn('multicast group not joined: other nodes are not heard', { error: messageOf(error) });
      }
    });
    const stop = new AbortController();
    this.#listening = true;
    const done = this.#beat({ socket, group }, stop.signal);
    this.#run = { stop, socket, done };
  }

  async #beat({ socket, group }: { socket: Socket; group: string }, signal: AbortSignal): Promise<void> {
    const { clock, node } = this.#options;
    const startedMs = clock.monotonic();
    const message = Buffer.from(JSON.stringify({ node }));
    while (!signal.aborted) {
      socket.send(message, PORT, group, () => {});
      const nowMs = clock.monotonic();
      if (this.#listening && nowMs - startedMs >= LISTEN_MS) {
        this.#listening = false;
        this.#options.changed();
      }
      for (const [name, peer] of this.#peers)
        if (peer.alive && !peer.probing && nowMs - peer.heardMs > SILENT_MS) void this.#probe(name, peer, signal);
      await clock.sleep(INTERVAL_MS, signal);
    }
  }

  #heard(text: string, from: string): void {
    let node: unknown;
    try {
      ({ node } = JSON.parse(text));
    } catch {
      return;
    }
    if (typeof node !== 'string' || this.#options.peers().get(node) !== from.split('%')[0]) return;
    const peer = this.#peers.get(node);
    const heardMs = this.#options.clock.monotonic();
    if (peer?.alive) {
      peer.heardMs = heardMs;
      return;
    }
    this.#peers.set(node, { heardMs, alive: true, probing: false });
    this.#options.log.info('announcer joined', { peer: node });
    this.#options.changed();
  }

  async #probe(name: string, peer: Peer, signal: AbortSignal): Promise<void> {
    const { clock, log, changed } = this.#options;
    peer.probing = true;
    const address = this.#options.peers().get(name);
    const answers = address !== undefined && (await this.#kernelAnswers(address));
    peer.probing = false;
    const silentMs = clock.monotonic() - peer.heardMs;
    if (signal.aborted || silentMs <= SILENT_MS || (answers && silentMs < RESTART_MS)) return;
    peer.alive = false;
    log.info('announcer is gone', { peer: name, kernelAnswers: answers, silentMs: Math.round(silentMs) });
    changed();
  }

  #kernelAnswers(address: string): Promise<boolean> {
    const { namespace, probePort } = this.#options;
    return new Promise(resolve => {
      const socket = connectTcp({ address, port: probePort, ...(namespace ? { namespace } : {}) });
      const settle = (answers: boolean) => {
        resolve(answers);
        socket.destroy();
      };
      socket.setTimeout(PROBE_MS, () => settle(false));
      socket.once('connect', () => settle(true));
      socket.once('error', error => settle((error as NodeJS.ErrnoException).code === 'ECONNREFUSED'));
    });
  }
}

function linkOf(address: string, namespace: string | undefined): string {
  return withRoutes(namespace, routes => {
    const at = routes.addresses().find(({ prefix }) => prefix.startsWith(`${address}/`));
    const link = routes.links().find(({ index }) => index === at?.index);
    if (!link) throw new Error(`no link has the node's address ${address}`);
    return link.name;
  });
}
