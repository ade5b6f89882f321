/**
 * The name: what the asker's own /etc/hosts and resolv.conf make of it, asked of the very name servers that it would ask, from its
 * own network. On a node and on the machine, whose resolver knows nothing of the cluster, the node's cluster DNS is asked.
 */

import { createSocket } from 'node:dgram';
import { isIP } from 'node:net';
import { CLUSTER_DOMAIN } from '../../../base/cluster-defaults.ts';
import { messageOf } from '../../../base/errors.ts';
import { decodeMessage, encodeQuery, RCODE, TYPE } from '../../../dns/message.ts';
import { decodeName } from '../../../dns/name.ts';
import { parseResolver } from '../../../kubelet/pods/files.ts';
import { formatAddress } from '../../../sys/address.ts';
import { bindUdp } from '../../../sys/socket.ts';
import { type Finding, failure, type Journey, note, ok, type Step } from '../step.ts';

const TIMEOUT_MS = 5000;
const RCODE_WORDS = new Map<number, string>(Object.entries(RCODE).map(([word, code]) => [code, word]));

interface Resolver {
  /** Path of the network namespace to ask from. */
  readonly namespace: string;
  readonly nameservers: readonly string[];
  readonly searches: readonly string[];
  readonly ndots: number;
  readonly hosts: ReadonlyMap<string, string>;
}

interface Answer {
  readonly addresses: readonly string[];
  readonly aliases: readonly string[];
  /** `NXDOMAIN`, `no address`, `no answer …`; undefined when there are addresses. */
  readonly problem: string | undefined;
}

export const name: Step = {
  name: 'name',
  async run(journey) {
    const { target, namespace } = journey;
    if (isIP(target.host)) {
      journey.address = target.host;
      return [];
    }
    const domain = CLUSTER_DOMAIN;
    const resolver = await resolverOf(journey);
    const inHosts = resolver.hosts.get(target.host.toLowerCase());
    if (inHosts !== undefined && !target.isService) {
      journey.address = inHosts;
      return [ok(`${target.host} is ${inHosts} by /etc/hosts`, { address: inHosts, by: '/etc/hosts' })];
    }
    const server = resolver.nameservers[0];
    if (server === undefined)
      return [
        failure(
          `${target.host}: there is no name server in its resolv.conf`,
          'set dnsPolicy: ClusterFirst, or dnsConfig.nameservers',
        ),
      ];
    const candidates = target.isService
      ? [`${target.host}.${namespace}.svc.${domain}`]
      : candidatesOf(target.host, resolver);
    const findings: Finding[] = [];
    const tried: string[] = [];
    for (const [index, candidate] of candidates.entries()) {
      const answer = await ask(resolver, server, candidate);
      if (answer.addresses.length > 0) {
        const [first] = answer.addresses;
        journey.address = first!;
        const steps = candidates.length > 1 ? `, name ${index + 1} of ${candidates.length} by the search path` : '';
        const path = [candidate, ...answer.aliases].join(' → ');
        findings.push(
          ok(`${path} is ${answer.addresses.join(', ')} (asked ${server}${steps})`, {
            name: candidate,
            addresses: answer.addresses,
            aliases: answer.aliases,
            server,
            tried,
          }),
        );
        if (tried.length > 2)
          findings.push(
            note(`${tried.length} names were tried in vain before it: end the name with a dot to save them`),
          );
        return findings;
      }
      tried.push(`${candidate}: ${answer.problem}`);
      if (answer.problem?.startsWith('no answer')) break;
    }
    const [why, next] = await explain(journey, tried, server);
    return [failure(why, next, { tried, server })];
  },
};

async function resolverOf({ from, cluster, namespace }: Journey): Promise<Resolver> {
  const none = new Map<string, string>();
  const pid = from.kind === 'pod' ? cluster.processOf(from.pod) : undefined;
  if (pid === undefined) {
    const dns = (await cluster.services()).find(
      ({ metadata }) => metadata.namespace === 'kube-system' && metadata.name === 'kube-dns',
    );
    const nameservers = dns?.spec.clusterIPs ?? (dns?.spec.clusterIP ? [dns.spec.clusterIP] : []);
    const searches = [`${namespace}.svc.${CLUSTER_DOMAIN}`, `svc.${CLUSTER_DOMAIN}`, CLUSTER_DOMAIN];
    return { namespace: cluster.networkOf(from.node), nameservers, searches, ndots: 5, hosts: none };
  }
  const { nameservers, searches, options } = parseResolver(cluster.fileOf(pid, '/etc/resolv.conf') ?? '');
  const ndots = Number(options.find(option => option.startsWith('ndots:'))?.slice('ndots:'.length) ?? 1);
  const hosts = new Map<string, string>();
  for (const line of (cluster.fileOf(pid, '/etc/hosts') ?? '').split('\n')) {
    const [ip, ...names] = line.replace(/#.*/, '').trim().split(/\s+/);
    for (const one of names) if (ip && isIP(ip) && !hosts.has(one.toLowerCase())) hosts.set(one.toLowerCase(), ip);
  }
  return { namespace: `/proc/${pid}/ns/net`, nameservers, searches, ndots, hosts };
}

/** In the order of resolver(5). */
function candidatesOf(host: string, { searches, ndots }: Resolver): string[] {
  if (host.endsWith('.')) return [host.slice(0, -1)];
  const searched = searches.filter(search => search !== '.').map(search => `${host}.${search}`);
  return host.split('.').length - 1 >= ndots ? [host, ...searched] : [...searched, host];
}

async function ask(resolver: Resolver, server: string, host: string): Promise<Answer> {
  const replies = await Promise.all([TYPE.A, TYPE.AAAA].map(type => exchange(resolver.namespace, server, host, type)));
  const addresses: string[] = [];
  const aliases: string[] = [];
  let problem: string | undefined;
  for (const reply of replies) {
    if (typeof reply === 'string') {
      problem = reply;
      continue;
    }
    const message = decodeMessage(reply);
    for (const record of message.records) {
      if (record.section !== 'answer') continue;
      if (record.type === TYPE.A || record.type === TYPE.AAAA) addresses.push(formatAddress(record.data));
      if (record.type === TYPE.CNAME) {
        const alias = decodeName(record.data, 0).name;
        if (!aliases.includes(alias)) aliases.push(alias);
      }
    }
    problem ??= message.rcode === 0 ? 'no address' : (RCODE_WORDS.get(message.rcode) ?? String(message.rcode));
  }
  return { addresses, aliases, problem: addresses.length > 0 ? undefined : (problem ?? 'no address') };
}

/** The reply, or why there is none. */
function exchange(namespace: string, server: string, host: string, type: number): Promise<Buffer | string> {
  return new Promise(resolve => {
    let query: Buffer;
    let fd: number;
    try {
      query = encodeQuery({ id: type, name: host, type, udpBytesMax: 1232 });
      fd = bindUdp({ namespace, address: server.includes(':') ? '::' : '0.0.0.0', port: 0 });
    } catch (error) {
      return resolve(`not asked: ${messageOf(error)}`);
    }
    const socket = createSocket(server.includes(':') ? 'udp6' : 'udp4');
    const finish = (result: Buffer | string): void => {
      clearTimeout(timer);
      socket.close();
      resolve(result);
    };
    const timer = setTimeout(() => finish(`no answer within ${TIMEOUT_MS / 1000} s from ${server}`), TIMEOUT_MS);
    socket.once('message', reply => finish(reply));
    socket.once('error', error => finish(`no answer from ${server}: ${messageOf(error)}`));
    socket.bind({ fd }, () => socket.send(query, 53, server));
  });
}

/** Why no name led anywhere, from what the cluster has. */
async function explain(
  journey: Journey,
  tried: readonly string[],
  server: string,
): Promise<[why: string, next?: string]> {
  const { target, cluster, namespace } = journey;
  const last = tried.at(-1) ?? '';
  if (last.includes('no answer'))
    return [last, `see whether that server runs: cox node exec ${journey.from.node} -- ss -lun`];
  const why = `${target.host} is not found: ${tried.join('; ')}`;
  const [short, second, third] = target.host.replace(/\.$/, '').split('.');
  const services = await cluster.services();
  const wanted = second && second !== 'svc' ? second : namespace;
  const there = services.find(({ metadata }) => metadata.name === short && metadata.namespace === wanted);
  if (there && (second === undefined || third === undefined || third === 'svc')) {
    if (there.spec.clusterIP === 'None')
      return [
        `${why}; Service ${wanted}/${short} is headless and has no ready endpoint`,
        `see: cox trace svc/${short} -n ${wanted}, kubectl -n ${wanted} get pods,endpointslices`,
      ];
    if (there.spec.type === 'ExternalName')
      return [
        `${why}; Service ${wanted}/${short} is an alias of ${there.spec.externalName}, which has no address`,
        'mend spec.externalName, or the upstream name servers in ConfigMap kube-system/coredns',
      ];
    return [
      `${why}, although Service ${wanted}/${short} exists`,
      `the name server asked (${server}) may not be the cluster's, or the search path was changed: see dnsPolicy and dnsConfig`,
    ];
  }
  const elsewhere = services
    .filter(({ metadata }) => metadata.name === short)
    .map(({ metadata }) => metadata.namespace!);
  if (elsewhere.length > 0)
    return [why, `there is a Service "${short}" in namespace ${elsewhere.join(', ')}: use ${short}.${elsewhere[0]}`];
  const names = services.filter(({ metadata }) => metadata.namespace === wanted).map(({ metadata }) => metadata.name);
  if (
    target.isService ||
    second === undefined ||
    (await cluster.namespaces()).some(({ metadata }) => metadata.name === second)
  )
    return [
      why,
      names.length > 0
        ? `Services in namespace ${wanted}: ${names.slice(0, 10).join(', ')}`
        : `namespace ${wanted} has no Services`,
    ];
  return [
    why,
    'names outside the cluster come from the servers in ConfigMap kube-system/coredns (forward): see whether they can be reached',
  ];
}
