/** What tests of policies share: random worlds (fast-check), and the table asked as the kernel's rules ask it. */

import fc from 'fast-check';
import type { LabelSelector } from '../../api/meta.ts';
import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from '../../api/networking/v1.gen.ts';
import { type ClusterPolicy, GROUP } from '../../api/networkpolicy/kinds.ts';
import type { ClusterPolicyKind } from './cluster-policy.ts';
import type { Pod } from './peer-classes.ts';
import type { PlainPod, PlainQuestion, PlainWorld } from './plain-model.ts';
import type { MapName, PolicyTable } from './policy-table.ts';

export const NAMESPACES = ['x', 'y', 'z'] as const;
/** Ports that policies and probes speak of; each pod calls one of them `web` and one of UDP's `dns`. */
export const PORTS = [80, 81, 82] as const;
const TIERS = ['a', 'b'];

const labels = fc.record({ app: fc.constantFrom(...TIERS), role: fc.constantFrom('db', 'web', 'none') });

const selector = (keys: Readonly<Record<string, readonly string[]>>): fc.Arbitrary<LabelSelector> => {
  const key = fc.constantFrom(...Object.keys(keys));
  const value = (name: string) => fc.constantFrom(...keys[name]!);
  return fc.oneof(
    { weight: 2, arbitrary: fc.constant({}) },
    { weight: 4, arbitrary: key.chain(name => value(name).map(one => ({ matchLabels: { [name]: one } }))) },
    {
      weight: 3,
      arbitrary: key.chain(name =>
        fc
          .tuple(fc.constantFrom('In', 'NotIn'), fc.uniqueArray(value(name), { minLength: 1, maxLength: 2 }))
          .map(([operator, values]) => ({ matchExpressions: [{ key: name, operator, values }] })),
      ),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(key, fc.constantFrom('Exists', 'DoesNotExist'))
        .map(([name, operator]) => ({ matchExpressions: [{ key: name, operator }] })),
    },
  );
};
const podSelector = selector({ app: TIERS, role: ['db', 'web', 'none'], absent: ['no'] });
const namespaceSelector = selector({ ns: [...NAMESPACES], team: ['red', 'blue'] });

const port: fc.Arbitrary<NetworkPolicyPort> = fc
  .tuple(
    fc.constantFrom('TCP', 'UDP', 'SCTP'),
    fc.oneof(
      fc.constant({}),
      fc.constantFrom(...PORTS).map(number => ({ port: number })),
      fc.constant({ port: PORTS[0], endPort: PORTS[1] }),
      fc.constantFrom('web', 'dns', 'nobody').map(name => ({ port: name })),
    ),
  )
  .map(([protocol, rest]) => ({ protocol, ...rest }));

const peer = (blocks: readonly { cidr: string; except?: string[] }[]): fc.Arbitrary<NetworkPolicyPeer> =>
  fc.oneof(
    podSelector.map(one => ({ podSelector: one })),
    namespaceSelector.map(one => ({ namespaceSelector: one })),
    fc.tuple(namespaceSelector, podSelector).map(([namespaces, pods]) => ({
      namespaceSelector: namespaces,
      podSelector: pods,
    })),
    fc.constantFrom(...blocks).map(ipBlock => ({ ipBlock })),
  );

/** Policies of all shapes. `blocks`: the CIDR blocks that they may name. */
export function policies(
  blocks: readonly { cidr: string; except?: string[] }[],
  lengths: { readonly minLength: number; readonly maxLength: number },
): fc.Arbitrary<NetworkPolicy[]> {
  const rule = (name: 'from' | 'to') =>
    fc.record(
      { [name]: fc.array(peer(blocks), { maxLength: 3 }), ports: fc.array(port, { maxLength: 3 }) },
      { requiredKeys: [] },
    );
  const spec = fc.record(
    {
      podSelector,
      ingress: fc.array(rule('from'), { maxLength: 3 }),
      egress: fc.array(rule('to'), { maxLength: 3 }),
      policyTypes: fc.constantFrom(['Ingress'], ['Egress'], ['Ingress', 'Egress'], []),
    },
    { requiredKeys: ['podSelector'] },
  );
  return fc
    .array(fc.tuple(fc.constantFrom(...NAMESPACES), spec), lengths)
    .map(all => all.map(([namespace, one], i) => policy(`p${i}`, namespace, one as NetworkPolicy['spec'])));
}

/** Cluster-scoped ones of all three kinds and all shapes, of different priorities. `networks`: blocks that they may name. */
export function clusterPolicies(
  networks: readonly string[],
  lengths: { readonly minLength: number; readonly maxLength: number },
): fc.Arbitrary<ClusterPolicy[]> {
  const podsOf = fc.record({ namespaceSelector, podSelector });
  const whom = fc.oneof(
    namespaceSelector.map(namespaces => ({ namespaces })),
    podsOf.map(pods => ({ pods })),
  );
  const far = fc.oneof(
    whom,
    fc.uniqueArray(fc.constantFrom(...networks), { minLength: 1, maxLength: 2 }).map(all => ({ networks: all })),
    selector({ role: ['edge', 'inner'] }).map(nodes => ({ nodes })),
  );
  const name = fc.constantFrom('web', 'dns', 'nobody');
  const number = fc.constantFrom(...PORTS);
  const range = fc.constant({ start: PORTS[0], end: PORTS[1] });
  const protocol = fc.oneof(
    fc
      .tuple(
        fc.constantFrom('tcp', 'udp', 'sctp'),
        fc.oneof(
          number.map(one => ({ number: one })),
          range.map(one => ({ range: one })),
        ),
      )
      .map(([key, destinationPort]) => ({ [key]: { destinationPort } })),
    name.map(destinationNamedPort => ({ destinationNamedPort })),
  );
  const l4 = fc.constantFrom('TCP', 'UDP', 'SCTP');
  const oldPort = fc.oneof(
    fc.tuple(l4, number).map(([own, one]) => ({ portNumber: { protocol: own, port: one } })),
    fc.tuple(l4, range).map(([own, one]) => ({ portRange: { protocol: own, ...one } })),
    name.map(namedPort => ({ namedPort })),
  );
  const rules = (kind: ClusterPolicyKind, direction: 'from' | 'to') => {
    const isNew = kind === 'ClusterNetworkPolicy';
    const ports: fc.Arbitrary<object> = isNew ? protocol : oldPort;
    const fields: Record<string, fc.Arbitrary<unknown>> = {
      action: fc.constantFrom(
        isNew ? 'Accept' : 'Allow',
        'Deny',
        ...(kind === 'BaselineAdminNetworkPolicy' ? [] : ['Pass']),
      ),
      [direction]: fc.array<object>(direction === 'to' ? far : whom, { minLength: 1, maxLength: 2 }),
      [isNew ? 'protocols' : 'ports']: fc.array(ports, { minLength: 1, maxLength: 2 }),
    };
    return fc.array(fc.record(fields, { requiredKeys: ['action', direction] }), { maxLength: 3 });
  };
  const spec = (kind: ClusterPolicyKind) =>
    fc.record({
      ...(kind === 'ClusterNetworkPolicy' ? { tier: fc.constantFrom('Admin', 'Baseline') } : {}),
      subject: whom,
      ingress: rules(kind, 'from'),
      egress: rules(kind, 'to'),
    });
  const kinds = ['ClusterNetworkPolicy', 'AdminNetworkPolicy', 'BaselineAdminNetworkPolicy'] as const;
  const one = fc
    .constantFrom<ClusterPolicyKind>(...kinds)
    .chain(kind => spec(kind).map(own => ({ kind, own: own as unknown as ClusterPolicy['spec'] })));
  return fc.tuple(fc.array(one, lengths), fc.nat(1000)).map(([all, first]) =>
    all
      // There is one baseline of the old kind.
      .filter(({ kind }, i) => kind !== kinds[2] || all.findIndex(other => other.kind === kind) === i)
      .map(({ kind, own }, i) => ({
        apiVersion: `${GROUP}/${kind === kinds[0] ? 'v1alpha2' : 'v1alpha1'}`,
        kind,
        metadata: { name: kind === kinds[2] ? 'default' : `c${i}`, uid: `${kind}-${++made}` },
        spec: { ...own, ...(kind === kinds[2] ? {} : { priority: (first + i * 37) % 1001 }) },
      })),
  );
}

let made = 0;

export function policy(name: string, namespace: string, spec: NetworkPolicy['spec']): NetworkPolicy {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    // As from an API server: what is made again is another.
    metadata: { name, namespace, uid: `${namespace}-${name}-${++made}` },
    spec,
  };
}

export const namespaceLabels: fc.Arbitrary<PlainWorld['namespaces']> = fc
  .tuple(...NAMESPACES.map(name => fc.constantFrom('red', 'blue').map(team => [name, { ns: name, team }] as const)))
  .map(pairs => Object.fromEntries(pairs));

/** Labels and named ports for so many pods; their addresses are whoever's who makes them. */
export function podShapes(count: number): fc.Arbitrary<Omit<PlainPod, 'ips'>[]> {
  const shape = fc.tuple(fc.constantFrom(...NAMESPACES), labels, fc.constantFrom(...PORTS), fc.constantFrom(...PORTS));
  return fc.array(shape, { minLength: count, maxLength: count }).map(all =>
    all.map(([namespace, own, web, dns], i) => ({
      namespace,
      name: `pod${i}`,
      labels: own,
      ports: [
        { name: 'web', protocol: 'TCP', containerPort: web },
        { name: 'dns', protocol: 'UDP', containerPort: dns },
      ],
    })),
  );
}

export function modelPod(pod: PlainPod): Pod {
  return {
    key: `${pod.namespace}/${pod.name}`,
    uid: `${pod.namespace}-${pod.name}`,
    namespace: pod.namespace,
    labels: pod.labels,
    ips: pod.ips,
    names: new Map(pod.ports.map(({ name, protocol, containerPort }) => [`${protocol}/${name}`, containerPort])),
  };
}

const PROTOCOL_NUMBERS: Readonly<Record<string, number>> = { ICMP: 1, TCP: 6, UDP: 17, SCTP: 132 };

/** What the rules in `rules.ts` make of a packet, with the table's maps for the kernel's. */
export function passes(table: PolicyTable, { from, to, protocol, port: number }: PlainQuestion): boolean {
  if (from.ip === to.ip && table.get('selves', from.ip)) return true;
  return judge('egress', from.ip, to.ip) && judge('ingress', to.ip, from.ip);

  function judge(direction: 'ingress' | 'egress', own: string, peerIp: string): boolean {
    const found =
      table.get(`${direction}-class`, `${own} ${table.get('peers', peerIp) ?? 0}`) ??
      blockList(table, `${direction}-block`, own, peerIp) ??
      table.get(`${direction}-default`, own);
    return found === undefined || hasPort(table, found, { protocol, number });
  }
}

/** The same of a packet from a pod to its own node. */
export function passesToNode(table: PolicyTable, { from, to, protocol, port: number }: PlainQuestion): boolean {
  const found = blockList(table, 'node-block', from.ip, to.ip) ?? table.get('node-default', from.ip);
  return found === undefined || hasPort(table, found, { protocol, number });
}

function blockList(table: PolicyTable, map: MapName, own: string, peerIp: string): number | undefined {
  for (const [key, list] of table.entries(map)) {
    const [ip, first, last] = key.split(' ') as [string, string, string];
    if (ip === own && isBetween(peerIp, first, last)) return list;
  }
  return undefined;
}

function hasPort(
  table: PolicyTable,
  list: number,
  { protocol, number }: { protocol: string; number: number },
): boolean {
  for (const key of table.entries('ports').keys()) {
    const [own, protocols, ports] = key.split(' ') as [string, string, string];
    const holds = (range: string, value: number) => {
      const [low, high] = range.split('-').map(Number) as [number, number];
      return low <= value && value <= high;
    };
    if (Number(own) === list && holds(protocols, PROTOCOL_NUMBERS[protocol]!) && holds(ports, number)) return true;
  }
  return false;
}

function isBetween(ip: string, first: string, last: string): boolean {
  if (ip.includes(':') !== first.includes(':')) return false;
  const value = (text: string) => {
    const url = new URL(text.includes(':') ? `http://[${text}]` : `http://${text}`).hostname.replace(/[[\]]/g, '');
    if (!url.includes(':')) return url.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n);
    const [head = '', tail] = url.split('::');
    const groups = (part: string) => (part ? part.split(':') : []);
    const [before, after] = [groups(head), groups(tail ?? '')];
    const middle = tail === undefined ? [] : new Array<string>(8 - before.length - after.length).fill('0');
    return [...before, ...middle, ...after].reduce((sum, group) => sum * 65536n + BigInt(`0x${group}`), 0n);
  };
  return value(first) <= value(ip) && value(ip) <= value(last);
}
