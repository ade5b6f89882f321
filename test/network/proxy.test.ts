/** Services through the kernel, of each family, with real sockets in real namespaces: two nodes, pods, the proxy on each. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SERVICES } from '../../src/client/resources.ts';
import { formatAddress, parseAddress } from '../../src/sys/address.ts';
import { NFPROTO_IPV4, NFPROTO_IPV6, Nfnetlink } from '../../src/sys/nfnetlink.ts';
import { Nftables } from '../../src/sys/nftables.ts';
import { ask, askUdp, openUdpClient, root, until } from './bed.ts';
import { ServiceBed } from './service-bed.ts';

const TCP = [{ port: 80, targetPort: 8080 }];
const UDP = [{ port: 53, targetPort: 8053, protocol: 'UDP' }];
const dying = { conditions: { ready: false, serving: true, terminating: true } };

for (const family of ['IPv4', 'IPv6'] as const) {
  describe(`services, ${family}`, { skip: !root }, () => {
    const v4 = family === 'IPv4';
    const vip = (n: number) => (v4 ? `10.96.0.${n}` : `fd00:10:96::${n.toString(16)}`);
    const outer = (n: number) => (v4 ? `192.0.2.${n}` : `2001:db8::${n.toString(16)}`);
    const wildcard = `${v4 ? 'ip' : 'ip6'} coxswain-proxy`;
    let s: ServiceBed;
    let outside: string;

    before(async () => {
      s = await new ServiceBed(['IPv4', 'IPv6'], family).start();
      outside = s.bed.switch;
    });
    after(() => s.close());

    test('a cluster IP reaches all ready endpoints from pods of both nodes, and keeps the pod address', async () => {
      const { a, b, c } = s;
      await s.put({ name: 'web', clusterIP: vip(20), ports: TCP }, [
        s.on(a),
        s.on(b),
        s.on(c),
        s.on({ ...a, ips: ['10.244.0.99', 'fd00:10:244:1::99'] }, { ready: false }),
      ]);
      for (const [from, self] of [
        [c, 'c'],
        [b, 'b'],
      ] as const) {
        const answers = await s.answers(from.namespace, vip(20), 80, 40);
        assert.deepEqual(
          answers.map(text => text[0]),
          ['a', 'b', 'c'],
        );
        for (const answer of answers) {
          const [who, sender] = answer.split(' ');
          // To itself a pod must not come as itself.
          assert.equal(sender === s.ipOf(from), who !== self, answer);
        }
      }
    });

    test('the nodes themselves', async () => {
      assert.deepEqual(await s.answerers(s.one.namespace, vip(20), 80, 40), ['a', 'b', 'c']);
    });

    test('a pod reaches itself through its Service', async () => {
      await s.put({ name: 'self', clusterIP: vip(21), ports: TCP }, [s.on(s.a)]);
      assert.match(await ask(s.a.namespace, vip(21), 80), /^a /);
    });

    test('UDP, and a flow that outlives its endpoint moves on', async () => {
      const { a, b, c } = s;
      const spec = { name: 'dns', clusterIP: vip(22), ports: UDP };
      await s.put(spec, [s.on(a)]);
      const socket = openUdpClient(b.namespace, v4 ? 4 : 6);
      const answer = () => askUdp(b.namespace, vip(22), 53, { socket });
      assert.equal(await answer(), `a ${s.ipOf(b)}`);
      await s.put(spec, [s.on(a), s.on(c)]);
      assert.equal(await answer(), `a ${s.ipOf(b)}`, 'a new endpoint must not move a flow');
      await s.put(spec, [s.on(c)]);
      assert.equal(await answer(), `c ${s.ipOf(b)}`);
      await s.put(spec, []);
      assert.notEqual(await answer(), `c ${s.ipOf(b)}`);
      await s.put(spec, [s.on(a)]);
      assert.equal(await answer(), `a ${s.ipOf(b)}`, 'a flow of the time without endpoints must not stay lost');
      await s.remove('dns');
      assert.notEqual(await answer(), `a ${s.ipOf(b)}`);
      socket.close();
    });

    test('UDP by a node port, from outside: the flow moves on too', async () => {
      const { a, c } = s;
      const spec = {
        name: 'dnsport',
        type: 'NodePort',
        clusterIP: vip(32),
        ports: [{ ...UDP[0]!, nodePort: 30053 }],
      };
      const socket = openUdpClient(outside, v4 ? 4 : 6);
      const answer = async () => (await askUdp(outside, s.ipOf(s.one), 30053, { socket }))[0];
      await s.put(spec, [s.on(a)]);
      assert.equal(await answer(), 'a');
      await s.put(spec, [s.on(c)]);
      assert.equal(await answer(), 'c');
      socket.close();
    });

    test('without endpoints a connection is refused at once, to an unknown port too', async () => {
      await s.put({ name: 'empty', clusterIP: vip(23), ports: TCP }, []);
      for (const from of [s.a.namespace, s.one.namespace]) {
        assert.equal(await ask(from, vip(23), 80), 'ECONNREFUSED');
        assert.equal(await ask(from, vip(20), 81), 'ECONNREFUSED');
      }
    });

    test('endpoints that serve while terminating are used when none is ready', async () => {
      const { a, b, c } = s;
      await s.put({ name: 'dying', clusterIP: vip(24), ports: TCP }, [s.on(a), s.on(b, dying)]);
      assert.deepEqual(await s.answerers(c.namespace, vip(24), 80), ['a']);
      await s.put({ name: 'dying', clusterIP: vip(24), ports: TCP }, [s.on(b, dying)]);
      assert.deepEqual(await s.answerers(c.namespace, vip(24), 80), ['b']);
    });

    test('a node port on every node, masqueraded', async () => {
      const { one, two, a, b, c } = s;
      const spec = {
        name: 'np',
        type: 'NodePort',
        clusterIP: vip(25),
        ports: [{ ...TCP[0]!, nodePort: 30080 }],
      };
      await s.put(spec, [s.on(a), s.on(c)]);
      for (const node of [one, two]) {
        const answers = await s.answers(outside, s.ipOf(node), 30080);
        assert.deepEqual(new Set(answers.map(text => text[0])), new Set(['a', 'c']));
        const pods = s.bed.clusterCidrs.find(range => range.includes(':') !== v4)!;
        for (const answer of answers) assert.ok(sharesHead(answer.slice(2), pods), `not masqueraded: ${answer}`);
      }
      assert.deepEqual(await s.answerers(b.namespace, s.ipOf(two), 30080), ['a', 'c']);
      assert.deepEqual(await s.answerers(one.namespace, s.ipOf(one), 30080), ['a', 'c']);
      assert.equal(await ask(outside, s.ipOf(one), 30081), 'ECONNREFUSED');
      await s.put(spec, []);
      assert.equal(await ask(outside, s.ipOf(one), 30080), 'ECONNREFUSED');
      await s.remove('np');
    });

    test('external traffic policy Local keeps the client address and stays on the node', async () => {
      const { one, two, a, b, c } = s;
      const spec = {
        name: 'local',
        type: 'NodePort',
        clusterIP: vip(26),
        externalTrafficPolicy: 'Local',
        ports: [{ ...TCP[0]!, nodePort: 30081 }],
      };
      await s.put(spec, [s.on(a), s.on(b)]);
      const answers = await s.answers(outside, s.ipOf(one), 30081);
      assert.deepEqual(
        answers.map(text => text[0]),
        ['a', 'b'],
      );
      const senders = new Set(answers.map(text => text.slice(2)));
      assert.equal(senders.size, 1);
      assert.ok(s.bed.segments.some(segment => segment.includes(':') !== v4 && sharesHead([...senders][0]!, segment)));
      assert.equal(await ask(outside, s.ipOf(two), 30081, 300), 'timeout');
      // Pods and the node itself are no outsiders.
      assert.deepEqual(await s.answerers(c.namespace, s.ipOf(two), 30081), ['a', 'b']);
      assert.deepEqual(await s.answerers(two.namespace, s.ipOf(two), 30081), ['a', 'b']);
      // While the last of the node's endpoints terminates it still serves outsiders.
      await s.put(spec, [s.on(a, dying), s.on(c)]);
      assert.deepEqual(await s.answerers(outside, s.ipOf(one), 30081), ['a']);
    });

    test('internal traffic policy Local', async () => {
      const { a, b, c } = s;
      const spec = { name: 'inner', clusterIP: vip(27), internalTrafficPolicy: 'Local', ports: TCP };
      await s.put(spec, [s.on(a), s.on(c)]);
      assert.deepEqual(await s.answers(b.namespace, vip(27), 80), [`a ${s.ipOf(b)}`]);
      await s.put(spec, [s.on(a, dying), s.on(c)]);
      assert.deepEqual(await s.answers(b.namespace, vip(27), 80), [`a ${s.ipOf(b)}`]);
      await s.put(spec, [s.on(c)]);
      assert.equal(await ask(b.namespace, vip(27), 80, 300), 'timeout');
    });

    test('session affinity, until the endpoint goes or the time is over', async () => {
      const { one, a, b, c } = s;
      const spec = {
        name: 'sticky',
        type: 'NodePort',
        clusterIP: vip(28),
        sessionAffinity: 'ClientIP',
        ports: [{ ...TCP[0]!, nodePort: 30082 }],
      };
      const pods = { a: s.on(a), b: s.on(b), c: s.on(c) };
      await s.put(spec, Object.values(pods));
      const [chosen, ...others] = await s.answerers(b.namespace, vip(28), 80, 25);
      assert.deepEqual(others, []);
      assert.equal((await s.answerers(outside, s.ipOf(one), 30082, 25)).length, 1);
      // More endpoints move nobody.
      const { [chosen as 'a']: kept, ...rest } = pods;
      await s.put(spec, [kept]);
      await s.put(spec, Object.values(pods));
      assert.deepEqual(await s.answerers(b.namespace, vip(28), 80, 25), [chosen]);
      await s.put(spec, Object.values(rest));
      const next = await s.answerers(b.namespace, vip(28), 80, 25);
      assert.equal(next.length, 1);
      assert.notEqual(next[0], chosen);
    });

    test('affinity is one memory for all addresses of a Service’s port, and another for each other port', async () => {
      const { one, a, b, c } = s;
      const spec = {
        name: 'one-memory',
        type: 'LoadBalancer',
        clusterIP: vip(35),
        sessionAffinity: 'ClientIP',
        externalIPs: [outer(40)],
        ingress: [outer(41)],
        ports: [
          { ...TCP[0]!, name: 'x', nodePort: 30084 },
          { ...TCP[0]!, name: 'y', port: 81, nodePort: 30085 },
        ],
      };
      const pods = [s.on(a), s.on(b), s.on(c)];
      await s.put(spec, pods);
      const ways = (x: 0 | 1) =>
        [
          [vip(35), 80 + x],
          [s.ipOf(one), 30084 + x],
          [outer(40), 80 + x],
          [outer(41), 80 + x],
        ] as const;
      const all = async (from: string, x: 0 | 1 = 0) =>
        (await Promise.all(ways(x).map(([address, port]) => s.answerers(from, address, port, 6)))).flat();
      // Each way first once: it does not matter by which a client comes.
      for (const way of [0, 1, 2, 3]) {
        await s.remove(spec.name);
        await s.put(spec, pods);
        const [address, port] = ways(0)[way]!;
        const [first] = await ask(b.namespace, address, port);
        assert.deepEqual(await all(b.namespace), [first, first, first, first], `first by ${address}:${port}`);
      }
      // The ports choose apart: over many clients (anew each time) not always alike.
      let differs = false;
      for (let i = 0; i < 40 && !differs; i++) {
        await s.remove(spec.name);
        await s.put(spec, pods);
        differs = (await ask(b.namespace, vip(35), 80))[0] !== (await ask(b.namespace, vip(35), 81))[0];
      }
      assert.ok(differs);
      await s.remove(spec.name);
    });

    test('affinity with external traffic policy Local: outsiders stay with one of this node’s, pods with any', async () => {
      const { one, a, b, c } = s;
      const spec = {
        name: 'sticky-local',
        type: 'NodePort',
        clusterIP: vip(36),
        sessionAffinity: 'ClientIP',
        externalTrafficPolicy: 'Local',
        ports: [{ ...TCP[0]!, nodePort: 30086 }],
      };
      await s.put(spec, [s.on(c)]);
      // Remembered with an endpoint of the other node, which an outsider by the node port must not get.
      assert.deepEqual(await s.answerers(one.namespace, vip(36), 80, 3), ['c']);
      await s.put(spec, [s.on(a), s.on(b), s.on(c)]);
      const [local, ...others] = await s.answerers(outside, s.ipOf(one), 30086, 20);
      assert.deepEqual(others, []);
      assert.match(local!, /^[ab]$/);
      assert.deepEqual(await s.answerers(one.namespace, s.ipOf(one), 30086, 5), ['c']);
      // It goes, another of this node's takes its place; so with the policy for inside.
      const rest = [local === 'a' ? s.on(b) : s.on(a), s.on(c)];
      await s.put(spec, rest);
      assert.deepEqual(await s.answerers(outside, s.ipOf(one), 30086, 5), [local === 'a' ? 'b' : 'a']);
      await s.put({ ...spec, internalTrafficPolicy: 'Local' }, rest);
      assert.deepEqual(await s.answerers(one.namespace, vip(36), 80, 5), [local === 'a' ? 'b' : 'a']);
      await s.remove(spec.name);
    });

    test('affinity is kept for its time after the last connection, in the kernel itself', async () => {
      const { one, a, b } = s;
      const spec = (timeoutSeconds: number) => ({
        name: 'brief',
        clusterIP: vip(29),
        sessionAffinity: 'ClientIP',
        sessionAffinityConfig: { clientIP: { timeoutSeconds } },
        ports: TCP,
      });
      const raw = new Nfnetlink(one.namespace);
      const remembered = () =>
        raw
          .elements({ family: v4 ? NFPROTO_IPV4 : NFPROTO_IPV6, table: 'coxswain-proxy' }, 'affinity')
          .filter(({ key }) => {
            const size = v4 ? 4 : 16;
            return formatAddress(key.subarray(size, 2 * size)) === vip(29);
          })
          .map(({ key }) => formatAddress(key.subarray(0, v4 ? 4 : 16)));
      await s.put(spec(1), [s.on(a), s.on(b)]);
      const [first] = await s.answerers(b.namespace, vip(29), 80, 5);
      assert.deepEqual(remembered(), [s.ipOf(b)]);
      await until(() => remembered().length === 0, 5000);
      // Forgotten clients are spread anew: over many times one gets both.
      const seen = new Set([first]);
      for (let i = 0; i < 12 && seen.size < 2; i++) {
        seen.add((await ask(b.namespace, vip(29), 80))[0]);
        await until(() => remembered().length === 0, 5000);
      }
      assert.equal(seen.size, 2);
      raw.close();
    });

    test('external and load-balancer addresses, with source ranges', async () => {
      const { one, a, b, c } = s;
      const range = v4 ? '10.244.1.0/24' : 'fd00:10:244:2::/64';
      await s.put(
        {
          name: 'lb',
          type: 'LoadBalancer',
          clusterIP: vip(30),
          externalIPs: [outer(10)],
          ingress: [outer(20), { ip: outer(21), ipMode: 'Proxy' }],
          loadBalancerSourceRanges: [range],
          ports: TCP,
        },
        [s.on(a)],
      );
      assert.match(await ask(b.namespace, outer(10), 80), /^a /);
      assert.doesNotMatch(await ask(b.namespace, outer(10), 80), new RegExp(`${s.ipOf(b)}$`));
      assert.equal(await ask(b.namespace, outer(20), 80, 300), 'timeout');
      assert.equal(await ask(one.namespace, outer(20), 80, 300), 'timeout');
      assert.match(await ask(c.namespace, outer(20), 80), /^a /);
      // Mode Proxy: the node must not short-cut the load balancer.
      assert.notEqual((await ask(c.namespace, outer(21), 80, 300))[0], 'a');
      await s.remove('lb');
    });

    test('rules come back at once when somebody flushes, deletes or changes them', async () => {
      const nftables = new Nftables(s.one.namespace);
      const raw = new Nfnetlink(s.one.namespace);
      const elements = () => {
        try {
          return raw.elements({ family: v4 ? NFPROTO_IPV4 : NFPROTO_IPV6, table: 'coxswain-proxy' }, 'services').length;
        } catch {
          return 0;
        }
      };
      const whole = elements();
      assert.ok(whole > 1);
      for (const command of [
        'flush ruleset',
        `delete table ${wildcard}`,
        `flush map ${wildcard} services`,
        `flush chain ${wildcard} nat-prerouting`,
      ]) {
        nftables.run(command);
        await until(
          () => elements() === whole && /jump choose/.test(nftables.run(`list chain ${wildcard} nat-prerouting`)),
        );
        assert.deepEqual(await s.answerers(s.b.namespace, vip(20), 80, 40), ['a', 'b', 'c'], command);
      }
      raw.close();
    });

    test('a deleted Service is gone, and nothing of it is left', async () => {
      await s.remove('web', 'self', 'empty', 'dying', 'local', 'inner', 'sticky', 'brief', 'dnsport');
      assert.equal(s.bed.api.read(SERVICES, 'default/web'), undefined);
      const raw = new Nfnetlink(s.one.namespace);
      const left = [
        'services',
        'endpoints',
        'refused',
        'node-ports',
        'node-port-endpoints',
        'remembered-as',
        'remembered-as-node-ports',
        'hairpins',
      ].flatMap(set => raw.elements({ family: v4 ? NFPROTO_IPV4 : NFPROTO_IPV6, table: 'coxswain-proxy' }, set));
      raw.close();
      // The marker's, which is IPv4.
      assert.equal(left.length, v4 ? 2 : 0);
    });
  });
}

function sharesHead(address: string, segment: string): boolean {
  const [network, length] = segment.split('/');
  const bytes = Math.floor(Number(length) / 8);
  return parseAddress(address).subarray(0, bytes).equals(parseAddress(network!).subarray(0, bytes));
}
