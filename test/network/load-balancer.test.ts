/** On-premises load balancing on real nodes: a client on their segment, and a router beyond it, reach Services by announced addresses. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Secret, Service } from '../../src/api/core/v1.gen.ts';
import type { EndpointSlice } from '../../src/api/discovery/v1.gen.ts';
import { API_VERSION } from '../../src/api/loadbalancer/v1beta1.ts';
import type { KubeObject } from '../../src/api/meta.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { InformerFactory } from '../../src/client/informer.ts';
import {
  BFD_PROFILES,
  BGP_ADVERTISEMENTS,
  BGP_COMMUNITIES,
  BGP_PEERS,
  ENDPOINT_SLICES,
  IP_ADDRESS_POOLS,
  L2_ADVERTISEMENTS,
  SECRETS,
  SERVICES,
} from '../../src/client/resources.ts';
import { Announcer } from '../../src/loadbalancer/announcer.ts';
import { createNodeNamespace, deleteNodeNamespace, nodeAddress, portName } from '../../src/network/segment.ts';
import { setLink, withRoutes } from '../../src/sys/netlink.ts';
import { ask, Bed, type BedNode, type BedPod, root, until, untilAnswer } from './bed.ts';
import { Router } from './router.ts';

const options = { skip: !root };
const log = createLogger('test', { level: process.env['COX_LOG'] ? 'debug' : 'error' });
const VIP = '172.30.255.1';
const OTHER_VIP = '172.30.255.2';
const VIP6 = 'fd00:172:30::ff00:1';

let bed: Bed;
let client: string;
const pods: BedPod[] = [];
const announcers = new Map<string, { announcer: Announcer; stop: AbortController; done: Promise<void> }>();

function startAnnouncer(node: BedNode): void {
  const stop = new AbortController();
  // A factory of its own, as each agent has: it starts with nothing.
  const informers = new InformerFactory({ transport: bed.api, log });
  informers.start(stop.signal);
  const announcer = new Announcer({
    nodeName: node.name,
    nodeAddress: node.ip,
    probePort: 10250,
    runDir: join(node.stateDir, 'bgp'),
    informers,
    transport: bed.api,
    secrets: bed.api,
    namespace: node.namespace,
    log,
    clock: systemClock,
  });
  announcers.set(node.name, { announcer, stop, done: announcer.run(stop.signal) });
}

async function stopAnnouncer(node: BedNode): Promise<void> {
  const { stop, done } = announcers.get(node.name)!;
  stop.abort();
  await done;
}

const object = (kind: string, name: string, spec: unknown): KubeObject =>
  ({ apiVersion: API_VERSION, kind, metadata: { name, uid: name }, spec }) as KubeObject;

function putService(
  name: string,
  facts: { ip: string; policy?: 'Local' | 'Cluster'; endpoints: { pod: BedPod; node: string; ready?: boolean }[] },
): void {
  const [at, family] = facts.ip.includes(':') ? ([1, 'IPv6'] as const) : ([0, 'IPv4'] as const);
  const clusterIP = at === 0 ? `10.96.7.${facts.ip.split('.')[3]}` : `fd00:10:96::${facts.ip.split(':').at(-1)}`;
  bed.api.put<Service>(SERVICES, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default', uid: name },
    spec: {
      type: 'LoadBalancer',
      clusterIP,
      clusterIPs: [clusterIP],
      ipFamilies: [family],
      externalTrafficPolicy: facts.policy ?? 'Cluster',
      ports: [{ port: 80, targetPort: 8080, protocol: 'TCP' }],
      selector: { app: name },
    },
    status: { loadBalancer: { ingress: [{ ip: facts.ip, ipMode: 'VIP' }] } },
  } as Service);
  bed.api.put<EndpointSlice>(ENDPOINT_SLICES, {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name, namespace: 'default', labels: { 'kubernetes.io/service-name': name } },
    addressType: family,
    endpoints: facts.endpoints.map(({ pod, node, ready = true }) => ({
      addresses: [pod.ips[at]],
      nodeName: node,
      conditions: { ready, serving: ready, terminating: false },
    })),
    ports: [{ port: 8080, protocol: 'TCP', name: '' }],
  } as EndpointSlice);
}

const holders = (ip: string): BedNode[] =>
  bed.nodes.filter(({ namespace }) =>
    withRoutes(namespace, routes =>
      routes.addresses().some(({ prefix }) => prefix === `${ip}/${ip.includes(':') ? 128 : 32}`),
    ),
  );

async function answered(namespace: string, ip: string, port = 80): Promise<void> {
  let last = '';
  const deadline = performance.now() + 8000;
  while (performance.now() < deadline) {
    last = await ask(namespace, ip, port, 300);
    if (last.startsWith('pod')) return;
    await sleep(10);
  }
  assert.fail(`no answer at ${ip}:${port}: ${last}`);
}

before(async () => {
  if (!root) return;
  bed = new Bed(['IPv4', 'IPv6']);
  for (let i = 0; i < 3; i++) {
    const node = await bed.addNode();
    bed.startProxy(node);
    const pod = await bed.addPod(node);
    pods.push(pod);
    bed.serve(pod.namespace, 8080, `pod ${node.name} for`);
  }
  client = `${bed.switch}-client`;
  const ips = bed.segments.map(segment => nodeAddress(900, segment));
  createNodeNamespace({ switch: bed.switch, name: client, ips, segments: bed.segments });
  bed.api.put(
    IP_ADDRESS_POOLS,
    object('IPAddressPool', 'default', { addresses: ['172.30.255.0/24', 'fd00:172:30::ff00:0/112'] }),
  );
  bed.api.put(L2_ADVERTISEMENTS, object('L2Advertisement', 'default', {}));
  for (const node of bed.nodes) startAnnouncer(node);
});

after(async () => {
  if (!root) return;
  for (const { stop, done } of announcers.values()) {
    stop.abort();
    await done;
  }
  if (client) deleteNodeNamespace({ switch: bed.switch, name: client });
  await bed.close();
});

test('one node answers for an address, and a client on the segment is served', options, async () => {
  putService('web', { ip: VIP, endpoints: pods.map((pod, at) => ({ pod, node: `node-${at + 1}` })) });
  await answered(client, VIP);
  assert.equal(holders(VIP).length, 1);
  assert.equal(await ask(client, VIP, 81), 'ECONNREFUSED');
  // Also the nodes themselves, whether the address is theirs or another's.
  for (const node of bed.nodes) await answered(node.namespace, VIP);
});

test('what a node listens on is not open at the address', options, async () => {
  const [holder] = holders(VIP);
  bed.serve(holder!.namespace, 2222, 'node');
  assert.match(await ask(client, holder!.ip, 2222), /^node/);
  assert.equal(await ask(client, VIP, 2222), 'ECONNREFUSED');
});

test(
  'with the Local policy only a node with a ready endpoint announces, and the client keeps its address',
  options,
  async () => {
    const facts = { ip: OTHER_VIP, policy: 'Local' as const };
    for (const at of [0, 1, 2]) {
      const others = pods.map((pod, i) => ({ pod, node: `node-${i + 1}`, ready: i === at }));
      putService('local', { ...facts, endpoints: others });
      await until(() => holders(OTHER_VIP).length === 1 && holders(OTHER_VIP)[0]!.name === `node-${at + 1}`);
      // The node that had it may serve a little longer: it hears of the change, and the client of the new one, in their own time.
      const expected = `pod node-${at + 1} for ${nodeAddress(900)}`;
      const answers = new Set<string>();
      await untilAnswer(
        async () => {
          const answer = await ask(client, OTHER_VIP, 80, 200);
          if (answer.startsWith('pod')) answers.add(answer);
          return answer;
        },
        new RegExp(`^${RegExp.escape(expected)}$`),
      );
      for (const answer of answers) assert.ok(answer.endsWith(` for ${nodeAddress(900)}`), answer);
    }
    putService('local', { ...facts, endpoints: [] });
    await until(() => holders(OTHER_VIP).length === 0);
  },
);

test('an agent that is started again keeps its addresses', options, async () => {
  const [holder] = holders(VIP);
  await stopAnnouncer(holder!);
  // Longer than silence and probe take together: another node would have taken over.
  await sleep(1000);
  assert.deepEqual(holders(VIP), [holder]);
  await answered(client, VIP);
  startAnnouncer(holder!);
  await sleep(500);
  assert.deepEqual(holders(VIP), [holder]);
});

for (const [protocol, name, ip] of [
  ['ARP', 'web', VIP],
  ['NDP', 'web6', VIP6],
] as const)
  test(`when a node fails, traffic is back in under a second: ${protocol}`, options, async t => {
    const put = (isThere: (node: string) => boolean) =>
      putService(name, {
        ip,
        endpoints: pods.map((pod, at) => ({ pod, node: `node-${at + 1}` })).filter(({ node }) => isThere(node)),
      });
    put(() => true);
    await answered(client, ip);
    const [holder] = holders(ip);
    // At the switch: a link that goes down on the node itself loses its IPv6 addresses.
    const link = (up: boolean) =>
      withRoutes(bed.switch, routes => routes.request([setLink({ name: portName(holder!.namespace), up })]));
    // Its pod goes with it, so that what is measured is the address, not the proxy's choice.
    put(node => node !== holder!.name);
    await sleep(200);
    const failed = performance.now();
    link(false);
    let answer = '';
    while (!answer.startsWith('pod')) {
      assert.ok(performance.now() - failed < 8000, 'traffic did not come back');
      answer = await ask(client, ip, 80, 50);
    }
    t.diagnostic(`failover took ${(performance.now() - failed).toFixed(0)} ms`);
    assert.equal(holders(ip).length, 2, 'the cut-off node does not know');
    link(true);
    await until(() => holders(ip).length === 1, 5000);
    await answered(client, ip);
  });

test('when its last endpoint goes, an address is withdrawn; when the Service goes, too', options, async () => {
  putService('web', { ip: VIP, endpoints: [] });
  await until(() => holders(VIP).length === 0);
  putService('web', { ip: VIP, endpoints: [{ pod: pods[0]!, node: 'node-1' }] });
  await until(() => holders(VIP).length === 1);
  bed.api.remove(SERVICES, 'default/web');
  await until(() => holders(VIP).length === 0);
});

test('a router learns addresses by BGP, over all nodes at once, with communities', options, async () => {
  bed.api.remove(L2_ADVERTISEMENTS, 'default');
  const router = new Router({
    switch: bed.switch,
    name: `${bed.switch}-router`,
    ip: nodeAddress(800),
    directory: bed.directory,
  });
  try {
    await router.start({
      asn: 64501,
      neighbours: bed.nodes.map(({ ip }) => ({ ip, asn: 64500, password: 'a secret' })),
    });
    bed.api.put(BGP_COMMUNITIES, object('Community', 'names', { communities: [{ name: 'quick', value: '64500:7' }] }));
    bed.api.put(
      BGP_ADVERTISEMENTS,
      object('BGPAdvertisement', 'all', { communities: ['quick', 'large:64500:1:2'], localPref: 200 }),
    );
    const secret = (type: string) =>
      bed.api.put(SECRETS, {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: 'router', namespace: 'kube-system', uid: 'router' },
        type,
        data: { password: Buffer.from('a secret').toString('base64') },
      } as Secret);
    // Right only once the Secret is.
    secret('Opaque');
    bed.api.put(
      BGP_PEERS,
      object('BGPPeer', 'router', {
        myASN: 64500,
        peerASN: 64501,
        peerAddress: router.ip,
        passwordSecret: { namespace: 'kube-system', name: 'router' },
        enableGracefulRestart: true,
        connectTime: '1s',
      }),
    );
    putService('web', { ip: '10.200.0.1', endpoints: [] });
    bed.api.put(IP_ADDRESS_POOLS, object('IPAddressPool', 'routed', { addresses: ['10.200.0.0/24'] }));
    putService('web', { ip: '10.200.0.1', endpoints: pods.map((pod, at) => ({ pod, node: `node-${at + 1}` })) });
    secret('kubernetes.io/basic-auth');
    await untilRoutes(
      router,
      '10.200.0.1/32',
      bed.nodes.map(({ ip }) => ip),
    );
    await answered(router.namespace, '10.200.0.1');
    const shown = await router.show('route all 10.200.0.1/32');
    assert.match(shown, /BGP.community: \(64500,7\)/);
    assert.match(shown, /BGP.large_community: \(64500, ?1, ?2\)/);

    // A daemon that dies keeps its routes on the router, and is back before they time out.
    const pid = bed.nodes[0]!;
    const before = daemonOf(pid);
    process.kill(before, 'SIGKILL');
    await sleep(150);
    assert.equal(router.nextHops('10.200.0.1/32').length, 3, 'the router goes on using the route');
    await until(() => daemonOf(pid) !== undefined && daemonOf(pid) !== before, 5000);

    // Local: only the node that has an endpoint is a next hop.
    putService('web', { ip: '10.200.0.1', policy: 'Local', endpoints: [{ pod: pods[1]!, node: 'node-2' }] });
    await untilRoutes(router, '10.200.0.1/32', [bed.nodes[1]!.ip]);
    assert.match(await ask(router.namespace, '10.200.0.1', 80), /^pod node-2 for/);

    bed.api.remove(SERVICES, 'default/web');
    await untilRoutes(router, '10.200.0.1/32', []);
    bed.api.remove(BGP_PEERS, 'router');
    await until(() => bed.nodes.every(node => daemonOf(node) === undefined), 5000);
  } finally {
    bed.api.remove(BGP_PEERS, 'router');
    await until(() => bed.nodes.every(node => daemonOf(node) === undefined), 5000).catch(() => {});
    await router.close();
  }
});

test('a router learns addresses of IPv6 by a session over IPv6', options, async () => {
  const router = new Router({
    switch: bed.switch,
    name: `${bed.switch}-six`,
    ip: nodeAddress(802),
    ip6: nodeAddress(802, bed.segments[1]),
    directory: bed.directory,
  });
  try {
    const hops = bed.nodes.map(({ ips }) => ips[1]!);
    await router.start({ asn: 64501, neighbours: hops.map(ip => ({ ip, asn: 64500 })) });
    bed.api.put(IP_ADDRESS_POOLS, object('IPAddressPool', 'routed-six', { addresses: ['fd00:200::/112'] }));
    const peerAddress = nodeAddress(802, bed.segments[1]);
    bed.api.put(BGP_PEERS, object('BGPPeer', 'six', { myASN: 64500, peerASN: 64501, peerAddress, connectTime: '1s' }));
    putService('web6', { ip: 'fd00:200::1', endpoints: pods.map((pod, at) => ({ pod, node: `node-${at + 1}` })) });
    await untilRoutes(router, 'fd00:200::1', hops);
    await answered(router.namespace, 'fd00:200::1');
  } finally {
    bed.api.remove(SERVICES, 'default/web6');
    bed.api.remove(BGP_PEERS, 'six');
    await until(() => bed.nodes.every(node => daemonOf(node) === undefined), 5000).catch(() => {});
    await router.close();
  }
});

test('with BFD a router leaves a node that is cut off long before its hold time', options, async t => {
  const router = new Router({
    switch: bed.switch,
    name: `${bed.switch}-quick`,
    ip: nodeAddress(801),
    directory: bed.directory,
  });
  const link = (up: boolean) =>
    withRoutes(bed.nodes[0]!.namespace, routes => routes.request([setLink({ name: 'eth0', up })]));
  try {
    await router.start({ asn: 64501, neighbours: bed.nodes.map(({ ip }) => ({ ip, asn: 64500 })), bfd: true });
    const profile = { receiveInterval: 50, transmitInterval: 50, detectMultiplier: 3 };
    bed.api.put(BFD_PROFILES, object('BFDProfile', 'quick', profile));
    const peer = { myASN: 64500, peerASN: 64501, peerAddress: router.ip, connectTime: '1s', bfdProfile: 'quick' };
    bed.api.put(BGP_PEERS, object('BGPPeer', 'quick', peer));
    putService('web', { ip: '10.200.0.2', endpoints: pods.map((pod, at) => ({ pod, node: `node-${at + 1}` })) });
    const hops = bed.nodes.map(({ ip }) => ip);
    await untilRoutes(router, '10.200.0.2/32', hops);
    await until(() => router.upBfdSessions() === hops.length, 10_000);
    const cut = performance.now();
    link(false);
    await untilRoutes(router, '10.200.0.2/32', hops.slice(1));
    const tookMs = performance.now() - cut;
    t.diagnostic(`the router left the node after ${tookMs.toFixed(0)} ms; its hold time is 90 s`);
    assert.ok(tookMs < 20_000);
  } finally {
    link(true);
    bed.api.remove(SERVICES, 'default/web');
    bed.api.remove(BGP_PEERS, 'quick');
    await until(() => bed.nodes.every(node => daemonOf(node) === undefined), 5000).catch(() => {});
    await router.close();
  }
});

async function untilRoutes(router: Router, prefix: string, hops: string[]): Promise<void> {
  const wanted = [...hops].sort().join(' ');
  const deadline = performance.now() + 20_000;
  while (router.nextHops(prefix).sort().join(' ') !== wanted) {
    if (performance.now() > deadline)
      assert.fail(`${prefix} goes to [${router.nextHops(prefix)}], not [${wanted}]: ${await router.show('protocols')}`);
    await sleep(50);
  }
}

/** The process of bird inside the node's namespace. */
function daemonOf({ namespace }: BedNode): number {
  const pids = execFileSync('ip', ['netns', 'pids', namespace], { encoding: 'utf8' }).split('\n').filter(Boolean);
  return pids.map(Number).find(pid => {
    try {
      return execFileSync('cat', [`/proc/${pid}/comm`], { encoding: 'utf8' }).trim() === 'bird';
    } catch {
      return false;
    }
  })!;
}
