/**
 * A pod under a policy is never open: not at its start, nor when the agent restarts, policies change or somebody flushes the
 * table. Clients on both nodes hammer the address throughout; what gets through is counted inside the pod.
 */

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Node } from '../../src/api/core/v1.gen.ts';
import type { NetworkPolicy } from '../../src/api/networking/v1.gen.ts';
import type { ClusterPolicy } from '../../src/api/networkpolicy/kinds.ts';
import { CLUSTER_NETWORK_POLICIES, NAMESPACES, NETWORK_POLICIES, NODES, PODS } from '../../src/client/resources.ts';
import { macOf } from '../../src/network/mac.ts';
import { policy } from '../../src/network/policy/policy-fixture.ts';
import { createNodeNamespace, deleteNodeNamespace, nodeAddress } from '../../src/network/segment.ts';
import { addNeighbour, addRoute, withRoutes } from '../../src/sys/netlink.ts';
import { netnsPath } from '../../src/sys/netns.ts';
import { Nftables } from '../../src/sys/nftables.ts';
import { bindUdp, connectTcp, listenTcp, openUdp } from '../../src/sys/socket.ts';
import { ask, askUdp, Bed, type BedNode, root, until } from './bed.ts';
import { type ProbedPod, podObject, startPod } from './policy-probes.ts';

const PORT = 8080;

describe('pods stay closed', { skip: !root }, () => {
  let bed: Bed;
  let [one, two]: BedNode[] = [];
  let [near, far]: ProbedPod[] = [];
  const stops: (() => void)[] = [];

  before(async () => {
    bed = new Bed();
    [one, two] = [await bed.addNode(), await bed.addNode()];
    for (const name of ['x', 'y'])
      bed.api.put(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels: { ns: name } } });
    near = await startPod(bed, one, { namespace: 'y', name: 'near', labels: { app: 'near' }, ports: [] });
    far = await startPod(bed, two, { namespace: 'y', name: 'far', labels: { app: 'far' }, ports: [] });
  });
  after(async () => {
    await bed.close();
    for (const stop of stops) stop();
  });

  const put = (one: NetworkPolicy) => bed.api.put(NETWORK_POLICIES, one);
  const denyAll = () => policy('deny', 'x', { podSelector: {}, policyTypes: ['Ingress', 'Egress'] });

  /** Datagrams and beginnings of connections, as fast as the loop turns, from both nodes to this address. */
  function hammer(address: string): () => void {
    const timers: NodeJS.Timeout[] = [];
    for (const from of [near!, far!]) {
      const socket = createSocket('udp4');
      socket.on('error', () => {});
      socket.bind({ fd: openUdp({ namespace: from.netns }) });
      const connections = new Set<Socket>();
      const send = () => {
        for (let i = 0; i < 5; i++) socket.send('!', PORT, address, () => {});
        if (connections.size > 20) {
          const [oldest] = connections;
          oldest!.destroy();
          connections.delete(oldest!);
        }
        connections.add(connectTcp({ namespace: from.netns, address, port: PORT }).on('error', () => {}));
      };
      timers.push(setInterval(send, 1));
      stops.push(() => {
        for (const timer of timers) clearInterval(timer);
        socket.close();
        for (const connection of connections) connection.destroy();
      });
    }
    return () => {
      for (const timer of timers) clearInterval(timer);
    };
  }

  /** Counts what arrives, from before the pod has a link. */
  function listen(netns: string): { heard: number } {
    const count = { heard: 0 };
    const socket = createSocket('udp4').on('message', () => count.heard++);
    socket.bind({ fd: bindUdp({ namespace: netns, address: '0.0.0.0', port: PORT }) });
    const server = createServer(peer => {
      count.heard++;
      peer.on('error', () => {}).destroy();
    }).listen({ fd: listenTcp({ namespace: netns, address: '0.0.0.0', port: PORT }) });
    stops.push(
      () => socket.close(),
      () => server.close(),
    );
    return count;
  }

  async function start(
    name: string,
    before = () => {},
  ): Promise<{ count: { heard: number }; stop: () => void; pod: ProbedPod }> {
    const uid = `closed-${name}`;
    const shape = { namespace: 'x', name, labels: { app: 'server' }, ports: [], uid };
    bed.api.put(PODS, podObject(shape, one!));
    const netns = bed.addNamespace(uid);
    const count = listen(netns);
    // Addresses are given in turn.
    const stop = hammer(`10.244.0.${next}`);
    await sleep(30);
    before();
    const { ips } = await one!.network.attach({ uid, namespace: 'x', name, netnsPath: netnsPath(netns) });
    assert.deepEqual(ips, [`10.244.0.${next}`]);
    next++;
    bed.api.put(PODS, podObject(shape, one!, ips));
    return { count, stop, pod: { ...shape, ips, netns, node: one! } };
  }
  let next = 3;

  test('the hammer hits a pod that is under no policy', async () => {
    const { count, stop } = await start('open');
    await until(() => count.heard > 20);
    stop();
  });

  test('at its start, with policies made a moment before, however late watches tell', async () => {
    for (let i = 0; i < 6; i++) {
      // Half of the times the node has no table yet.
      if (i % 2 === 0) {
        bed.api.lagMs.clear();
        bed.api.remove(NETWORK_POLICIES, 'x/deny');
        await until(() => !exists(new Nftables(one!.namespace)));
      }
      for (const late of ['networkpolicies', 'pods']) bed.api.lagMs.set(late, 400);
      const { count, stop } = await start(`fresh-${i}`, () =>
        put(policy('deny', 'x', { podSelector: {}, policyTypes: i % 3 ? ['Ingress'] : ['Ingress', 'Egress'] })),
      );
      await sleep(150);
      assert.equal(count.heard, 0);
      stop();
    }
    bed.api.lagMs.clear();
  });

  test('at its start, under a cluster-wide denial of its namespace by labels that both were given a moment before', async () => {
    for (let i = 0; i < 4; i++) {
      bed.api.lagMs.clear();
      bed.api.remove(NETWORK_POLICIES, 'x/deny');
      bed.api.remove(CLUSTER_NETWORK_POLICIES, 'deny');
      bed.api.put(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'x', labels: { ns: 'x' } } });
      if (i % 2 === 0) await until(() => !exists(new Nftables(one!.namespace)));
      for (const late of ['clusternetworkpolicies', 'pods', 'namespaces']) bed.api.lagMs.set(late, 400);
      const { count, stop } = await start(`tier-${i}`, () => {
        bed.api.put(NAMESPACES, {
          apiVersion: 'v1',
          kind: 'Namespace',
          metadata: { name: 'x', labels: { ns: 'x', zone: 'closed' } },
        });
        bed.api.put(CLUSTER_NETWORK_POLICIES, {
          apiVersion: 'policy.networking.k8s.io/v1alpha2',
          kind: 'ClusterNetworkPolicy',
          metadata: { name: 'deny', uid: `deny-${i}` },
          spec: {
            tier: i < 2 ? 'Admin' : 'Baseline',
            priority: 1,
            subject: { namespaces: { matchLabels: { zone: 'closed' } } },
            ingress: [{ action: 'Deny', from: [{ namespaces: {} }] }],
          },
        } as ClusterPolicy);
      });
      await sleep(150);
      assert.equal(count.heard, 0);
      stop();
    }
    bed.api.lagMs.clear();
    bed.api.remove(CLUSTER_NETWORK_POLICIES, 'deny');
    bed.api.put(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'x', labels: { ns: 'x' } } });
  });

  let victim: Awaited<ReturnType<typeof start>>;

  test('while policies change, and what a new one allows passes soon', async () => {
    put(denyAll());
    victim = await start('victim');
    for (let i = 0; i < 30; i++) {
      put(
        policy('more', 'x', {
          podSelector: i % 2 ? {} : { matchLabels: { app: 'server' } },
          ingress: [{ from: [{ namespaceSelector: { matchLabels: { ns: 'x' } } }], ports: [{ port: 8000 + i }] }],
        }),
      );
      if (i % 5 === 4) bed.api.remove(NETWORK_POLICIES, 'x/more');
      await sleep(10);
    }
    assert.equal(victim.count.heard, 0);
    put(policy('more', 'x', { podSelector: {}, ingress: [{ from: [{ namespaceSelector: {} }] }] }));
    await until(() => victim.count.heard > 20);
    bed.api.remove(NETWORK_POLICIES, 'x/more');
    // The nodes hear of it a moment later; from then on nothing comes.
    const silent = async () => {
      victim.count.heard = 0;
      await sleep(100);
      return victim.count.heard === 0;
    };
    const deadline = performance.now() + 10_000;
    while (!(await silent())) assert.ok(performance.now() < deadline, 'still open');
  });

  test('when somebody flushes, deletes or empties the table, which is back at once', async () => {
    const { namespace } = one!;
    const nft = new Nftables(namespace);
    // Somebody else: another process would do, another socket is enough.
    for (const command of [
      'flush ruleset',
      'delete table inet coxswain-policy',
      'flush table inet coxswain-policy',
      'flush chain inet coxswain-policy prerouting',
      'flush chain inet coxswain-policy refuse',
      'flush map inet coxswain-policy ingress-default4',
      'flush ruleset',
    ]) {
      nft.run(command);
      await until(() => has(nft, victim.pod.ips[0]!));
      await sleep(30);
      assert.equal(victim.count.heard, 0, command);
    }
  });

  test('when the agent is gone, restarts, and the table is flushed in between', async () => {
    const stopFirst = new AbortController();
    // A node with no agent but those made here.
    const [name, namespace, ips] = ['node-9', `${bed.switch}-9`, [nodeAddress(9)]];
    createNodeNamespace({ switch: bed.switch, name: namespace, ips });
    stops.push(() => deleteNodeNamespace({ switch: bed.switch, name: namespace }));
    bed.api.put<Node>(NODES, {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name },
      spec: { podCIDR: '10.244.8.0/24', podCIDRs: ['10.244.8.0/24'] },
      status: { addresses: [{ type: 'InternalIP', address: ips[0]! }] },
    });
    const stateDir = `${bed.directory}/second`;
    const first = bed.makeNetwork({ name, ips, namespace, stateDir });
    const running = first.run(stopFirst.signal);
    await until(() => first.notReadyReason() === undefined);
    const shape = { namespace: 'x', name: 'restarted', labels: { app: 'server' }, ports: [], uid: 'restarted' };
    bed.api.put(PODS, podObject(shape, { name }));
    const netns = bed.addNamespace('restarted');
    const count = listen(netns);
    const attached = await first.attach({
      uid: 'restarted',
      namespace: 'x',
      name: 'restarted',
      netnsPath: netnsPath(netns),
    });
    bed.api.put(PODS, podObject(shape, { name }, attached.ips));
    const stop = hammer(attached.ips[0]!);
    await sleep(50);
    stopFirst.abort();
    await running;
    await sleep(50);
    new Nftables(namespace).run('flush ruleset');
    await sleep(100);
    assert.equal(count.heard, 0);
    const second = bed.startNetwork({ name, ips, namespace, stateDir });
    await until(() => second.notReadyReason() === undefined);
    await until(() => has(new Nftables(namespace), attached.ips[0]!));
    await sleep(50);
    assert.equal(count.heard, 0);
    stop();
  });

  test('from frames that a neighbour makes itself', async () => {
    victim.stop();
    const [address] = victim.pod.ips as [string];
    withRoutes(near!.netns, routes => {
      const index = routes.linkIndex('eth0');
      routes.request([
        addRoute({ to: `${address}/32`, link: index }),
        addNeighbour({ index, address, mac: macOf(address) }),
      ]);
    });
    assert.equal(await ask(near!.netns, address, PORT, 300), 'timeout');
    assert.equal(victim.count.heard, 0);
  });

  test('the node itself always reaches its pods; other nodes do as policies say', async () => {
    const [address] = victim.pod.ips as [string];
    assert.notEqual(await ask(one!.namespace, address, PORT, 2000), 'timeout');
    victim.count.heard = 0;
    assert.equal(await ask(two!.namespace, address, PORT, 300), 'timeout');
    assert.equal(victim.count.heard, 0);
  });

  test('a connection that a new policy forbids ends, one that it allows goes on, replies need no rule', async () => {
    put(
      policy('deny', 'x', {
        podSelector: {},
        policyTypes: ['Ingress', 'Egress'],
        ingress: [{ from: [{ namespaceSelector: {} }] }],
      }),
    );
    const server = await startPod(bed, one!, { namespace: 'x', name: 'server', labels: { app: 'server' }, ports: [] });
    const echo = createServer(peer => {
      stops.push(() => peer.destroy());
      peer.on('error', () => {});
      peer.pipe(peer);
    }).listen({ fd: listenTcp({ namespace: server.netns, address: '0.0.0.0', port: 9000 }) });
    stops.push(() => echo.close());
    const dial = async (from: ProbedPod) => {
      const socket = connectTcp({ namespace: from.netns, address: server.ips[0]!, port: 9000 });
      await once(socket, 'connect');
      return socket.on('error', () => {});
    };
    // Another way than straight to the pod's frames, which the test before left behind.
    const other = await startPod(bed, one!, { namespace: 'y', name: 'goes', labels: { app: 'goes' }, ports: [] });
    const [stays, goes] = [await dial(far!), await dial(other)];
    put(
      policy('deny', 'x', {
        podSelector: {},
        policyTypes: ['Ingress', 'Egress'],
        ingress: [{ from: [{ namespaceSelector: {}, podSelector: { matchLabels: { app: 'far' } } }] }],
      }),
    );
    // Once nobody like it can begin, the change is in the kernel.
    const deadline = performance.now() + 10_000;
    while ((await ask(other.netns, server.ips[0]!, 9000, 200)) !== 'timeout')
      assert.ok(performance.now() < deadline, 'still open');
    let ended = false;
    goes.once('close', () => (ended = true));
    goes.on('data', () => assert.fail('a forbidden answer'));
    goes.write('a');
    stays.write('b');
    assert.equal(String((await once(stays, 'data'))[0]), 'b');
    await until(() => ended);
    stays.destroy();
  });

  const clusterPolicy = (spec: object) =>
    bed.api.put(CLUSTER_NETWORK_POLICIES, {
      apiVersion: 'policy.networking.k8s.io/v1alpha2',
      kind: 'ClusterNetworkPolicy',
      metadata: { name: 'deny', uid: `cluster-${++clusterPolicies}` },
      spec: { tier: 'Admin', priority: 1, subject: { namespaces: { matchLabels: { ns: 'x' } } }, ...spec },
    } as ClusterPolicy);
  let clusterPolicies = 0;

  test('to a pod of another node that a rule denies by its labels, though this node has not heard of it yet', async () => {
    for (const name of ['deny', 'more']) bed.api.remove(NETWORK_POLICIES, `x/${name}`);
    clusterPolicy({
      ingress: [{ action: 'Deny', from: [{ pods: { podSelector: { matchLabels: { app: 'enemy' } } } }] }],
    });
    const server = await startPod(bed, one!, { namespace: 'x', name: 'of-many', labels: {}, ports: [] });
    const count = listen(server.netns);
    await until(() => hasBlock(one!.namespace));
    for (let i = 0; i < 3; i++) {
      bed.api.lagMs.set('pods', 400);
      const enemy = await startPod(bed, two!, {
        namespace: 'y',
        name: `enemy-${i}`,
        labels: { app: 'enemy' },
        ports: [],
      });
      count.heard = 0;
      assert.equal(await askUdp(enemy.netns, server.ips[0]!, PORT, { timeoutMs: 100 }), 'timeout');
      assert.equal(count.heard, 0);
      const friend = await startPod(bed, two!, { namespace: 'y', name: `friend-${i}`, labels: {}, ports: [] });
      // Held back as well until it is known; then the one passes and the other does not.
      bed.api.lagMs.clear();
      const deadline = performance.now() + 10_000;
      while (count.heard === 0) {
        assert.ok(performance.now() < deadline, 'the friend stays shut out');
        await ask(friend.netns, server.ips[0]!, PORT, 200);
      }
      count.heard = 0;
      assert.equal(await ask(enemy.netns, server.ips[0]!, PORT, 100), 'timeout');
      assert.equal(count.heard, 0);
    }
    // A node has no labels of a pod, and is none.
    assert.notEqual(await ask(two!.namespace, server.ips[0]!, PORT, 2000), 'timeout');
  });

  test("to the pod's own node, where a cluster-wide rule denies it; the node still reaches the pod", async () => {
    const count = listen(one!.namespace);
    const pod = await startPod(bed, one!, { namespace: 'x', name: 'caged', labels: {}, ports: [] });
    const reaches = async () => {
      count.heard = 0;
      await ask(pod.netns, one!.ip, PORT, 300);
      return count.heard > 0;
    };
    const becomes = async (expected: boolean, what: string) => {
      const deadline = performance.now() + 10_000;
      while ((await reaches()) !== expected) assert.ok(performance.now() < deadline, what);
    };
    for (const [name, to] of [
      ['nodes', { nodes: {} }],
      ['networks', { networks: ['0.0.0.0/0'] }],
    ] as const) {
      clusterPolicy({ egress: [{ action: 'Deny', to: [to] }] });
      await becomes(false, `${name}: the pod reaches its node`);
      const inside = listen(pod.netns);
      assert.notEqual(await ask(one!.namespace, pod.ips[0]!, PORT, 2000), 'timeout', name);
      assert.ok(inside.heard > 0);
      stops.splice(-2).forEach(stop => void stop());
      clusterPolicy({
        egress: [
          { action: 'Accept', to: [to], protocols: [{ tcp: { destinationPort: { number: PORT } } }] },
          { action: 'Deny', to: [to] },
        ],
      });
      await becomes(true, `${name}: an earlier rule accepts`);
    }
    // A NetworkPolicy never closes this way.
    bed.api.remove(CLUSTER_NETWORK_POLICIES, 'deny');
    put(denyAll());
    await until(() => has(new Nftables(one!.namespace), pod.ips[0]!));
    await becomes(true, 'a NetworkPolicy keeps the pod from its node');
  });

  test('an address that no pod has leads nowhere', async () => {
    assert.equal(await askUdp(far!.netns, '10.244.0.200', PORT, { timeoutMs: 150 }), 'timeout');
  });
});

function exists(nft: Nftables): boolean {
  return nft.run('list tables').includes('coxswain-policy');
}

/** Whether addresses of unknown pods are held back. */
function hasBlock(namespace: string): boolean {
  try {
    return new Nftables(namespace).run('list map inet coxswain-policy ingress-block4').includes('elements');
  } catch {
    return false;
  }
}

function has(nft: Nftables, address: string): boolean {
  try {
    return (
      nft.run('list map inet coxswain-policy ingress-default4').includes(address) &&
      nft.run('list chain inet coxswain-policy prerouting').includes('goto egress')
    );
  } catch {
    return false;
  }
}
