import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Service } from '../api/core/v1.gen.ts';
import type { EndpointConditions, EndpointSlice } from '../api/discovery/v1.gen.ts';
import { entryOf, isProxied, type NodeView, sameEntry } from './model.ts';

const view: NodeView = { nodeName: 'here', localVips: new Set(['10.96.0.10']) };

function service(spec: Service['spec'], labels?: Record<string, string>): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 's', namespace: 'default', ...(labels ? { labels } : {}) },
    spec: { clusterIP: '10.96.0.1', ports: [{ port: 80, protocol: 'TCP' }], ...spec },
  };
}

function slice(
  endpoints: [ip: string, node: string, conditions?: EndpointConditions][],
  ports = [{ port: 8080, protocol: 'TCP' } as { name?: string; port: number; protocol: string }],
): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    addressType: 'IPv4',
    metadata: { name: 's-1', namespace: 'default' },
    endpoints: endpoints.map(([ip, nodeName, conditions]) => ({
      addresses: [ip],
      nodeName,
      ...(conditions ? { conditions } : {}),
    })),
    ports,
  };
}

const ips = (entry: ReturnType<typeof entryOf>, at = 0) => entry!.frontends[at]!.endpoints.map(({ ip }) => ip);

test('headless, external-name and foreign Services are none of our business', () => {
  assert.equal(isProxied(service({ clusterIP: 'None' })), false);
  assert.equal(isProxied(service({ clusterIP: '' })), false);
  assert.equal(isProxied(service({ type: 'ExternalName' })), false);
  assert.equal(isProxied(service({}, { 'service.kubernetes.io/service-proxy-name': 'other' })), false);
  assert.equal(isProxied(service({})), true);
});

test('ready endpoints; else those that serve while terminating', () => {
  const dying = { ready: false, serving: true, terminating: true };
  assert.deepEqual(
    ips(
      entryOf(
        service({}),
        [
          slice([
            ['10.0.0.2', 'x'],
            ['10.0.0.1', 'here', { ready: true }],
            ['10.0.0.3', 'x', { ready: false }],
            ['10.0.0.4', 'x', dying],
          ]),
        ],
        view,
      ),
    ),
    ['10.0.0.2', '10.0.0.1'],
  );
  assert.deepEqual(
    ips(
      entryOf(
        service({}),
        [
          slice([
            ['10.0.0.3', 'x', { ready: false, serving: true }],
            ['10.0.0.4', 'x', dying],
          ]),
        ],
        view,
      ),
    ),
    ['10.0.0.4'],
  );
});

test('slices are joined by port name and protocol, duplicates count once and the ready one wins', () => {
  const spec = {
    ports: [
      { name: 'a', port: 80, protocol: 'TCP' },
      { name: 'b', port: 53, protocol: 'UDP' },
    ],
  };
  const slices = [
    slice([['10.0.0.1', 'x', { ready: false }]], [{ name: 'a', port: 8080, protocol: 'TCP' }]),
    slice(
      [
        ['10.0.0.1', 'x'],
        ['10.0.0.2', 'x'],
      ],
      [{ name: 'a', port: 8080, protocol: 'TCP' }],
    ),
    slice([['10.0.0.9', 'x']], [{ name: 'b', port: 5353, protocol: 'UDP' }]),
  ];
  const entry = entryOf(service(spec), slices, view)!;
  assert.deepEqual(
    entry.frontends.map(({ protocol, port, endpoints }) => [
      protocol,
      port,
      endpoints.map(({ ip, port: target }) => `${ip}:${target}`),
    ]),
    [
      ['TCP', 80, ['10.0.0.1:8080', '10.0.0.2:8080']],
      ['UDP', 53, ['10.0.0.9:5353']],
    ],
  );
});

test('local policies: drop where another node could serve, reject where nobody can', () => {
  const elsewhere = [slice([['10.0.0.1', 'there']])];
  const internal = entryOf(service({ internalTrafficPolicy: 'Local' }), elsewhere, view)!.frontends[0]!;
  assert.deepEqual([internal.endpoints.length, internal.whenEmpty], [0, 'drop']);
  assert.equal(entryOf(service({ internalTrafficPolicy: 'Local' }), [], view)!.frontends[0]!.whenEmpty, 'reject');
  const nodePort = {
    type: 'NodePort',
    externalTrafficPolicy: 'Local',
    ports: [{ port: 80, protocol: 'TCP', nodePort: 30000 }],
  };
  const [cluster, external] = entryOf(
    service(nodePort),
    [
      slice([
        ['10.0.0.1', 'there'],
        ['10.0.0.2', 'here'],
      ]),
    ],
    view,
  )!.frontends;
  assert.equal(cluster!.localEndpoints, undefined);
  assert.deepEqual(
    external!.localEndpoints!.map(({ ip }) => ip),
    ['10.0.0.2'],
  );
  assert.deepEqual(
    [external!.kind, external!.port, external!.address, external!.endpoints.length],
    ['node-port', 30000, undefined, 2],
  );
});

test('addresses: external, load balancer (not of proxy mode), none that the node serves itself', () => {
  const lb = {
    ...service({ type: 'LoadBalancer', externalIPs: ['192.0.2.1'], loadBalancerSourceRanges: ['10.0.0.0/8'] }),
    status: {
      loadBalancer: {
        ingress: [
          { ip: '192.0.2.2', ipMode: 'VIP' },
          { ip: '192.0.2.3', ipMode: 'Proxy' },
        ],
      },
    },
  };
  const { frontends } = entryOf(lb, [], view)!;
  assert.deepEqual(
    frontends.map(({ kind, address, sourceRanges }) => [kind, address, sourceRanges]),
    [
      ['cluster-ip', '10.96.0.1', undefined],
      ['load-balancer-ip', '192.0.2.2', ['10.0.0.0/8']],
      ['external-ip', '192.0.2.1', undefined],
    ],
  );
  assert.deepEqual(entryOf(service({ clusterIP: '10.96.0.10' }), [], view)!.frontends, []);
});

test('session affinity has a default time; equal entries are the same', () => {
  const sticky = service({ sessionAffinity: 'ClientIP' });
  assert.equal(entryOf(sticky, [], view)!.frontends[0]!.affinity?.seconds, 10800);
  assert.ok(sameEntry(entryOf(sticky, [], view), entryOf(sticky, [], view)));
  assert.ok(!sameEntry(entryOf(sticky, [], view), entryOf(service({}), [], view)));
});

test('near endpoints only when every ready one has a hint and one is meant for here', () => {
  const hinted = (zones: (string | undefined)[], nodes: (string | undefined)[] = []) => {
    const made = slice(zones.map((_, i) => [`10.0.0.${i}`, `n${i}`]));
    made.endpoints = made.endpoints!.map((endpoint, i) => ({
      ...endpoint,
      hints: {
        ...(zones[i] ? { forZones: [{ name: zones[i] }] } : {}),
        ...(nodes[i] ? { forNodes: [{ name: nodes[i] }] } : {}),
      },
    }));
    return made;
  };
  const near = (made: EndpointSlice) => ips(entryOf(service({}), [made], { ...view, zone: 'a' }));
  assert.deepEqual(near(hinted(['a', 'b', 'a'])), ['10.0.0.0', '10.0.0.2']);
  assert.deepEqual(near(hinted(['a', undefined])), ['10.0.0.0', '10.0.0.1']);
  assert.deepEqual(near(hinted(['b', 'c'])), ['10.0.0.0', '10.0.0.1']);
  assert.deepEqual(near(hinted(['a', 'a'], ['here', 'there'])), ['10.0.0.0']);
  assert.deepEqual(near(hinted(['a', 'b'], ['there', 'there'])), ['10.0.0.0']);
  assert.deepEqual(near(hinted(['a', 'a'], ['here', undefined])), ['10.0.0.0', '10.0.0.1']);
});

test('endpoints that would mean the node itself are passed over', () => {
  const bad = ['127.0.0.1', '169.254.169.254', '224.0.0.1', '0.0.0.0'];
  assert.deepEqual(ips(entryOf(service({}), [slice([...bad, '10.0.0.1'].map(ip => [ip, 'x']))], view)), ['10.0.0.1']);
});

test('addresses of pods and Services are refused, of nodes only in externalIPs', () => {
  const owners: Record<string, 'pod' | 'service' | 'node'> = {
    '10.0.0.1': 'pod',
    '10.96.0.7': 'service',
    '172.30.0.2': 'node',
  };
  const addresses = [...Object.keys(owners), '192.0.2.1'];
  const lb = {
    ...service({ type: 'LoadBalancer', externalIPs: addresses }),
    status: {
      loadBalancer: {
        ingress: [
          { ip: '172.30.0.3', ipMode: 'VIP' },
          { ip: '10.96.0.8', ipMode: 'VIP' },
        ],
      },
    },
  };
  const entry = entryOf(lb, [], {
    ...view,
    ownerOf: address => (({ ...owners, '172.30.0.3': 'node', '10.96.0.8': 'service' }) as typeof owners)[address],
  })!;
  assert.deepEqual(
    entry.frontends.map(({ address }) => address),
    ['10.96.0.1', '172.30.0.3', '192.0.2.1'],
  );
  assert.deepEqual(
    entry.refused!.map(({ address, because }) => `${address} ${because}`),
    [
      '10.96.0.8 an address of a Service',
      '10.0.0.1 an address of a pod',
      '10.96.0.7 an address of a Service',
      '172.30.0.2 an address of a node',
    ],
  );
});

test('a load balancer is told of ready local endpoints, each once', () => {
  const spec = {
    type: 'LoadBalancer',
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: 31000,
    ports: [{ port: 80, protocol: 'TCP' }],
  };
  const dying = { ready: false, serving: true, terminating: true };
  const of = (endpoints: Parameters<typeof slice>[0]) => entryOf(service(spec), [slice(endpoints)], view)!.healthCheck;
  assert.deepEqual(
    of([
      ['10.0.0.1', 'here'],
      ['10.0.0.2', 'here'],
      ['10.0.0.3', 'x'],
    ]),
    { port: 31000, localEndpoints: 2 },
  );
  assert.deepEqual(of([['10.0.0.1', 'here', dying]]), { port: 31000, localEndpoints: 0 });
  assert.equal(entryOf(service({ ...spec, externalTrafficPolicy: 'Cluster' }), [], view)!.healthCheck, undefined);
});
