import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contractEntry } from '../contract.ts';
import type { Endpoint, Frontend, ServiceEntry } from '../model.ts';
import { endpointData } from './elements.ts';
import { staleAfter, staleClients, staleFlows } from './stale-memory.ts';

const VIP = '10.96.0.1';
const entry = (ips: readonly string[], facts: Partial<Frontend> = {}): ServiceEntry => {
  const made = contractEntry('s', VIP, ips);
  return { ...made, frontends: made.frontends.map(frontend => ({ ...frontend, ...facts })) };
};
const udp = { protocol: 'UDP' } as const;
const sticky = { affinity: { seconds: 60, address: VIP, port: 80, memory: 'all' } } as const;
const flow = (to: string, port: number, from: string) => ({
  protocol: 17,
  source: Buffer.from([10, 0, 0, 9]),
  destination: Buffer.from(to.split('.').map(Number)),
  destinationPort: port,
  replySource: Buffer.from(from.split('.').map(Number)),
  replySourcePort: 8080,
  tuple: Buffer.alloc(0),
});
const client = (address: string, endpoint: string, set = 'affinity') => ({
  set,
  key: Buffer.concat([
    Buffer.from([10, 0, 0, 9]),
    Buffer.from(address.split('.').map(Number)),
    Buffer.from([6, 0, 0, 0, 0, 80, 0, 0]),
  ]),
  data: endpointData({ ip: endpoint, port: 8080 }),
});
const nodes = new Set(['172.30.0.2']);

test('UDP flows to what is no endpoint any more are stale, others and TCP are left alone', () => {
  const stale = staleAfter([{ before: entry(['10.0.0.1', '10.0.0.2'], udp), after: entry(['10.0.0.2'], udp) }], 4);
  const flows = [
    flow(VIP, 80, '10.0.0.1'),
    flow(VIP, 80, '10.0.0.2'),
    flow(VIP, 81, '10.0.0.1'),
    flow('10.96.0.2', 80, '10.0.0.1'),
  ];
  assert.deepEqual(staleFlows(flows, stale, nodes), [flows[0]]);
  assert.equal(staleAfter([{ before: entry(['10.0.0.1']), after: entry([]) }], 4).udp.size, 0);
  assert.equal(
    staleAfter([{ before: entry(['10.0.0.1'], udp), after: entry(['10.0.0.1', '10.0.0.2'], udp) }], 4).udp.size,
    0,
  );
});

test('a node port’s flows are found at any address of the node; a first endpoint frees flows that had none', () => {
  const port = { ...udp, kind: 'node-port', address: undefined, port: 30_000 } as const;
  const stale = staleAfter([{ before: entry([], port), after: entry(['10.0.0.1'], port) }], 4);
  const flows = [
    flow('172.30.0.2', 30_000, '172.30.0.2'),
    flow('172.30.0.3', 30_000, '172.30.0.3'),
    flow('172.30.0.2', 30_000, '10.0.0.1'),
  ];
  assert.deepEqual(staleFlows(flows, stale, nodes), [flows[0]]);
});

test('clients remembered with an endpoint that is gone are forgotten, for all addresses of the Service’s port', () => {
  const clients = [
    client(VIP, '10.0.0.1'),
    client(VIP, '10.0.0.2'),
    client('10.96.0.2', '10.0.0.1'),
    client(VIP, '10.0.0.1', 'affinity-local'),
    client(VIP, '10.0.0.2', 'affinity-local'),
  ] as const;
  const of = (before: ServiceEntry | undefined, after: ServiceEntry | undefined) =>
    staleClients(clients, staleAfter([{ before, after }], 4));
  const both = entry(['10.0.0.1', '10.0.0.2'], sticky);
  assert.deepEqual(of(both, entry(['10.0.0.2'], sticky)), [clients[0]]);
  assert.deepEqual(of(undefined, entry(['10.0.0.2'], sticky)), [clients[0]]);
  assert.deepEqual(of(both, undefined), [clients[0], clients[1]]);
  assert.deepEqual(of(both, entry(['10.0.0.1', '10.0.0.2', '10.0.0.3'], sticky)), []);
  // The same by the external address.
  const outer = { ...sticky, kind: 'external-ip', address: '192.0.2.1', port: 80 } as const;
  assert.deepEqual(of(entry(['10.0.0.1', '10.0.0.2'], outer), entry(['10.0.0.2'], outer)), [clients[0]]);
});

test('who may have this node’s endpoints only is remembered apart', () => {
  const clients = [client(VIP, '10.0.0.1'), client(VIP, '10.0.0.1', 'affinity-local')];
  const of = (before: ServiceEntry, after: ServiceEntry) => staleClients(clients, staleAfter([{ before, after }], 4));
  const both = entry(['10.0.0.1', '10.0.0.2'], sticky);
  const [first, second] = both.frontends[0]!.endpoints;
  const local = (...localEndpoints: Endpoint[]) => entry(['10.0.0.1', '10.0.0.2'], { ...sticky, localEndpoints });
  assert.deepEqual(of(local(first!), local(first!, second!)), []);
  assert.deepEqual(of(local(first!, second!), local(second!)), [clients[1]]);
  assert.deepEqual(of(both, local(second!)), [clients[1]]);
  const inner = { affinity: { ...sticky.affinity, memory: 'local' } } as const;
  assert.deepEqual(of(entry(['10.0.0.1', '10.0.0.2'], inner), entry(['10.0.0.2'], inner)), [clients[1]]);
});
