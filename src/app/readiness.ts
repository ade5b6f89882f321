/** Waits until a started cluster is usable: the API answers, every node is Ready, every node's DNS resolves. */

import { createSocket } from 'node:dgram';
import type { Node } from '../api/core/v1.gen.ts';
import { systemClock } from '../base/clock.ts';
import { CLUSTER_DOMAIN } from '../base/cluster-defaults.ts';
import { failure, messageOf } from '../base/errors.ts';
import { HttpsTransport, type HttpsTransportOptions } from '../client/https-transport.ts';
import { NODES } from '../client/resources.ts';
import { openUdp } from '../sys/socket.ts';
import { accepts } from './port-probe.ts';

export interface ReadinessContext {
  readonly api: HttpsTransportOptions;
  /** Throws when waiting has become pointless: interrupted, or a process ended. */
  readonly alive: () => void;
  readonly logTail: (part: string) => string;
}

const API_DEADLINE_MS = 30_000;
const NODES_DEADLINE_MS = 60_000;
const DNS_DEADLINE_MS = 30_000;
const POLL_MS = 10;

/** Calls `attempt` until it returns true; its last error or `what` goes into the failure. */
async function poll(
  context: ReadinessContext,
  options: { what: string; part: string; deadlineMs: number; pollMs?: number },
  attempt: () => Promise<boolean>,
): Promise<void> {
  const start = systemClock.monotonic();
  let last = '';
  for (;;) {
    context.alive();
    try {
      if (await attempt()) return;
    } catch (error) {
      last = messageOf(error);
    }
    if (systemClock.monotonic() - start > options.deadlineMs)
      throw failure(
        500,
        'Timeout',
        `${options.what} within ${options.deadlineMs / 1000} s${last && ` (${last})`}; the end of its log, ${context.logTail(options.part)}`,
      );
    await systemClock.sleep(options.pollMs ?? POLL_MS);
  }
}

export async function waitForApi(context: ReadinessContext): Promise<void> {
  const transport = new HttpsTransport({ ...context.api, timeoutMs: 2000 });
  const { hostname: host, port } = new URL(context.api.server);
  try {
    await poll(
      context,
      { what: 'the API server was not ready', part: 'server', deadlineMs: API_DEADLINE_MS, pollMs: 5 },
      async () => (await accepts({ host, port: Number(port) })) && (await transport.raw('GET', '/readyz')) === 'ok',
    );
  } finally {
    transport.close();
  }
}

const isReady = (node: Node): boolean =>
  node.status?.conditions?.some(condition => condition.type === 'Ready' && condition.status === 'True') === true;

export async function waitForNodes(context: ReadinessContext, names: readonly string[]): Promise<void> {
  const transport = new HttpsTransport({ ...context.api, timeoutMs: 5000 });
  let waitingFor = names[0]!;
  try {
    await poll(
      context,
      { what: `${names.join(', ')} were not all Ready`, part: waitingFor, deadlineMs: NODES_DEADLINE_MS },
      async () => {
        const { items } = await transport.list({ of: NODES });
        const ready = new Set(items.filter(item => isReady(item as Node)).map(item => item.metadata.name));
        waitingFor = names.find(name => !ready.has(name)) ?? '';
        if (waitingFor) {
          const node = items.find(item => item.metadata.name === waitingFor) as Node | undefined;
          const reason = node?.status?.conditions?.find(condition => condition.type === 'Ready')?.message;
          if (reason) throw new Error(`${waitingFor}: ${reason}`);
        }
        return waitingFor === '';
      },
    );
  } finally {
    transport.close();
  }
}

/** Asks each node's own DNS, from inside that node, for the API server's name. */
export async function waitForDns(
  context: ReadinessContext,
  dns: { readonly address: string; readonly namespaces: readonly string[] },
): Promise<void> {
  for (const namespace of dns.namespaces) {
    await poll(
      context,
      {
        what: `DNS did not answer in ${namespace}`,
        part: namespace.replace(/^cox-.*-(node-\d+)$/, '$1'),
        deadlineMs: DNS_DEADLINE_MS,
        pollMs: 5,
      },
      () => resolves(namespace, dns.address),
    );
  }
}

const RECORD_TYPE = { IPv4: 1, IPv6: 28 } as const;

/** `kubernetes.default.svc.<domain>` type A or AAAA, in wire form (RFC 1035 §4). */
function query(type: number): Buffer {
  const labels = ['kubernetes', 'default', 'svc', ...CLUSTER_DOMAIN.split('.')];
  const name = Buffer.concat([
    ...labels.map(label => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)])),
    Buffer.from([0]),
  ]);
  return Buffer.concat([Buffer.from([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), name, Buffer.from([0, type, 0, 1])]);
}

const REPLY_MS = 300;

function resolves(namespace: string, server: string): Promise<boolean> {
  const v6 = server.includes(':');
  const fd = openUdp({ namespace, family: v6 ? 6 : 4 });
  return new Promise(resolve => {
    const socket = createSocket(v6 ? 'udp6' : 'udp4');
    const finish = (answered: boolean) => {
      clearTimeout(timer);
      socket.close();
      resolve(answered);
    };
    const timer = setTimeout(() => finish(false), REPLY_MS);
    // Response bit set, no error, at least one answer.
    socket.on('message', reply =>
      finish((reply[2]! & 0x80) !== 0 && (reply[3]! & 0x0f) === 0 && reply.readUInt16BE(6) > 0),
    );
    socket.on('error', () => finish(false));
    socket.bind({ fd }, () =>
      socket.send(query(RECORD_TYPE[v6 ? 'IPv6' : 'IPv4']), 53, server, error => error && finish(false)),
    );
  });
}
