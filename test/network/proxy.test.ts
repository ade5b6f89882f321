/** Services through the kernel, with real sockets in real namespaces: two nodes, pods, the proxy on each. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ENDPOINT_SLICES, SERVICES } from '../../src/client/resources.ts';
import { Nftables } from '../../src/sys/nftables.ts';
import { ask, askUdp, Bed, type BedNode, type BedPod, openUdpClient, root, until } from './bed.ts';
import { endpoint, service, slice } from './services.ts';

describe('services', { skip: !root }, () => {
  let bed: Bed;
  let one: BedNode;
  let two: BedNode;
  let [a, b, c]: BedPod[] = [];
  let outside: string;

  before(async () => {
    bed = new Bed();
    one = await bed.addNode();
    two = await bed.addNode();
    [a, b, c] = [await bed.addPod(one), await bed.addPod(one), await bed.addPod(two)];
    for (const [pod, name] of [
      [a, 'a'],
      [b, 'b'],
      [c, 'c'],
    ] as const) {
      bed.serve(pod!.namespace, 8080, name);
      bed.serveUdp(pod!.namespace, 8053, name);
    }
    outside = bed.switch;
    await Promise.all([bed.startProxy(one), bed.startProxy(two)].map(proxy => proxy.synced));
  });
  after(() => bed.close());

  const put = (spec: Parameters<typeof service>[0], endpoints: Parameters<typeof slice>[0]['endpoints']) => {
    bed.api.put(ENDPOINT_SLICES, slice({ service: spec.name, endpoints, ports: spec.ports }));
    bed.api.put(SERVICES, service(spec));
  };
  const on = (pod: BedPod | undefined, node: BedNode) => endpoint(pod!.ip, { nodeName: node.name });
  const answers = async (from: string, address: string, port: number, times = 20) => {
    const seen = new Set<string>();
    for (let i = 0; i < times; i++) seen.add(await ask(from, address, port));
    return [...seen].sort();
  };
  const settled = () => new Promise(resolve => setTimeout(resolve, 60));

  test('a cluster IP reaches all ready endpoints from pods of both nodes, and keeps the pod address', async () => {
    put({ name: 'web', clusterIP: '10.96.0.20', ports: [{ port: 80, targetPort: 8080 }] }, [
      on(a, one),
      on(b, one),
      on(c, two),
      endpoint('10.244.0.99', { ready: false }),
    ]);
    await settled();
    assert.deepEqual(
      await answers(c!.namespace, '10.96.0.20', 80, 40),
      [`a ${c!.ip}`, `b ${c!.ip}`, 'c 10.244.1.1'].sort(),
    );
    assert.deepEqual(
      await answers(b!.namespace, '10.96.0.20', 80, 40),
      [`a ${b!.ip}`, 'b 10.244.0.1', `c ${b!.ip}`].sort(),
    );
  });

  test('the nodes themselves, by loopback of none but by the address of the way', async () => {
    const seen = (await answers(one.namespace, '10.96.0.20', 80, 40)).map(text => text[0]);
    assert.deepEqual(new Set(seen), new Set(['a', 'b', 'c']));
  });

  test('a pod reaches itself through its Service', async () => {
    put({ name: 'self', clusterIP: '10.96.0.21', ports: [{ port: 80, targetPort: 8080 }] }, [on(a, one)]);
    await settled();
    assert.equal(await ask(a!.namespace, '10.96.0.21', 80), 'a 10.244.0.1');
    assert.equal(await askUdp(a!.namespace, '10.96.0.21', 80), 'timeout');
  });

  test('UDP, and a flow that outlives its endpoint moves on', async () => {
    const ports = [{ port: 53, targetPort: 8053, protocol: 'UDP' }];
    put({ name: 'dns', clusterIP: '10.96.0.22', ports }, [on(a, one)]);
    await settled();
    if (process.env['COX_DEBUG']) console.log(new Nftables(one.namespace).run('list table ip coxswain-proxy'));
    const socket = openUdpClient(b!.namespace);
    assert.equal(await askUdp(b!.namespace, '10.96.0.22', 53, { socket }), `a ${b!.ip}`);
    put({ name: 'dns', clusterIP: '10.96.0.22', ports }, [on(c, two)]);
    await settled();
    assert.equal(await askUdp(b!.namespace, '10.96.0.22', 53, { socket }), `c ${b!.ip}`);
    put({ name: 'dns', clusterIP: '10.96.0.22', ports }, []);
    await settled();
    assert.notEqual(await askUdp(b!.namespace, '10.96.0.22', 53, { socket }), `c ${b!.ip}`);
    socket.close();
  });

  test('without endpoints a connection is refused at once, to an unknown port too', async () => {
    put({ name: 'empty', clusterIP: '10.96.0.23', ports: [{ port: 80, targetPort: 8080 }] }, []);
    await settled();
    for (const from of [a!.namespace, one.namespace]) {
      assert.equal(await ask(from, '10.96.0.23', 80), 'ECONNREFUSED');
      assert.equal(await ask(from, '10.96.0.20', 81), 'ECONNREFUSED');
    }
    assert.equal(await askUdp(one.namespace, '10.96.0.20', 81), 'timeout');
  });

  test('endpoints that serve while terminating are used when none is ready', async () => {
    const ports = [{ port: 80, targetPort: 8080 }];
    const dying = { ...on(b, one), conditions: { ready: false, serving: true, terminating: true } };
    put({ name: 'dying', clusterIP: '10.96.0.24', ports }, [on(a, one), dying]);
    await settled();
    assert.deepEqual(await answers(c!.namespace, '10.96.0.24', 80), [`a ${c!.ip}`]);
    put({ name: 'dying', clusterIP: '10.96.0.24', ports }, [dying]);
    await settled();
    assert.deepEqual(await answers(c!.namespace, '10.96.0.24', 80), [`b ${c!.ip}`]);
  });

  test('a node port on every node, masqueraded', async () => {
    put(
      {
        name: 'np',
        type: 'NodePort',
        clusterIP: '10.96.0.25',
        ports: [{ port: 80, targetPort: 8080, nodePort: 30080 }],
      },
      [on(a, one), on(c, two)],
    );
    await settled();
    assert.deepEqual(await answers(outside, one.ip, 30080), ['a 10.244.0.1', 'c 10.244.0.0']);
    assert.deepEqual(await answers(outside, two.ip, 30080), ['a 10.244.1.0', 'c 10.244.1.1']);
    assert.deepEqual(
      (await answers(b!.namespace, two.ip, 30080)).map(text => text[0]),
      ['a', 'c'],
    );
    assert.deepEqual(
      (await answers(one.namespace, one.ip, 30080)).map(text => text[0]),
      ['a', 'c'],
    );
    assert.equal(await ask(outside, one.ip, 30081), 'ECONNREFUSED');
  });

  test('external traffic policy Local keeps the client address and stays on the node', async () => {
    const spec = {
      name: 'local',
      type: 'NodePort',
      clusterIP: '10.96.0.26',
      externalTrafficPolicy: 'Local',
      ports: [{ port: 80, targetPort: 8080, nodePort: 30081 }],
    };
    put(spec, [on(a, one), on(b, one)]);
    await settled();
    assert.deepEqual(await answers(outside, one.ip, 30081), ['a 172.30.0.1', 'b 172.30.0.1']);
    assert.equal(await ask(outside, two.ip, 30081, 300), 'timeout');
    // Pods and the node itself are no outsiders.
    assert.deepEqual(
      (await answers(c!.namespace, two.ip, 30081)).map(text => text[0]),
      ['a', 'b'],
    );
    assert.deepEqual(
      (await answers(two.namespace, two.ip, 30081)).map(text => text[0]),
      ['a', 'b'],
    );
  });

  test('internal traffic policy Local', async () => {
    put(
      {
        name: 'inner',
        clusterIP: '10.96.0.27',
        internalTrafficPolicy: 'Local',
        ports: [{ port: 80, targetPort: 8080 }],
      },
      [on(a, one), on(c, two)],
    );
    await settled();
    assert.deepEqual(await answers(b!.namespace, '10.96.0.27', 80), [`a ${b!.ip}`]);
    put(
      {
        name: 'inner',
        clusterIP: '10.96.0.27',
        internalTrafficPolicy: 'Local',
        ports: [{ port: 80, targetPort: 8080 }],
      },
      [on(c, two)],
    );
    await settled();
    assert.equal(await ask(b!.namespace, '10.96.0.27', 80, 300), 'timeout');
  });

  test('session affinity, until the endpoint goes', async () => {
    const spec = {
      name: 'sticky',
      type: 'NodePort',
      clusterIP: '10.96.0.28',
      sessionAffinity: 'ClientIP',
      ports: [{ port: 80, targetPort: 8080, nodePort: 30082 }],
    };
    put(spec, [on(a, one), on(b, one), on(c, two)]);
    await settled();
    const first = await answers(b!.namespace, '10.96.0.28', 80, 25);
    assert.equal(first.length, 1);
    const viaNode = await answers(outside, one.ip, 30082, 25);
    assert.equal(viaNode.length, 1);
    const chosen = first[0]![0]!;
    put(
      spec,
      [on(a, one), on(b, one), on(c, two)].filter((_, i) => 'abc'[i] !== chosen),
    );
    await settled();
    const next = await answers(b!.namespace, '10.96.0.28', 80, 25);
    assert.equal(next.length, 1);
    assert.notEqual(next[0]![0], chosen);
  });

  test('external and load-balancer addresses, with source ranges', async () => {
    put(
      {
        name: 'lb',
        type: 'LoadBalancer',
        clusterIP: '10.96.0.29',
        externalIPs: ['192.0.2.10'],
        ingress: ['192.0.2.20'],
        loadBalancerSourceRanges: ['10.244.1.0/24'],
        ports: [{ port: 80, targetPort: 8080 }],
      },
      [on(a, one)],
    );
    await settled();
    assert.equal(await ask(b!.namespace, '192.0.2.10', 80), 'a 10.244.0.1');
    assert.equal(await ask(b!.namespace, '192.0.2.20', 80, 300), 'timeout');
    assert.equal((await ask(c!.namespace, '192.0.2.20', 80))[0], 'a');
  });

  test('established connections survive changes, deletion of the Service and flushed tables; rules come back', async () => {
    await until(() => true);
    new Nftables(one.namespace).run('flush ruleset');
    const deadline = performance.now() + 5000;
    while ((await ask(b!.namespace, '10.96.0.20', 80, 200)) === 'timeout' && performance.now() < deadline);
    assert.equal((await answers(b!.namespace, '10.96.0.20', 80, 40)).length, 3);
  });

  test('a deleted Service is gone, and nothing of it is left', async () => {
    for (const name of ['web', 'self', 'dns', 'empty', 'dying', 'np', 'local', 'inner', 'sticky', 'lb']) {
      bed.api.remove(SERVICES, `default/${name}`);
      bed.api.remove(ENDPOINT_SLICES, `default/${name}`);
    }
    await settled();
    const listed = new Nftables(one.namespace).run('list table ip coxswain-proxy');
    // Chains of no use go later; they lead nowhere.
    assert.doesNotMatch(listed.slice(0, listed.indexOf('chain')), /10\.96\.0\.|192\.0\.2\.|30080/);
  });
});
