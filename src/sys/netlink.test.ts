import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { after, test } from 'node:test';
import {
  addAddress,
  addForwarding,
  addLink,
  addNeighbour,
  addRoute,
  deleteLink,
  deleteRoute,
  loopbackUp,
  ROUTE_PROTOCOL_COXSWAIN,
  RouteSocket,
  setHairpin,
  setLink,
} from './netlink.ts';
import { closeNetns, createNetns, deleteNetns, inNamespace, isNetns, listNetns, openNetns } from './netns.ts';
import { connectTcp, listenTcp, localAddressOf } from './socket.ts';
import { readSysctl, writeSysctls } from './sysctl.ts';

const root = process.getuid?.() === 0;
const prefix = `cox-test-${process.pid}`;
const names: string[] = [];
const make = (suffix: string) => {
  const name = `${prefix}-${suffix}`;
  names.push(name);
  createNetns(name);
  return name;
};
after(() => {
  for (const name of names) deleteNetns(name);
});

test('namespaces are made, entered, left, listed and deleted', { skip: !root }, () => {
  const home = readlinkSync('/proc/thread-self/ns/net');
  const name = make('life');
  assert.ok(isNetns(name) && listNetns().includes(name));
  const inside = inNamespace(name, () => readlinkSync('/proc/thread-self/ns/net'));
  assert.notEqual(inside, home);
  assert.throws(
    () =>
      inNamespace(name, () => {
        throw new Error('thrown inside');
      }),
    /thrown inside/,
  );
  assert.equal(readlinkSync('/proc/thread-self/ns/net'), home);
  assert.throws(() => createNetns(name), { code: 'EEXIST' });
  deleteNetns(name);
  deleteNetns(name);
  assert.ok(!isNetns(name));
});

test('links, addresses, routes, neighbours and forwarding entries', { skip: !root }, () => {
  const [a, b] = [make('a'), make('b')];
  const peer = openNetns(b);
  using routes = new RouteSocket(a);
  using remote = new RouteSocket(b);
  routes.request([addLink({ kind: 'bridge', name: 'br0', up: true, mtu: 1400 })]);
  const bridge = routes.link('br0')!;
  assert.deepEqual({ kind: bridge.kind, up: bridge.up, mtu: bridge.mtu }, { kind: 'bridge', up: true, mtu: 1400 });
  routes.request([
    addLink({
      kind: 'veth',
      name: 'v0',
      up: true,
      master: bridge.index,
      mtu: 1400,
      peer: { name: 'eth0', namespace: peer, mtu: 1400, mac: '0a:58:0a:f4:01:05' },
    }),
    setHairpin({ name: 'v0', on: true }),
    setLink({ name: 'v0', alias: 'pod x' }),
    addAddress({ index: bridge.index, prefix: '10.9.0.1/24' }),
    addAddress({ index: bridge.index, prefix: 'fd00:9::1/64' }),
  ]);
  const veth = routes.link('v0')!;
  assert.deepEqual([veth.master, veth.alias, veth.up], [bridge.index, 'pod x', true]);
  const eth0 = remote.link('eth0')!;
  assert.deepEqual([eth0.mac, eth0.mtu], ['0a:58:0a:f4:01:05', 1400]);
  remote.request([
    setLink({ index: eth0.index, up: true }),
    addAddress({ index: eth0.index, prefix: '10.9.0.5/24', connectedRoute: false }),
    addRoute({ to: '10.9.0.1/32', link: eth0.index }),
    addRoute({ to: 'default', via: '10.9.0.1', link: eth0.index }),
    addRoute({
      to: '10.9.0.0/24',
      via: '10.9.0.1',
      link: eth0.index,
      source: '10.9.0.5',
      protocol: ROUTE_PROTOCOL_COXSWAIN,
    }),
  ]);
  assert.deepEqual(
    remote
      .routes({ table: 254 })
      .map(({ to, via }) => `${to} ${via ?? ''}`)
      .filter(line => !line.includes(':'))
      .sort(),
    ['0.0.0.0/0 10.9.0.1', '10.9.0.0/24 10.9.0.1', '10.9.0.1/32 '],
  );
  assert.equal(remote.routes({ protocol: ROUTE_PROTOCOL_COXSWAIN }).length, 1);
  remote.request([
    deleteRoute({ to: '10.9.0.0/24', protocol: ROUTE_PROTOCOL_COXSWAIN }),
    deleteRoute({ to: '10.9.0.0/24', protocol: ROUTE_PROTOCOL_COXSWAIN }),
  ]);
  assert.equal(remote.routes({ protocol: ROUTE_PROTOCOL_COXSWAIN }).length, 0);
  assert.ok(routes.addresses().some(({ prefix }) => prefix === 'fd00:9::1/64'));

  routes.request([
    addLink({
      kind: 'vxlan',
      name: 'vx',
      id: 7,
      port: 8472,
      local: '10.9.0.1',
      link: bridge.index,
      learning: false,
      mac: '0e:00:00:00:00:01',
      up: true,
    }),
  ]);
  const vx = routes.link('vx')!;
  routes.request([
    addNeighbour({ index: vx.index, address: '10.8.0.0', mac: '0e:00:00:00:00:02' }),
    addForwarding({ index: vx.index, address: '10.9.0.2', mac: '0e:00:00:00:00:02' }),
    addForwarding({ index: vx.index, address: '10.9.0.3', mac: '0e:00:00:00:00:02' }),
  ]);
  assert.deepEqual(
    routes
      .forwarding()
      .filter(({ index, mac }) => index === vx.index && mac === '0e:00:00:00:00:02')
      .map(({ address }) => address),
    ['10.9.0.3'],
  );
  assert.equal(routes.neighbours().find(({ address }) => address === '10.8.0.0')?.mac, '0e:00:00:00:00:02');

  assert.throws(() => routes.request([addLink({ kind: 'bridge', name: 'br0' })]), /netlink add bridge br0.*EEXIST/);
  assert.throws(() => routes.request([setLink({ name: 'absent', up: true })]), { code: 'ENODEV' });
  assert.throws(
    () => routes.request([addRoute({ to: '10.99.0.0/24', via: '1.2.3.4', link: bridge.index })]),
    /gateway/,
  );
  routes.request([deleteLink({ name: 'v0' }), deleteLink({ name: 'v0' })]);
  assert.equal(remote.link('eth0'), undefined);
  closeNetns(peer);
});

test('batches beyond the receive buffer are answered in full', { skip: !root }, () => {
  const name = make('batch');
  using routes = new RouteSocket(name);
  routes.request([addLink({ kind: 'bridge', name: 'd0', up: true })]);
  const { index } = routes.link('d0')!;
  routes.request(Array.from({ length: 2000 }, (_, i) => addRoute({ to: `10.${i >> 8}.${i & 255}.0/24`, link: index })));
  assert.equal(routes.routes({ table: 254 }).filter(({ to }) => to.startsWith('10.')).length, 2000);
});

test('sockets live in the namespace, whoever uses them', { skip: !root }, async () => {
  const name = make('socket');
  loopbackUp(name);
  writeSysctls(name, { 'ipv4/ip_forward': '1' });
  assert.equal(readSysctl(name, 'ipv4/ip_forward'), '1');
  const fd = listenTcp({ namespace: name, address: '127.0.0.1', port: 0 });
  const { port } = localAddressOf(fd);
  const server = createServer(peer => peer.end('inside')).listen({ fd });
  const client = connectTcp({ namespace: name, address: '127.0.0.1', port });
  await once(client, 'connect');
  const [bytes] = await once(client, 'data');
  assert.equal(String(bytes), 'inside');
  const refused = connectTcp({ address: '127.0.0.1', port: 1 });
  await assert.rejects(once(refused, 'connect'), { code: 'ECONNREFUSED' });
  client.destroy();
  server.close();
});
