/**
 * Pods with labels on a bed, and probes between them: TCP connections, UDP questions, SCTP beginnings (by raw sockets, since
 * kernels often have no SCTP). A round asks many questions at once and tells which got through.
 */

import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import { PODS } from '../../src/client/resources.ts';
import type { PlainPod } from '../../src/network/policy/plain-model.ts';
import { AF_INET, close, MSG_DONTWAIT, recv, SOCK_NONBLOCK, SOCK_RAW, socket } from '../../src/sys/file-descriptor.ts';
import { declare, SystemError } from '../../src/sys/libc.ts';
import { inNamespace, netnsPath } from '../../src/sys/netns.ts';
import { bindUdp, connectTcp, encodeSocketAddress, listenTcp, openUdp } from '../../src/sys/socket.ts';
import type { Bed, BedNode } from './bed.ts';

const IPPROTO_SCTP = 132;
const sendto = declare<[fd: number, bytes: Buffer, length: number, flags: number, to: Buffer, toLength: number]>(
  'long sendto(int fd, const void *bytes, size_t length, int flags, const void *to, uint32_t toLength)',
);

export interface ProbedPod extends PlainPod {
  readonly uid: string;
  readonly netns: string;
  readonly node: BedNode;
}

let pods = 0;

/** A Pod object bound to the node, as the API has it before the kubelet starts it. */
export function podObject(
  pod: Omit<PlainPod, 'ips'> & { readonly uid: string },
  node: { readonly name: string },
  ips: readonly string[] = [],
): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: pod.name, namespace: pod.namespace, uid: pod.uid, labels: { ...pod.labels } },
    spec: { nodeName: node.name, containers: [{ name: 'c', ports: [...pod.ports] }] },
    status: { phase: ips.length ? 'Running' : 'Pending', podIPs: ips.map(ip => ({ ip })) },
  } as Pod;
}

/** As the kubelet does: the object, the namespace, the network, the status. */
export async function startPod(bed: Bed, node: BedNode, shape: Omit<PlainPod, 'ips'>): Promise<ProbedPod> {
  const uid = `probed-${++pods}`;
  bed.api.put(PODS, podObject({ ...shape, uid }, node));
  const netns = bed.addNamespace(uid);
  const { ips } = await node.network.attach({
    uid,
    namespace: shape.namespace,
    name: shape.name,
    netnsPath: netnsPath(netns),
  });
  bed.api.put(PODS, podObject({ ...shape, uid }, node, ips));
  return { ...shape, uid, ips, netns, node };
}

export interface Probe {
  readonly from: ProbedPod;
  readonly to: ProbedPod;
  /** Which of the addresses. */
  readonly at: number;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly port: number;
}

export class Probes {
  readonly #closing: (() => void)[] = [];
  readonly #peers = new Set<Socket>();
  readonly #raw = new Map<string, number>();
  readonly #heard = new Set<string>();
  #lastPort = 20_000;

  /** Answers at these ports of the pod, in every protocol. */
  listen(pod: ProbedPod, ports: readonly number[]): void {
    for (const address of pod.ips.map(ip => (ip.includes(':') ? '::' : '0.0.0.0')))
      for (const port of ports) {
        const server: Server = createServer(peer => {
          this.#peers.add(peer);
          peer.on('error', () => {}).on('close', () => this.#peers.delete(peer));
          peer.end();
        }).listen({ fd: listenTcp({ namespace: pod.netns, address, port }) });
        const echo = createSocket(address === '::' ? 'udp6' : 'udp4');
        echo.on('message', (bytes, from) => echo.send(bytes, from.port, from.address, () => {}));
        echo.bind({ fd: bindUdp({ namespace: pod.netns, address, port }) });
        this.#closing.push(
          () => server.close(),
          () => echo.close(),
        );
      }
    const raw = inNamespace(pod.netns, () => socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_SCTP));
    this.#raw.set(pod.uid, raw);
    this.#closing.push(() => close(raw));
  }

  /**
   * Which of the probes got through. Waits until those in `expected` have, or for `patienceMs`; what else gets through by
   * then is told too.
   */
  async round(probes: readonly Probe[], expected: ReadonlySet<Probe>, patienceMs: number): Promise<Set<Probe>> {
    const passed = new Set<Probe>();
    const open: (() => void)[] = [];
    const marks = new Map<Probe, string>();
    for (const probe of probes) {
      if (probe.protocol === 'TCP') open.push(this.#connect(probe, passed));
      else if (probe.protocol === 'UDP') open.push(this.#question(probe, passed));
      else marks.set(probe, this.#begin(probe));
    }
    const deadline = performance.now() + patienceMs;
    // A little longer than the last expected one, for what should not come.
    let graceMs = 60;
    for (;;) {
      await new Promise(resolve => setTimeout(resolve, 15));
      this.#hear();
      for (const [probe, mark] of marks) if (this.#heard.has(mark)) passed.add(probe);
      const missing = [...expected].some(probe => !passed.has(probe));
      if (performance.now() > deadline || (!missing && (graceMs -= 15) < 0)) break;
    }
    for (const stop of open) stop();
    return passed;
  }

  close(): void {
    for (const stop of this.#closing) stop();
    for (const peer of this.#peers) peer.destroy();
  }

  #connect(probe: Probe, passed: Set<Probe>): () => void {
    const { from, to, at, port } = probe;
    const connection: Socket = connectTcp({ namespace: from.netns, address: to.ips[at]!, port });
    connection.on('error', () => {}).once('connect', () => passed.add(probe));
    // A reset waits for the connection.
    return () => (connection.connecting ? connection.destroy() : connection.resetAndDestroy());
  }

  #question(probe: Probe, passed: Set<Probe>): () => void {
    const { from, to, at, port } = probe;
    const family = to.ips[at]!.includes(':') ? 6 : 4;
    const asking: UdpSocket = createSocket(family === 6 ? 'udp6' : 'udp4');
    asking.on('error', () => {}).on('message', () => passed.add(probe));
    asking.bind({ fd: openUdp({ namespace: from.netns, family }) });
    asking.send('?', port, to.ips[at]!, () => {});
    return () => asking.close();
  }

  // The first packet of an association. Returns what the receiver must hear.
  #begin({ from, to, at, port }: Probe): string {
    const own = 20_000 + (++this.#lastPort % 40_000);
    const packet = Buffer.alloc(32);
    packet.writeUInt16BE(own, 0);
    packet.writeUInt16BE(port, 2);
    packet[12] = 1;
    packet.writeUInt16BE(20, 14);
    packet.writeUInt32BE(own, 16);
    packet.writeUInt32BE(65_536, 20);
    packet.writeUInt16BE(1, 24);
    packet.writeUInt16BE(1, 26);
    packet.writeUInt32BE(1, 28);
    packet.writeUInt32LE(crc32c(packet), 8);
    const address = encodeSocketAddress({ address: to.ips[at]!, port: 0 });
    sendto(this.#raw.get(from.uid)!, packet, packet.length, 0, address, address.length);
    return `${to.uid} ${from.ips[at]} ${own} ${port}`;
  }

  #hear(): void {
    const bytes = Buffer.alloc(256);
    for (const [uid, raw] of this.#raw)
      for (;;) {
        let length: number;
        try {
          length = recv(raw, bytes, bytes.length, MSG_DONTWAIT);
        } catch (error) {
          if (error instanceof SystemError && error.errno === 11) break;
          throw error;
        }
        const body = (bytes[0]! & 15) * 4;
        if (length < body + 12) continue;
        const sender = bytes.subarray(12, 16).join('.');
        this.#heard.add(`${uid} ${sender} ${bytes.readUInt16BE(body)} ${bytes.readUInt16BE(body + 2)}`);
      }
  }
}

function crc32c(bytes: Buffer): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}
