import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { silentLogger } from '../base/log.ts';
import { ClusterFixture, namespace, service, slice } from './cluster-fixture.ts';
import { decodeMessage, encodeQuery, FLAG, RCODE, TYPE } from './message.ts';
import { freePort } from './name-server-fixture.ts';
import { DnsServer } from './server.ts';
import { framed } from './upstream.ts';

const LOCALHOST = '127.0.0.1';

const corefile = (upstreams: readonly string[]): string =>
  `. {\n kubernetes cluster.local in-addr.arpa ip6.arpa {\n pods insecure\n ttl 30\n }\n ${upstreams.length > 0 ? `forward . ${upstreams.join(' ')}` : ''}\n cache\n reload\n}\n`;

async function started(t: { after(fn: () => void): void }, upstreams: string[] = []) {
  const stop = new AbortController();
  t.after(() => stop.abort());
  const cluster = new ClusterFixture();
  const server = new DnsServer({
    informers: cluster,
    listen: { addresses: [LOCALHOST], port: await freePort() },
    corefile: corefile(upstreams),
    log: silentLogger,
  });
  await cluster.put(
    namespace('default'),
    service('web', { clusterIP: '10.96.1.1', ports: [{ port: 80 }] }),
    service('outside', { type: 'ExternalName', externalName: 'example.org' }),
    service('many', { clusterIP: 'None' }),
    slice(
      'many-1',
      'many',
      Array.from({ length: 400 }, (_, index) => ({ addresses: [`10.1.${index >> 8}.${index & 255}`] })),
      [{ port: 80 }],
    ),
  );
  const running = server.run(stop.signal);
  running.catch(() => {});
  const { port } = await server.bound;
  return { server, cluster, port, stop, running };
}

async function askUdp(port: number, ...queries: Buffer[]) {
  const socket = createSocket('udp4');
  const replies: Buffer[] = [];
  const all = new Promise<void>(resolve => {
    socket.on('message', reply => {
      replies.push(reply);
      if (replies.length === queries.length) resolve();
    });
  });
  for (const query of queries) socket.send(query, port, LOCALHOST);
  await all;
  socket.close();
  return replies.map(decodeMessage);
}

async function askTcp(port: number, ...queries: Buffer[]) {
  const socket = connect(port, LOCALHOST);
  socket.write(Buffer.concat(queries.map(framed)));
  let received: Buffer = Buffer.alloc(0);
  const replies: Buffer[] = [];
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk as Buffer]);
    while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
      replies.push(Buffer.from(received.subarray(2, 2 + received.readUInt16BE(0))));
      received = received.subarray(2 + received.readUInt16BE(0));
    }
    if (replies.length === queries.length) break;
  }
  return replies.map(decodeMessage);
}

test('SERVFAIL until the cluster is known, then answers over UDP and TCP', async t => {
  const { cluster, port, stop, running } = await started(t);
  const query = encodeQuery({ id: 3, name: 'web.default.svc.cluster.local', type: TYPE.A });
  assert.equal((await askUdp(port, query))[0]!.rcode, RCODE.SERVFAIL);
  await cluster.start(stop.signal);
  for (const [reply] of [await askUdp(port, query), await askTcp(port, query)]) {
    assert.equal(reply!.rcode, RCODE.NOERROR);
    assert.equal(reply!.records[0]!.data.join('.'), '10.96.1.1');
  }
  stop.abort();
  await running;
});

test('a burst of datagrams is answered one for one', async t => {
  const { cluster, port, stop } = await started(t);
  await cluster.start(stop.signal);
  const queries = Array.from({ length: 150 }, (_, id) =>
    encodeQuery({ id, name: id % 2 ? 'web.default.svc.cluster.local' : 'no.default.svc.cluster.local', type: TYPE.A }),
  );
  const replies = await askUdp(port, ...queries);
  assert.deepEqual(
    replies.map(reply => reply.id).sort((a, b) => a - b),
    queries.map((_, id) => id),
  );
  for (const reply of replies) assert.equal(reply.rcode, reply.id % 2 ? RCODE.NOERROR : RCODE.NXDOMAIN);
});

test('what does not fit a datagram is cut, and whole over TCP', async t => {
  const { cluster, port, stop } = await started(t);
  await cluster.start(stop.signal);
  const query = encodeQuery({ id: 3, name: 'many.default.svc.cluster.local', type: TYPE.A });
  const [cut] = await askUdp(port, query);
  assert.ok(cut!.flags & FLAG.TC);
  const [whole, again] = await askTcp(port, query, query);
  assert.equal(whole!.flags & FLAG.TC, 0);
  assert.equal(whole!.records.length, 400);
  assert.equal(again!.records.length, 400);
});

test('garbage is dropped and does no harm', async t => {
  const { cluster, port, stop } = await started(t);
  await cluster.start(stop.signal);
  const socket = createSocket('udp4');
  for (let size = 0; size < 40; size++) socket.send(Buffer.alloc(size, size * 7), port, LOCALHOST);
  socket.send(Buffer.alloc(3000, 1), port, LOCALHOST);
  const [reply] = await askUdp(port, encodeQuery({ id: 3, name: 'web.default.svc.cluster.local', type: TYPE.A }));
  assert.equal(reply!.rcode, RCODE.NOERROR);
  socket.close();
});

test('other names and the ends of CNAMEs come from the upstream, the cluster zone never', async t => {
  const asked: string[] = [];
  const upstream = createSocket('udp4');
  upstream.on('message', (query, { port, address }) => {
    const { questions } = decodeMessage(query);
    asked.push(questions[0]!.name);
    // A stranger's reply with a wrong id comes first and must be ignored.
    const answer = Buffer.concat([
      query.subarray(0, 12 + questions[0]!.name.length + 2 + 4),
      Buffer.from('c00c00010001000000050004c0000201', 'hex'),
    ]);
    answer.writeUInt16BE(0x8180, 2);
    answer.writeUInt16BE(1, 6);
    answer.writeUInt16BE(0, 10);
    const stranger = Buffer.from(answer);
    stranger[0]! ^= 1;
    upstream.send(stranger, port, address);
    upstream.send(answer, port, address);
  });
  upstream.bind(0, LOCALHOST);
  await once(upstream, 'listening');
  t.after(() => upstream.close());
  const { cluster, port, stop } = await started(t, [`${LOCALHOST}:${upstream.address().port}`]);
  await cluster.start(stop.signal);
  const [reply] = await askUdp(port, encodeQuery({ id: 9, name: 'example.com', type: TYPE.A }));
  assert.equal(reply!.id, 9);
  assert.equal(reply!.records[0]!.data.join('.'), '192.0.2.1');
  const [chased] = await askUdp(port, encodeQuery({ id: 9, name: 'outside.default.svc.cluster.local', type: TYPE.A }));
  assert.deepEqual(
    chased!.records.map(record => [record.name, record.type]),
    [
      ['outside.default.svc.cluster.local', TYPE.CNAME],
      ['example.org', TYPE.A],
    ],
  );
  await askUdp(port, encodeQuery({ id: 9, name: 'nope.cluster.local', type: TYPE.A }));
  // '' is the look whether the upstream lives.
  assert.deepEqual(
    asked.filter(name => name !== ''),
    ['example.com', 'example.org'],
  );
});

test('a silent upstream ends in SERVFAIL', async t => {
  const { cluster, port, stop } = await started(t, [`${LOCALHOST}:1`]);
  await cluster.start(stop.signal);
  const [reply] = await askUdp(port, encodeQuery({ id: 9, name: 'example.com', type: TYPE.A }));
  assert.equal(reply!.rcode, RCODE.SERVFAIL);
});

test('an address in use is an error', async t => {
  const { port } = await started(t);
  const second = new DnsServer({
    informers: new ClusterFixture(),
    listen: { addresses: [LOCALHOST], port },
    log: silentLogger,
  });
  await assert.rejects(second.run(new AbortController().signal), /EADDRINUSE/);
});
