/** Whether anything listens where the connection arrives: the sockets of the endpoint's own network, read from /proc. */

import { readFileSync } from 'node:fs';
import { isLoopback } from '../live-cluster.ts';
import { at, type Finding, failure, type Journey, ok, type Step, warning } from '../step.ts';
import { isNodeDns } from './service.ts';

const LISTEN = '0A';
// A bound UDP socket that is connected to nobody.
const UNCONNECTED = '07';
const LOOPBACKS = new Set(['0100007F', '00000000000000000000000001000000']);
const WILDCARD = /^0+$/;

interface Bound {
  readonly port: number;
  /** Which addresses of its network it is reached at. */
  readonly at: 'all' | 'loopback' | 'one';
}

export const listener: Step = {
  name: 'listener',
  async run(journey) {
    const { endpoints = [], cluster, from, target, servicePort } = journey;
    const protocol = servicePort?.protocol ?? target.protocol;
    if (isNodeDns(journey) || protocol === 'SCTP') return [];
    const good: string[] = [];
    const bad: Finding[] = [];
    for (const { ip, port } of endpoints) {
      const own = isLoopback(ip);
      const pod = own ? (from.kind === 'pod' ? from.pod : undefined) : await cluster.podAt(ip);
      const pid = pod ? cluster.processOf(pod) : own ? cluster.processOfNode(from.node) : undefined;
      if (pid === undefined) continue;
      const bound = socketsOf(pid, protocol === 'UDP' ? 'udp' : 'tcp');
      const isReached = (one: Bound): boolean => one.at !== (own ? 'one' : 'loopback');
      const there = bound.filter(one => one.port === port);
      const name = pod ? `pod ${pod.metadata.name}` : from.node;
      if (there.some(isReached)) good.push(at(ip, port));
      else if (there.length > 0 && !own)
        bad.push(
          failure(
            `${name} listens on ${port}/${protocol} of its loopback only: nobody else can reach it`,
            'let the program listen on 0.0.0.0 (or ::)',
          ),
        );
      else {
        const others = [...new Set(bound.filter(isReached).map(one => one.port))].sort((a, b) => a - b);
        bad.push(
          failure(
            `nothing listens on ${at(ip, port)}/${protocol} in ${name}${others.length > 0 ? `; it listens on ${others.join(', ')}` : ''}`,
            pod ? hint(journey, others) : `see: cox node exec ${from.node} -- ss -tulpn`,
          ),
        );
      }
    }
    if (good.length === 0) return bad.slice(0, 5);
    return [
      ok(good.length === 1 ? `${good[0]} has a listener` : `${good.length} endpoints have a listener`, {
        listening: good,
      }),
      ...bad.slice(0, 5).map(({ text, next }) => warning(text, next)),
    ];
  },
};

function hint({ service, servicePort }: Journey, others: readonly number[]): string {
  if (service && others.length > 0)
    return `set targetPort of Service ${service.metadata.name}, port ${servicePort?.name ?? servicePort?.port}, to ${others[0]}`;
  return "see the program's log: kubectl logs";
}

function socketsOf(pid: number, protocol: 'tcp' | 'udp'): Bound[] {
  return [protocol, `${protocol}6`].flatMap(file => {
    let text: string;
    try {
      text = readFileSync(`/proc/${pid}/net/${file}`, 'utf8');
    } catch {
      return [];
    }
    return text
      .split('\n')
      .slice(1)
      .flatMap(line => {
        const [, local, , state] = line.trim().split(/\s+/);
        if (!local || state !== (protocol === 'tcp' ? LISTEN : UNCONNECTED)) return [];
        const [address, port] = local.split(':') as [string, string];
        const reached = LOOPBACKS.has(address) ? 'loopback' : WILDCARD.test(address) ? 'all' : 'one';
        return [{ port: Number.parseInt(port, 16), at: reached }];
      });
  });
}
