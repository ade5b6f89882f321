/** One trace: finds out who asks and for what, then runs the steps until one fails. Rejects with what is wrong in the question. */

import { isIP } from 'node:net';
import type { Node, Pod } from '../../api/core/v1.gen.ts';
import { failure as refusal } from '../../base/errors.ts';
import type { Protocol } from '../../proxy/model.ts';
import { adminTransport, requireRecord } from '../cluster-status.ts';
import { addressesOf, isReady, LiveCluster } from './live-cluster.ts';
import { STEPS } from './registry.ts';
import type { Finding, Journey, Origin, Target, TraceResult } from './step.ts';

export interface TraceOptions {
  readonly cluster: string;
  /** `POD`, `NAMESPACE/POD`, `node`, `NODE`, `host`. Undefined: a node. */
  readonly from: string | undefined;
  readonly target: string;
  readonly namespace: string;
}

export async function trace(options: TraceOptions): Promise<TraceResult> {
  const record = requireRecord(options.cluster);
  const transport = adminTransport(record);
  try {
    const cluster = new LiveCluster(record, transport);
    const { from, node } = await originOf(cluster, options);
    const namespace = from.kind === 'pod' ? from.pod.metadata.namespace! : options.namespace;
    const target = parseTarget(options.target);
    const journey: Journey = { cluster, from, node, namespace, target };
    const steps: { name: string; findings: readonly Finding[] }[] = [];
    let works = true;
    for (const step of STEPS) {
      const findings = await step.run(journey);
      if (findings.length > 0) steps.push({ name: step.name, findings });
      works = findings.every(({ status }) => status !== 'failure');
      if (!works) break;
    }
    return { from: describeOrigin(from), target: target.text, works, steps };
  } finally {
    transport.close();
  }
}

function describeOrigin(from: Origin): string {
  if (from.kind === 'pod') return `pod ${from.pod.metadata.namespace}/${from.pod.metadata.name} on ${from.node}`;
  return from.kind === 'node' ? `node ${from.node}` : 'this machine';
}

const bad = (message: string): never => {
  throw refusal(400, 'BadRequest', message);
};

async function originOf(
  cluster: LiveCluster,
  { from, namespace }: TraceOptions,
): Promise<{ from: Origin; node: Node }> {
  const nodes = await cluster.nodes();
  const names = nodes.map(node => node.metadata.name).join(', ');
  const nodeNamed = (name: string): Node | undefined => nodes.find(node => node.metadata.name === name);
  const some = nodes.find(isReady) ?? nodes[0] ?? bad('the cluster has no nodes');
  const onNode = (node: Node) => ({
    from: { kind: 'node', node: node.metadata.name, ips: addressesOf(node) } as Origin,
    node,
  });
  if (from === 'host') return { from: { kind: 'host', node: some.metadata.name, ips: ['127.0.0.1'] }, node: some };
  if (from === undefined || from === 'node') return onNode(some);
  const [kind, rest] = from.includes('/')
    ? [from.slice(0, from.indexOf('/')), from.slice(from.indexOf('/') + 1)]
    : ['', from];
  if (kind === 'node') return onNode(nodeNamed(rest) ?? bad(`--from: node "${rest}" not found; there are: ${names}`));
  const isPodWord = kind === 'pod' || kind === 'pods' || kind === 'po';
  const inNamespace = kind === '' || isPodWord ? namespace : kind;
  const pod = (await cluster.pods(inNamespace)).find(one => one.metadata.name === rest);
  if (!pod) {
    const node = kind === '' ? nodeNamed(rest) : undefined;
    if (node) return onNode(node);
    return bad(
      `--from: pod "${rest}" not found in namespace "${inNamespace}"; give POD, NAMESPACE/POD, NODE or host (nodes: ${names})`,
    );
  }
  const node = nodeNamed(pod.spec.nodeName ?? '');
  if (!node) return bad(`--from: pod "${rest}" is on no node yet: ${conditionOf(pod)}`);
  const ips = (pod.status?.podIPs ?? []).map(({ ip }) => ip ?? '');
  return { from: { kind: 'pod', pod, node: node.metadata.name, ips }, node };
}

const conditionOf = (pod: Pod): string =>
  pod.status?.conditions?.find(({ type, status }) => type === 'PodScheduled' && status === 'False')?.message ??
  `phase ${pod.status?.phase ?? 'Pending'}`;

const SCHEME_PORTS: Readonly<Record<string, string>> = {
  http: '80',
  https: '443',
  ws: '80',
  wss: '443',
  redis: '6379',
  postgres: '5432',
  postgresql: '5432',
  mysql: '3306',
  mongodb: '27017',
  amqp: '5672',
  ftp: '21',
  grpc: '443',
};

/** `svc/web`, `web.ns:http`, `https://web/path`, `10.96.0.1:443`, `[fd00::1]:53/udp`. Throws BadRequest. */
export function parseTarget(text: string): Target {
  const kind = /^(?:svc|service|services)\/(.+)$/.exec(text)?.[1];
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
  let rest = kind ?? text;
  if (scheme !== undefined)
    rest = rest
      .slice(scheme.length + 3)
      .split(/[/?#]/)[0]!
      .replace(/^.*@/, '');
  const protocolWord = scheme === undefined ? /\/(tcp|udp|sctp)$/i.exec(rest)?.[1] : undefined;
  if (protocolWord) rest = rest.slice(0, -protocolWord.length - 1);
  const protocolScheme = scheme !== undefined && /^(tcp|udp|sctp)$/.test(scheme) ? scheme : undefined;
  const protocol = ((protocolWord ?? protocolScheme)?.toUpperCase() ?? 'TCP') as Protocol;
  let host = rest;
  let port: string | undefined;
  const bracketed = /^\[([^\]]+)\](?::([\w-]+))?$/.exec(rest);
  const plain = /^([^:]+):([\w-]+)$/.exec(rest);
  if (bracketed) [host, port] = [bracketed[1]!, bracketed[2]];
  else if (plain && !isIP(rest)) [host, port] = [plain[1]!, plain[2]];
  host = host.replace(/\.$/, match => (isIP(host) ? '' : match));
  if (scheme !== undefined) port ??= SCHEME_PORTS[scheme];
  if (!isIP(host) && !/^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?$/i.test(host))
    bad(
      `target "${text}" is neither a Service, a name, a URL nor an address; such as web.shop, svc/web:http, https://web, 10.96.0.1:443`,
    );
  if (port !== undefined && /^\d+$/.test(port) && (Number(port) < 1 || Number(port) > 65_535))
    bad(`target "${text}": there is no port ${port}`);
  return { text, host, port, protocol, isService: kind !== undefined };
}
