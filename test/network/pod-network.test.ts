/** The pod network in real namespaces: pods of one node, of two nodes, nodes, the world outside, restarts. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import type { Node } from '../../src/api/core/v1.gen.ts';
import { silentLogger } from '../../src/base/log.ts';
import { InformerFactory } from '../../src/client/informer.ts';
import { NODES } from '../../src/client/resources.ts';
import { GonePods } from '../../src/network/gone-pods.ts';
import { VTEP_MAC_ANNOTATION } from '../../src/network/node-network.ts';
import { POD_BRIDGE, PodLinks } from '../../src/network/pod-links.ts';
import { switchAddress } from '../../src/network/segment.ts';
import { withRoutes } from '../../src/sys/netlink.ts';
import { netnsPath } from '../../src/sys/netns.ts';
import { Nfnetlink } from '../../src/sys/nfnetlink.ts';
import { Nftables } from '../../src/sys/nftables.ts';
import { readSysctl, writeSysctls } from '../../src/sys/sysctl.ts';
import { ask, askUdp, Bed, type BedNode, type BedPod, openUdpClient, root, until, untilAnswer } from './bed.ts';

for (const mode of ['vxlan', 'routes'] as const) {
  describe(`pod network, ${mode}`, { skip: !root }, () => {
    let bed: Bed;
    let nodes: BedNode[];
    let pods: BedPod[];
    before(async () => {
      bed = new Bed();
      nodes = [await bed.addNode({ mode }), await bed.addNode({ mode })];
      pods = [await bed.addPod(nodes[0]!), await bed.addPod(nodes[0]!), await bed.addPod(nodes[1]!)];
      for (const pod of pods) bed.serve(pod.namespace, 80, pod.uid);
      await until(() =>
        nodes.every(node => withRoutes(node.namespace, routes => routes.routes({ protocol: 112 }).length === 1)),
      );
    });
    after(() => bed.close());

    test('pods have addresses of their node', () => {
      assert.deepEqual(
        pods.map(pod => pod.ip),
        ['10.244.0.2', '10.244.0.3', '10.244.1.2'],
      );
    });
    test('every pod reaches every pod and itself, without NAT', async () => {
      for (const from of pods)
        for (const to of pods) assert.equal(await ask(from.namespace, to.ip, 80), `${to.uid} ${from.ip}`);
    });
    test('the same when the kernel filters bridged frames', async () => {
      writeSysctls(nodes[0]!.namespace, { 'bridge/bridge-nf-call-iptables': '1' });
      for (const from of pods)
        for (const to of pods) assert.equal(await ask(from.namespace, to.ip, 80), `${to.uid} ${from.ip}`);
      writeSysctls(nodes[0]!.namespace, { 'bridge/bridge-nf-call-iptables': '0' });
    });
    test('nodes reach pods, pods reach nodes, with their own addresses', async () => {
      for (const node of nodes) {
        for (const pod of pods) assert.match(await ask(node.namespace, pod.ip, 80), new RegExp(`^${pod.uid} `));
        bed.serve(node.namespace, 90, node.name);
        for (const pod of pods) assert.equal(await ask(pod.namespace, node.ip, 90), `${node.name} ${pod.ip}`);
      }
    });
    test('the world outside sees the node', async () => {
      bed.serve(bed.switch, 91, 'world');
      assert.equal(await ask(pods[0]!.namespace, '172.30.0.1', 91), 'world 172.30.0.2');
      assert.equal(await ask(pods[2]!.namespace, '172.30.0.1', 91), 'world 172.30.0.3');
    });
    test('host ports lead to their pod, from the world, pods and the node, until they are closed', async () => {
      const [node, other] = [nodes[0]!, nodes[1]!];
      const [pod, neighbour] = [pods[0]!, pods[1]!];
      const port = { protocol: 'TCP', hostPort: 8081, podIp: pod.ip, port: 80 } as const;
      await node.network.publish([
        port,
        { ...port, hostPort: 8082, hostIp: node.ip },
        { ...port, hostPort: 8083, hostIp: '192.0.2.1' },
      ]);
      for (const hostPort of [8081, 8082]) {
        assert.equal(await ask(bed.switch, node.ip, hostPort), `${pod.uid} 172.30.0.1`);
        assert.match(await ask(node.namespace, node.ip, hostPort), new RegExp(`^${pod.uid} `));
        assert.match(await ask(other.namespace, node.ip, hostPort), new RegExp(`^${pod.uid} `));
        for (const from of [neighbour, pod, pods[2]!])
          assert.match(await ask(from.namespace, node.ip, hostPort), new RegExp(`^${pod.uid} `), from.uid);
      }
      assert.match(await ask(bed.switch, node.ip, 8083), /refused/i);
      // There by a process of its own, which is being started.
      await untilAnswer(() => ask(node.namespace, '127.0.0.1', 8081), new RegExp(`^${pod.uid} `));
      assert.match(await ask(node.namespace, '127.0.0.1', 8082), /refused/i);
      // Somebody removes it: it comes back.
      new Nftables(node.namespace).run('delete table ip coxswain-host-ports');
      const deadline = performance.now() + 3000;
      while (!(await ask(bed.switch, node.ip, 8081)).startsWith(pod.uid)) assert.ok(performance.now() < deadline);
      await node.network.publish([]);
      await untilAnswer(() => ask(node.namespace, '127.0.0.1', 8081), /refused/i);
      assert.match(await ask(bed.switch, node.ip, 8081), /refused/i);
    });
    test('a UDP host port, at its protocol only; a flow follows the port to its next pod', async () => {
      const [node, [first, second]] = [nodes[0]!, pods];
      const servers = [first!, second!].map(pod => bed.serveUdp(pod.namespace, 5300, pod.uid));
      const to = (podIp: string) => node.network.publish([{ protocol: 'UDP', hostPort: 5301, podIp, port: 5300 }]);
      await to(first!.ip);
      const socket = openUdpClient(bed.switch);
      const local = openUdpClient(node.namespace);
      assert.match(await askUdp(bed.switch, node.ip, 5301, { socket }), new RegExp(`^${first!.uid} `));
      const atLoopback = (pod: BedPod) =>
        untilAnswer(() => askUdp(node.namespace, '127.0.0.1', 5301, { socket: local }), new RegExp(`^${pod.uid} `));
      await atLoopback(first!);
      assert.match(await ask(bed.switch, node.ip, 5301), /refused/i);
      await to(second!.ip);
      assert.match(await askUdp(bed.switch, node.ip, 5301, { socket }), new RegExp(`^${second!.uid} `));
      await atLoopback(second!);
      await node.network.publish([]);
      for (const each of [socket, local, ...servers]) each.close();
    });
    test('large answers over UDP and localhost inside a pod', async () => {
      const server = bed.serveUdp(pods[2]!.namespace, 53, 'x'.repeat(8000));
      assert.equal((await askUdp(pods[0]!.namespace, pods[2]!.ip, 53)).length, 8000 + 1 + pods[0]!.ip.length);
      assert.equal(await ask(pods[0]!.namespace, '127.0.0.1', 80), `${pods[0]!.uid} 127.0.0.1`);
      server.close();
    });
  });
}

for (const families of [['IPv4', 'IPv6'], ['IPv6', 'IPv4'], ['IPv6']] as const) {
  for (const mode of ['vxlan', 'routes'] as const) {
    describe(`pod network of ${families.join(' and ')}, ${mode}`, { skip: !root }, () => {
      let bed: Bed;
      let nodes: BedNode[];
      let pods: BedPod[];
      before(async () => {
        bed = new Bed(families);
        nodes = [await bed.addNode({ mode }), await bed.addNode({ mode })];
        pods = [await bed.addPod(nodes[0]!), await bed.addPod(nodes[0]!), await bed.addPod(nodes[1]!)];
        for (const pod of pods) bed.serve(pod.namespace, 80, pod.uid);
        await until(() =>
          nodes.every(
            node => withRoutes(node.namespace, routes => routes.routes({ protocol: 112 }).length) === families.length,
          ),
        );
      });
      after(() => bed.close());

      test('pods have an address of each range of their node, in its order', () => {
        const expected = [
          { IPv4: '10.244.0.2', IPv6: 'fd00:10:244:1::2' },
          { IPv4: '10.244.0.3', IPv6: 'fd00:10:244:1::3' },
          { IPv4: '10.244.1.2', IPv6: 'fd00:10:244:2::2' },
        ];
        assert.deepEqual(
          pods.map(pod => pod.ips),
          expected.map(each => families.map(family => each[family])),
        );
      });
      test('every pod reaches every pod and itself, without NAT', async () => {
        for (const from of pods)
          for (const to of pods)
            for (const [at, ip] of to.ips.entries())
              assert.equal(await ask(from.namespace, ip, 80), `${to.uid} ${from.ips[at]}`);
      });
      test('nodes reach pods, pods reach nodes, with their own addresses', async () => {
        for (const node of nodes) {
          bed.serve(node.namespace, 90, node.name);
          for (const pod of pods)
            for (const [at, ip] of pod.ips.entries()) {
              assert.match(await ask(node.namespace, ip, 80), new RegExp(`^${pod.uid} `));
              assert.equal(await ask(pod.namespace, node.ips[at]!, 90), `${node.name} ${ip}`);
            }
        }
      });
      test('the world outside sees the node', async () => {
        bed.serve(bed.switch, 91, 'world');
        for (const [at, segment] of bed.segments.entries())
          assert.equal(await ask(pods[2]!.namespace, switchAddress(segment), 91), `world ${nodes[1]!.ips[at]}`);
      });
      test('who connects outside, where there is no way, is refused at once, again and again', async () => {
        for (const family of families) {
          const outside = family === 'IPv4' ? '192.0.2.1' : '2001:db8::1';
          for (const from of [pods[0]!, nodes[0]!])
            for (let i = 0; i < 20; i++) assert.equal(await ask(from.namespace, outside, 80, 20_000), 'ECONNREFUSED');
          const socket = openUdpClient(pods[2]!.namespace, family === 'IPv4' ? 4 : 6);
          const refused = once(socket, 'error').catch((error: Error) => [error]);
          socket.connect(53, outside);
          await once(socket, 'connect');
          socket.send('?', () => {});
          assert.equal((await refused)[0].code, 'ECONNREFUSED');
          socket.close();
        }
      });

      test('a pod whose neighbour plays the router does not believe it', () => {
        for (const key of ['accept_ra', 'accept_redirects'])
          assert.equal(readSysctl(pods[0]!.namespace, `ipv6/conf/eth0/${key}`), '0');
      });
    });
  }
}

describe('pod network, life', { skip: !root }, () => {
  let bed: Bed;
  before(() => {
    bed = new Bed(['IPv4', 'IPv6']);
  });
  after(() => bed.close());

  test('attach is idempotent, detach works without the namespace, addresses are not reused at once', async () => {
    const node = await bed.addNode();
    const pod = await bed.addPod(node);
    bed.serve(pod.namespace, 80, 'same');
    const again = await node.network.attach({
      uid: pod.uid,
      namespace: 'default',
      name: pod.uid,
      netnsPath: netnsPath(pod.namespace),
    });
    assert.deepEqual(again.ips, pod.ips);
    assert.equal(await ask(node.namespace, pod.ip, 80), 'same 10.244.0.1');
    bed.removeNamespace(pod.namespace);
    await node.network.detach(pod.uid);
    await node.network.detach(pod.uid);
    const other = await bed.addPod(node);
    for (const ip of other.ips) assert.ok(!pod.ips.includes(ip));
  });

  test('a restarted agent keeps pods and addresses, and retain frees the rest', async () => {
    const node = bed.nodes[0]!;
    const [kept, lost] = [await bed.addPod(node), await bed.addPod(node)];
    bed.serve(kept.namespace, 80, 'kept');
    const early = bed.makeNetwork({
      ...node,
      informers: new InformerFactory({ transport: bed.api, log: silentLogger }),
    });
    assert.match(early.notReadyReason() ?? '', /no pod address range/);
    await assert.rejects(early.attach({ uid: 'x', namespace: '', name: '', netnsPath: '' }), /not ready/);
    const network = bed.startNetwork({ ...node });
    await network.retain(new Set([kept.uid]));
    for (const ip of kept.ips) assert.match(await ask(node.namespace, ip, 80), /^kept /);
    await until(() => network.notReadyReason() === undefined);
    const next = await network.attach({ uid: kept.uid, namespace: '', name: '', netnsPath: netnsPath(kept.namespace) });
    assert.deepEqual(next.ips, kept.ips);
    const links = withRoutes(node.namespace, routes => {
      const bridge = routes.linkIndex(POD_BRIDGE);
      return routes.links().filter(link => link.master === bridge).length;
    });
    assert.equal(links, 1);
    for (const ip of lost.ips) assert.equal(await ask(node.namespace, ip, 80, 200), 'EHOSTUNREACH');
  });

  test('addresses that are translated to a neighbour or to the pod itself, whether bridged frames are filtered or not', async () => {
    const node = bed.nodes[0]!;
    const [pod, neighbour] = [await bed.addPod(node), await bed.addPod(node)];
    for (const { namespace, uid } of [pod, neighbour]) bed.serve(namespace, 80, uid);
    new Nftables(node.namespace).run(`table ip translate {
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 10.96.0.1 dnat to ${neighbour.ip}
    ip daddr 10.96.0.2 dnat to ${pod.ip}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ct status dnat ip saddr ${pod.ip} ip daddr ${pod.ip} masquerade
  }
}
`);
    const answers = async (timeoutMs?: number) => [
      await ask(pod.namespace, '10.96.0.1', 80, timeoutMs),
      (await ask(pod.namespace, '10.96.0.2', 80, timeoutMs)).split(' ')[0],
    ];
    const expected = [`${neighbour.uid} ${pod.ip}`, pod.uid];
    assert.deepEqual(await answers(), expected);
    // As Docker does; the node follows within its next look.
    writeSysctls(node.namespace, { 'bridge/bridge-nf-call-iptables': '1' });
    const deadlineMs = performance.now() + 15_000;
    while (performance.now() < deadlineMs && (await answers(200))[0] !== expected[0]);
    assert.deepEqual(await answers(), expected);
  });

  test('peers come, change their MAC, and go', async () => {
    const node = bed.nodes[0]!;
    const peers = () => withRoutes(node.namespace, routes => routes.routes({ protocol: 112 }).map(({ to }) => to));
    const other: Node = {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: 'other', annotations: { [VTEP_MAC_ANNOTATION]: '0a:58:00:00:00:07' } },
      spec: { podCIDR: '10.244.7.0/24' },
      status: { addresses: [{ type: 'InternalIP', address: '172.30.0.9' }] },
    };
    bed.api.put(NODES, other);
    await until(() => peers().includes('10.244.7.0/24'));
    bed.api.put(NODES, {
      ...other,
      metadata: { name: 'other', annotations: { [VTEP_MAC_ANNOTATION]: '0a:58:00:00:00:08' } },
    });
    const macs = () =>
      withRoutes(node.namespace, routes =>
        routes
          .forwarding()
          .filter(({ address }) => address === '172.30.0.9')
          .map(({ mac }) => mac),
      );
    await until(() => macs().includes('0a:58:00:00:00:08'));
    assert.deepEqual(macs(), ['0a:58:00:00:00:08']);
    bed.api.remove(NODES, 'other');
    await until(() => peers().length === 0);
    assert.deepEqual(macs(), []);
  });

  test('who connects to a pod that is gone is told at once, until another has its address', async () => {
    const node = await bed.addNode();
    const other = await bed.addNode();
    const [asking, elsewhere, lost] = [await bed.addPod(node), await bed.addPod(other), await bed.addPod(node)];
    bed.serve(lost.namespace, 80, 'here');
    const askers = [node, other, asking, elsewhere];
    for (const { namespace } of askers)
      for (const ip of lost.ips) await untilAnswer(() => ask(namespace, ip, 80), /^here /);
    await node.network.detach(lost.uid);
    for (let i = 0; i < 20; i++)
      for (const asker of askers)
        for (const ip of lost.ips)
          assert.equal(
            await ask(asker.namespace, ip, 80, 500),
            asker === node ? 'EHOSTUNREACH' : 'ECONNREFUSED',
            `${asker.namespace} ${ip}`,
          );
    // As `attach` does; it would take the pool a turn through the whole range to give the address again.
    const podCidrs = (bed.api.read(NODES, node.name) as Node).spec!.podCIDRs!;
    const raw = new Nfnetlink(node.namespace);
    withRoutes(node.namespace, routes => {
      const gone = new GonePods({ routes, raw, nftables: new Nftables(node.namespace) });
      gone.configure(podCidrs);
      gone.remove(lost.ips);
      gone.remove(lost.ips);
      // More than are kept: the oldest go, from both.
      const many = Array.from({ length: 1010 }, (_, at) => `${lost.ips[1]!.replace(/::.*/, '::')}1:${at.toString(16)}`);
      for (const ip of many) gone.add([ip]);
      const count = () => [
        routes.routes({ protocol: 113 }).length,
        raw.elements({ family: 1, table: 'coxswain-gone-pods' }, 'ipv6').length,
      ];
      assert.deepEqual(count(), [1000, 1000]);
      gone.remove(many);
      assert.deepEqual(count(), [0, 0]);
      const links = new PodLinks({ namespace: node.namespace, routes });
      links.configure({ podCidrs, mtu: 1450 });
      links.attach({ uid: 'next', ips: lost.ips, netnsPath: netnsPath(lost.namespace) });
    });
    raw.close();
    for (const { namespace } of askers) await untilAnswer(() => ask(namespace, lost.ip, 80), /^here /);
  });
});
