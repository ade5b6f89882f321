/** What the node's kernel would do: the elements of nftables that match, read from the node's own network, beside what they should be. */

import { messageOf } from '../../../base/errors.ts';
import { PROTOCOL_NUMBERS } from '../../../proxy/nftables/elements.ts';
import { AFFINITY_MAP, TABLE } from '../../../proxy/nftables/rules.ts';
import { formatAddress, parseAddress } from '../../../sys/address.ts';
import { type Element, NFPROTO_IPV4, NFPROTO_IPV6, Nfnetlink } from '../../../sys/nfnetlink.ts';
import { at, type Finding, failure, type Journey, ok, type Step, warning } from '../step.ts';
import { isNodeDns } from './service.ts';

/** Local endpoints of external policy Local have indexes from here. */
const LOCAL_INDEX = 65_536;

export const kernel: Step = {
  name: 'kernel',
  run(journey) {
    const { frontend } = journey;
    if (!frontend || isNodeDns(journey)) return [];
    const node = journey.node.metadata.name;
    const family = frontend.family === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
    const table = `${frontend.family === 4 ? 'ip' : 'ip6'} ${TABLE}`;
    const log = `see: cox status, and the log of ${node}`;
    let door: Nfnetlink;
    try {
      door = new Nfnetlink(journey.cluster.networkOf(node));
    } catch (error) {
      return [
        warning(
          `the network of ${node} cannot be looked into: ${messageOf(error)}`,
          'run it as root on the machine of the cluster',
        ),
      ];
    }
    try {
      const read = (set: string): readonly Element[] => door.elements({ family, table: TABLE }, set);
      return compare(journey, { read, table, log });
    } catch (error) {
      return [failure(`${node} has no table ${table}: ${messageOf(error)}`, log)];
    } finally {
      door.close();
    }
  },
};

function compare(
  journey: Journey,
  { read, table, log }: { read: (set: string) => readonly Element[]; table: string; log: string },
): Finding[] {
  const frontend = journey.frontend!;
  const node = journey.node.metadata.name;
  const nodePort = frontend.address === undefined;
  const key = keyOf(frontend);
  const tuple = `${nodePort ? '' : `${frontend.address} . `}${frontend.protocol.toLowerCase()} . ${frontend.port}`;
  const match = (set: string): Element | undefined => read(set).find(element => Buffer.compare(element.key, key) === 0);
  const refused = match(`refused${nodePort ? '-node-ports' : ''}`);
  const map = nodePort ? 'node-ports' : 'services';
  const element = match(map);
  const findings: Finding[] = [];
  const restricted = nodePort ? undefined : match('restricted');
  if (restricted)
    findings.push(ok(`${table}, map restricted: only ${frontend.sourceRanges?.join(', ')} may use ${tuple}`));
  if (!element) {
    if (refused)
      return [...findings, failure(`${table}, map refused on ${node}: ${tuple} → ${verdictOf(refused)}`, log)];
    return [
      ...findings,
      failure(
        `${node} has no element for ${tuple} in ${table}, map ${map}`,
        `the proxy of that node is behind or dead; ${log}`,
      ),
    ];
  }
  const targets = read(nodePort ? 'node-port-endpoints' : 'endpoints')
    .filter(one => Buffer.compare(one.key.subarray(0, key.length), key) === 0)
    .map(one => ({ index: Buffer.from(one.key).readUInt32LE(key.length), text: endpointOf(one) }));
  const all = targets.filter(({ index }) => index < LOCAL_INDEX).map(({ text }) => text);
  const wanted = frontend.endpoints.map(({ ip, port }) => at(ip, port));
  const shown = `${table}, map ${map} on ${node}: ${tuple} → ${verdictOf(element)} → ${all.join(', ')}`;
  findings.push(ok(shown, { node, table, map, element: tuple, verdict: verdictOf(element), endpoints: all }));
  const remembered = rememberedOf(journey, read);
  if (remembered)
    findings.push(ok(`${table}, map affinity: this client is remembered and goes to ${remembered}`, { remembered }));
  const missing = wanted.filter(one => !all.includes(one));
  const extra = all.filter(one => !wanted.includes(one));
  if (missing.length > 0 || extra.length > 0)
    findings.push(
      warning(
        `the kernel differs from the API: ${[missing.length > 0 ? `without ${missing.join(', ')}` : '', extra.length > 0 ? `still with ${extra.join(', ')}` : ''].filter(Boolean).join('; ')}`,
        `try again; if it lasts, ${log}`,
      ),
    );
  return findings;
}

// Other senders than pods may come with any of their node's addresses.
function rememberedOf({ from, frontend }: Journey, read: (set: string) => readonly Element[]): string | undefined {
  const { affinity, protocol, family } = frontend!;
  const client = from.ips.find(ip => ip.includes(':') === (family === 6));
  if (!affinity || !client || from.kind !== 'pod') return undefined;
  const key = Buffer.concat([parseAddress(client), keyOf({ ...affinity, protocol })]);
  const found = read(AFFINITY_MAP[affinity.memory]).find(element => Buffer.compare(element.key, key) === 0);
  return found && endpointOf(found);
}

// Components are padded to four bytes each.
function keyOf({
  address,
  protocol,
  port,
}: {
  readonly address: string | undefined;
  readonly protocol: keyof typeof PROTOCOL_NUMBERS;
  readonly port: number;
}): Buffer {
  const ip = address === undefined ? Buffer.alloc(0) : parseAddress(address);
  const out = Buffer.alloc(ip.length + 8);
  out.set(ip);
  out[ip.length] = PROTOCOL_NUMBERS[protocol];
  out.writeUInt16BE(port, ip.length + 4);
  return out;
}

const verdictOf = ({ data }: Element): string =>
  data === 'drop' ? 'drop' : data && !(data instanceof Uint8Array) && 'goto' in data ? `goto ${data.goto}` : 'nothing';

function endpointOf({ data }: Element): string {
  const bytes = Buffer.from(data as Uint8Array);
  const ip = formatAddress(bytes.subarray(0, bytes.length - 4));
  return at(ip, bytes.readUInt16BE(bytes.length - 4));
}
