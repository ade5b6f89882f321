/** What Services promise beyond reaching a pod: spread, draining, nearness, health checks, isolation, no gap ever. */

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { Node } from '../../src/api/core/v1.gen.ts';
import type { EventRecorder } from '../../src/client/event-recorder.ts';
import { ENDPOINT_SLICES, NODES, SERVICES } from '../../src/client/resources.ts';
import { inNamespace } from '../../src/sys/netns.ts';
import { connectTcp, listenTcp } from '../../src/sys/socket.ts';
import { readSysctl, writeSysctls } from '../../src/sys/sysctl.ts';
import { ask, askUdp, Bed, openUdpClient, root, until } from './bed.ts';
import { SctpEar, sendInit } from './sctp.ts';
import { ServiceBed } from './service-bed.ts';
import { endpoint, service, slice } from './services.ts';

const TCP = [{ port: 80, targetPort: 8080 }];
const vip = (n: number) => `10.96.0.${n}`;
const dying = { conditions: { ready: false, serving: true, terminating: true } };

/** Answers an HTTP GET with code, headers and body. */
async function get(
  namespace: string,
  address: string,
  port: number,
  path = '/',
): Promise<{ code: number; headers: string; body: string }> {
  const socket = connectTcp({ namespace, address, port });
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  let text = '';
  socket.on('data', bytes => {
    text += bytes;
  });
  await once(socket, 'close');
  const [head, ...rest] = text.split('\r\n\r\n');
  return { code: Number(head!.split(' ')[1]), headers: head!.toLowerCase(), body: rest.join('\r\n\r\n') };
}

describe('promises of Services', { skip: !root }, () => {
  let s: ServiceBed;
  const told: string[] = [];
  const events: EventRecorder = {
    event: (about, _type, reason, message) => told.push(`${about.metadata.name}: ${reason}: ${message}`),
  };

  before(async () => {
    s = await new ServiceBed().start({ events, podRanges: ['10.244.0.0/16'], serviceRanges: ['10.96.0.0/16'] });
  });
  after(() => s.close());

  test('connections are spread evenly: chi-square of 2 400 over 8 endpoints with ports that differ', async () => {
    const endpoints = 8;
    for (let i = 0; i < endpoints; i++) {
      s.bed.serve(s.a.namespace, 9000 + i, `p${i}`);
      s.bed.api.put(
        ENDPOINT_SLICES,
        slice({
          service: 'even',
          name: `even-${i}`,
          endpoints: [s.on(s.a)],
          ports: [{ name: 'web', port: 80, targetPort: 9000 + i }],
        }),
      );
    }
    s.bed.api.put(
      SERVICES,
      service({ name: 'even', clusterIP: vip(40), ports: [{ name: 'web', port: 80, targetPort: 0 }] }),
    );
    await s.settled();
    const total = 2400;
    const counts = new Map<string, number>();
    for (let done = 0; done < total; done += 40) {
      const answers = await Promise.all(Array.from({ length: 40 }, () => ask(s.b.namespace, vip(40), 80)));
      for (const answer of answers) counts.set(answer.split(' ')[0]!, (counts.get(answer.split(' ')[0]!) ?? 0) + 1);
    }
    assert.equal(counts.size, endpoints);
    const expected = total / endpoints;
    const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    // 7 degrees of freedom: an even choice exceeds 40.5 once in a million runs.
    assert.ok(chiSquare < 40.5, `chi-square ${chiSquare.toFixed(1)}: ${JSON.stringify([...counts])}`);
  });

  test('a connection outlives the readiness, the endpoint, the Service; new ones go elsewhere', async () => {
    const { bed, a, b, c } = s;
    const peers: import('node:net').Socket[] = [];
    const echo = createServer(peer => {
      peers.push(peer);
      peer.on('error', () => {}).pipe(peer);
    }).listen({ fd: listenTcp({ namespace: a.namespace, address: '0.0.0.0', port: 8081 }) });
    const ports = [{ port: 80, targetPort: 8081 }];
    await s.put({ name: 'drain', clusterIP: vip(41), ports }, [s.on(a)]);
    const socket = connectTcp({ namespace: b.namespace, address: vip(41), port: 80 });
    await once(socket, 'connect');
    const works = async () => {
      socket.write('x');
      const [bytes] = await once(socket, 'data', { signal: AbortSignal.timeout(2000) });
      return String(bytes) === 'x';
    };
    assert.ok(await works());
    await s.put({ name: 'drain', clusterIP: vip(41), ports }, [s.on(a, dying), s.on(c)]);
    assert.ok(await works(), 'while it terminates');
    assert.equal(await ask(b.namespace, vip(41), 80), 'ECONNREFUSED', 'c has nobody on 8081');
    await s.put({ name: 'drain', clusterIP: vip(41), ports }, []);
    assert.ok(await works(), 'after the endpoint has gone');
    await s.remove('drain');
    assert.ok(await works(), 'after the Service has gone');
    socket.destroy();
    for (const peer of peers) peer.destroy();
    echo.close();
    assert.ok(bed);
  });

  test('near endpoints, by zone and by node; all when none is near', async () => {
    const { bed, a, b, c, one, two } = s;
    const label = (name: string, zone: string) => {
      const node = bed.api.read<Node>(NODES, name)!;
      bed.api.put(NODES, {
        ...node,
        metadata: { ...node.metadata, labels: { 'topology.kubernetes.io/zone': zone } },
      });
    };
    label(one.name, 'east');
    label(two.name, 'west');
    const zone = (name: string) => ({ hints: { forZones: [{ name }] } });
    const spec = { name: 'near', clusterIP: vip(42), ports: TCP };
    await s.put(spec, [s.on(a, zone('east')), s.on(b, zone('east')), s.on(c, zone('west'))]);
    await until(() => s.proxies.every(proxy => proxy.health().nodeEligible));
    const near = async () => [
      await s.answerers(b.namespace, vip(42), 80, 25),
      await s.answerers(c.namespace, vip(42), 80, 25),
    ];
    assert.deepEqual(await near(), [['a', 'b'], ['c']]);
    const both = (zoneName: string, node: string) => ({
      hints: { forZones: [{ name: zoneName }], forNodes: [{ name: node }] },
    });
    await s.put(spec, [s.on(a, both('west', one.name)), s.on(b, both('west', two.name)), s.on(c, both('west', 'x'))]);
    assert.deepEqual(await near(), [['a'], ['b']]);
    // Nobody is near node-1: it uses all.
    await s.put(spec, [s.on(a, zone('west')), s.on(c, zone('west'))]);
    assert.deepEqual(await near(), [
      ['a', 'c'],
      ['a', 'c'],
    ]);
    // The node moves to another zone.
    await s.put(spec, [s.on(a, zone('north')), s.on(c, zone('west'))]);
    label(one.name, 'north');
    await s.settled();
    assert.deepEqual(await near(), [['a'], ['c']]);
  });

  test('a load balancer’s health check: code, headers and body of kube-proxy', async () => {
    const { one, two, a, b, bed } = s;
    const spec = {
      name: 'checked',
      type: 'LoadBalancer',
      clusterIP: vip(43),
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: 31_500,
      ingress: ['192.0.2.43'],
      ports: TCP,
    };
    await s.put(spec, [s.on(a), s.on(b)]);
    const healthy = await get(bed.switch, one.ip, 31_500);
    assert.equal(healthy.code, 200);
    assert.match(healthy.headers, /content-type: application\/json\r\n/);
    assert.match(healthy.headers, /x-content-type-options: nosniff/);
    assert.match(healthy.headers, /x-load-balancing-endpoint-weight: 2\r\n/);
    assert.equal(
      healthy.body.replace(/^[0-9a-f]+\r\n|\r\n0\r\n\r\n$/g, ''),
      '{\n\t"service": {\n\t\t"namespace": "default",\n\t\t"name": "checked"\n\t},\n\t"localEndpoints": 2,\n\t"serviceProxyHealthy": true\n}',
    );
    const elsewhere = await get(bed.switch, two.ip, 31_500);
    assert.equal(elsewhere.code, 503);
    assert.match(elsewhere.body, /"localEndpoints": 0/);
    assert.match(await ask(bed.switch, one.ip, 31_501), /ECONNREFUSED/);
    await s.put(spec, [s.on(a, dying)]);
    assert.equal((await get(bed.switch, one.ip, 31_500)).code, 503);
    // The source stays, and a node without endpoints does not answer.
    await s.put({ ...spec, healthCheckNodePort: 31_501 }, [s.on(a)]);
    assert.equal((await get(bed.switch, one.ip, 31_501)).code, 200);
    assert.equal(await ask(bed.switch, one.ip, 31_500), 'ECONNREFUSED');
    await s.remove('checked');
    assert.equal(await ask(bed.switch, one.ip, 31_501), 'ECONNREFUSED');
  });

  test('ports 10256 and 10249 say what kube-proxy says', async () => {
    const { one, bed } = s;
    const healthz = await get(bed.switch, one.ip, 10_256, '/healthz');
    assert.equal(healthz.code, 200);
    const body = JSON.parse(/\{.*\}/s.exec(healthz.body)![0]);
    assert.deepEqual(Object.keys(body), ['lastUpdated', 'currentTime', 'nodeEligible', 'healthy', 'status']);
    assert.equal(body.nodeEligible, true);
    assert.equal((await get(bed.switch, one.ip, 10_256, '/livez')).code, 200);
    assert.equal(await ask(bed.switch, one.ip, 10_249), 'ECONNREFUSED');
    assert.match((await get(one.namespace, '127.0.0.1', 10_249, '/proxyMode')).body, /nftables/);
    const metrics = (await get(one.namespace, '127.0.0.1', 10_249, '/metrics')).body;
    assert.match(metrics, /^kubeproxy_sync_proxy_rules_duration_seconds_count\{ip_family="IPv4"\} [1-9]/m);
    const node = bed.api.read<Node>(NODES, one.name)!;
    bed.api.put(NODES, {
      ...node,
      spec: { ...node.spec, taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }] },
    });
    await until(() => !s.proxies[0]!.health().nodeEligible);
    assert.equal((await get(bed.switch, one.ip, 10_256, '/healthz')).code, 503);
    assert.equal((await get(bed.switch, one.ip, 10_256, '/livez')).code, 200);
    bed.api.put(NODES, node);
  });

  test('nobody takes an address of a pod, a Service or a node, and is told why', async () => {
    const { one, b, c } = s;
    await s.put({ name: 'honest', clusterIP: vip(44), ports: TCP }, [s.on(c)]);
    await s.put(
      {
        name: 'thief',
        type: 'LoadBalancer',
        clusterIP: vip(45),
        externalIPs: [c.ip, vip(44), one.ip, '192.0.2.45'],
        ingress: [c.ip, vip(44)],
        ports: [
          { name: 'x', port: 80, targetPort: 8080 },
          { name: 'y', port: 8080, targetPort: 8080 },
        ],
      },
      [s.on(s.a)],
    );
    s.bed.serve(one.namespace, 80, 'node');
    for (let i = 0; i < 5; i++) {
      assert.match(await ask(b.namespace, c.ip, 8080), /^c /);
      assert.match(await ask(b.namespace, vip(44), 80), /^c /);
      assert.match(await ask(b.namespace, one.ip, 80), /^node /);
    }
    const about = told.filter(text => text.startsWith('thief: AddressNotGiven'));
    for (const address of [c.ip, vip(44), one.ip])
      assert.ok(
        about.some(text => text.includes(` ${address} is `)),
        address,
      );
    assert.ok(!about.some(text => text.includes('192.0.2.45')));
  });

  test('of two Services that want one address the first has it, until it goes', async () => {
    const { a, b, c } = s;
    const want = (name: string, ip: number) => ({ name, clusterIP: vip(ip), externalIPs: ['192.0.2.50'], ports: TCP });
    await s.put(want('first', 46), [s.on(c)]);
    await s.put(want('later', 47), [s.on(a)]);
    assert.deepEqual(await s.answerers(b.namespace, '192.0.2.50', 80, 8), ['c']);
    assert.ok(told.some(text => /^later: AddressNotGiven.*taken by Service default\/first/.test(text)));
    await s.remove('first');
    assert.deepEqual(await s.answerers(b.namespace, '192.0.2.50', 80, 8), ['a']);
  });

  test('what listens on the node’s loopback is out of reach: by a VIP, a node port, an odd route', async () => {
    const { one, a, bed } = s;
    const secret = createServer(peer => peer.end('secret')).listen({
      fd: listenTcp({ namespace: one.namespace, address: '127.0.0.1', port: 9090 }),
    });
    const ports = [{ port: 80, targetPort: 9090, nodePort: 30_090 }];
    await s.put({ name: 'inward', type: 'NodePort', clusterIP: vip(48), ports }, [
      endpoint('127.0.0.1', { nodeName: one.name }),
    ]);
    assert.equal(await ask(one.namespace, '127.0.0.1', 9090), 'secret');
    for (const from of [a.namespace, bed.switch, one.namespace])
      for (const [address, port] of [
        [vip(48), 80],
        [one.ip, 30_090],
        [one.ip, 9090],
      ] as const)
        assert.doesNotMatch(await ask(from, address, port, 300), /secret/, `${from} ${address}`);
    // A pod that may change its own routes sends packets for 127.0.0.1 to the node.
    const inPod = (...args: string[]) => execFileSync('ip', ['-n', a.namespace, ...args]);
    writeSysctls(a.namespace, { 'ipv4/conf/all/route_localnet': '1' });
    inPod('route', 'del', 'local', '127.0.0.0/8', 'dev', 'lo', 'table', 'local');
    inPod('route', 'del', 'local', '127.0.0.1', 'dev', 'lo', 'table', 'local');
    inPod('route', 'add', '127.0.0.1/32', 'via', '10.244.0.1', 'src', a.ip);
    assert.equal(await ask(a.namespace, '127.0.0.1', 9090, 500), 'timeout');
    const interfaces = inNamespace(one.namespace, () => readdirSync('/proc/sys/net/ipv4/conf'));
    for (const name of interfaces)
      assert.equal(readSysctl(one.namespace, `ipv4/conf/${name}/route_localnet`), '0', name);
    secret.close();
  });

  test('SCTP is rewritten like the others', async () => {
    const { b, c } = s;
    const ports = [{ port: 3868, targetPort: 38_680, protocol: 'SCTP' }];
    await s.put({ name: 'sctp', clusterIP: vip(49), ports }, [s.on(c)]);
    const ear = new SctpEar(c.namespace);
    const seen: number[] = [];
    sendInit(b.namespace, { address: vip(49), port: 3868, from: 5000 });
    await until(() => seen.push(...ear.ports()) > 0);
    assert.deepEqual(seen, [38_680]);
    ear.close();
  });

  test('a port can be had by two protocols, and they do not mix', async () => {
    const { a, b, c } = s;
    s.bed.api.put(
      ENDPOINT_SLICES,
      slice({
        service: 'two',
        name: 'two-t',
        endpoints: [s.on(a)],
        ports: [{ name: 't', port: 53, targetPort: 8080 }],
      }),
    );
    s.bed.api.put(
      ENDPOINT_SLICES,
      slice({
        service: 'two',
        name: 'two-u',
        endpoints: [s.on(c)],
        ports: [{ name: 'u', port: 53, targetPort: 8053, protocol: 'UDP' }],
      }),
    );
    const ports = [
      { name: 't', port: 53, targetPort: 0 },
      { name: 'u', port: 53, targetPort: 0, protocol: 'UDP' },
    ];
    s.bed.api.put(SERVICES, service({ name: 'two', clusterIP: vip(51), ports }));
    await s.settled();
    const socket = openUdpClient(b.namespace);
    for (let i = 0; i < 5; i++) {
      assert.match(await ask(b.namespace, vip(51), 53), /^a /);
      assert.match(await askUdp(b.namespace, vip(51), 53, { socket }), /^c /);
    }
    socket.close();
  });
});

test('node ports only where nodePortAddresses say, and there as soon as the node has the address', {
  skip: !root,
}, async () => {
  const s = await new ServiceBed().start({ nodePortAddresses: ['198.18.0.0/15', '127.0.0.0/8'] });
  try {
    const spec = { name: 'np', type: 'NodePort', clusterIP: vip(25), ports: [{ ...TCP[0]!, nodePort: 30_080 }] };
    await s.put(spec, [s.on(s.a)]);
    assert.equal(await ask(s.bed.switch, s.one.ip, 30_080), 'ECONNREFUSED');
    assert.equal(await ask(s.one.namespace, '127.0.0.1', 30_080), 'ECONNREFUSED');
    execFileSync('ip', ['-n', s.one.namespace, 'address', 'add', '198.18.0.7/32', 'dev', 'eth0']);
    const deadline = performance.now() + 15_000;
    let answer = '';
    while (!/^a /.test(answer) && performance.now() < deadline)
      answer = await ask(s.one.namespace, '198.18.0.7', 30_080);
    assert.match(answer, /^a /);
  } finally {
    await s.close();
  }
});

test('host ports of IPv6, bound and not', { skip: !root }, async () => {
  const bed = new Bed(['IPv4', 'IPv6']);
  try {
    const node = await bed.addNode();
    const pod = await bed.addPod(node);
    bed.serve(pod.namespace, 80, 'pod');
    const port = { protocol: 'TCP', port: 80 } as const;
    await node.network.publish(
      pod.ips.flatMap(podIp => [
        { ...port, podIp, hostPort: 8081 },
        { ...port, podIp, hostPort: 8082, hostIp: node.ips[1]! },
        { ...port, podIp, hostPort: 8083, hostIp: '0.0.0.0' },
      ]),
    );
    const answers = await Promise.all(
      [8081, 8082, 8083].flatMap(hostPort => node.ips.map(ip => ask(bed.switch, ip, hostPort))),
    );
    assert.deepEqual(
      answers.map(text => text.split(' ')[0]),
      ['pod', 'pod', 'ECONNREFUSED', 'pod', 'pod', 'ECONNREFUSED'],
    );
  } finally {
    await bed.close();
  }
});

test('a proxy killed at any moment leaves no gap and no broken connection', { skip: !root }, async t => {
  const bed = new Bed();
  const running = new Set<ChildProcess>();
  const stop = new AbortController();
  let old: Socket | undefined;
  try {
    const node = await bed.addNode();
    const [a, b, client] = [await bed.addPod(node), await bed.addPod(node), await bed.addPod(node)];
    for (const pod of [a, b])
      createServer(peer => peer.on('error', () => {}).pipe(peer))
        .listen({
          fd: listenTcp({ namespace: pod.namespace, address: '0.0.0.0', port: 8080 }),
        })
        .unref();
    const spawnProxy = () => {
      const child = spawn(
        process.execPath,
        [new URL('./proxy-process.ts', import.meta.url).pathname, node.namespace, JSON.stringify([a.ip, b.ip])],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      running.add(child);
      return child;
    };
    const start = async () => {
      const child = spawnProxy();
      await once(child.stdout!, 'data');
      return child;
    };
    let child = await start();
    old = connectTcp({ namespace: client.namespace, address: vip(20), port: 80 });
    const stream = old;
    await once(stream, 'connect');
    let echoed = 0;
    stream.on('data', bytes => (echoed += bytes.length));
    const tries = { made: 0, failed: [] as string[] };
    const traffic = (async () => {
      while (!stop.signal.aborted) {
        const socket = connectTcp({ namespace: client.namespace, address: vip(20), port: 80 });
        socket.setTimeout(2000, () => socket.destroy(new Error('timeout')));
        try {
          await once(socket, 'connect');
          socket.write('y');
          await once(socket, 'data');
        } catch (error) {
          tries.failed.push((error as Error).message);
        }
        socket.destroy();
        tries.made++;
        stream.write('x');
      }
    })();
    for (let round = 0; round < 6; round++) {
      // Some die while they change things, some while they program everything anew.
      await new Promise(resolve => setTimeout(resolve, 40 + round * 23));
      child.kill('SIGKILL');
      if (round % 2 === 1) {
        const early = spawnProxy();
        await new Promise(resolve => setTimeout(resolve, 150 + round * 20));
        early.kill('SIGKILL');
      }
      child = await start();
    }
    stop.abort();
    await traffic;
    t.diagnostic(`${tries.made} connections, failed: ${tries.failed.join('; ') || 'none'}`);
    assert.deepEqual(tries.failed, []);
    assert.ok(tries.made > 100, `${tries.made} connections`);
    const written = tries.made;
    await until(() => echoed === written, 10_000);
  } finally {
    stop.abort();
    old?.destroy();
    for (const child of running) child.kill('SIGKILL');
    await bed.close();
  }
});
