import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { silentLogger } from '../base/log.ts';
import { ClusterFixture, namespace, service, slice } from './cluster-fixture.ts';
import { decodeMessage, encodeQuery, FLAG, RCODE, TYPE } from './message.ts';
import { decodeName } from './name.ts';
import { DnsServer } from './server.ts';

const cluster = new ClusterFixture();
const stop = new AbortController();
let server: DnsServer;

before(async () => {
  server = new DnsServer({
    informers: cluster,
    listen: { addresses: ['10.96.0.10'], port: 53 },
    corefile: '. {\n kubernetes cluster.local in-addr.arpa ip6.arpa {\n pods insecure\n ttl 30\n }\n}\n',
    log: silentLogger,
  });
  const http = { name: 'http', protocol: 'TCP', port: 8080 };
  await cluster.put(
    namespace('default'),
    namespace('kube-system'),
    namespace('empty'),
    service(
      'kube-dns',
      { clusterIP: '10.96.0.10', clusterIPs: ['10.96.0.10'], ports: [{ name: 'dns', protocol: 'UDP', port: 53 }] },
      'kube-system',
    ),
    service('web', {
      clusterIP: '10.96.1.1',
      clusterIPs: ['10.96.1.1'],
      ports: [
        { name: 'http', protocol: 'TCP', port: 80 },
        { name: 'dns', protocol: 'UDP', port: 53 },
      ],
    }),
    service('dual', {
      clusterIP: '10.96.1.2',
      clusterIPs: ['10.96.1.2', 'fd00:10::2'],
      ports: [{ name: 'http', port: 80 }],
    }),
    service('headless', { clusterIP: 'None', clusterIPs: ['None'], ports: [{ name: 'http', port: 80 }] }),
    service('portless', { clusterIP: 'None' }),
    service('hollow', { clusterIP: 'None' }),
    service('outside', { type: 'ExternalName', externalName: 'Example.org' }),
    service('inside', { type: 'ExternalName', externalName: 'web.default.svc.cluster.local' }),
    service('ring', { type: 'ExternalName', externalName: 'ring-2.default.svc.cluster.local.' }),
    service('ring-2', { type: 'ExternalName', externalName: 'ring.default.svc.cluster.local' }),
    slice('web-1', 'web', [{ addresses: ['10.1.0.9'] }], [http]),
    slice(
      'headless-1',
      'headless',
      [
        { addresses: ['10.1.0.2'], hostname: 'db-0', conditions: { ready: true } },
        { addresses: ['10.1.0.3'] },
        { addresses: ['10.1.0.4'], conditions: { ready: false } },
      ],
      [http],
    ),
    slice('headless-2', 'headless', [{ addresses: ['fd00:1::1'] }], [http], 'IPv6'),
    slice('portless-1', 'portless', [{ addresses: ['10.1.0.20'] }], undefined),
  );
  await cluster.start(stop.signal);
});
after(() => stop.abort());

async function ask(name: string, type: number) {
  const reply = await server.resolve(encodeQuery({ id: 5, name, type, udpBytesMax: 4096 }), 'udp', 'test');
  assert.ok(reply, `no answer to ${name}`);
  const message = decodeMessage(reply);
  const show = (section: string) =>
    message.records
      .filter(record => record.section === section && record.type !== TYPE.OPT)
      .map(({ name: owner, type: kind, ttlSeconds, data }) => `${owner} ${ttlSeconds} ${text(kind, data)}`)
      .sort();
  return {
    rcode: message.rcode,
    flags: message.flags,
    answers: show('answer'),
    authority: show('authority'),
    additional: show('additional'),
  };
}

function text(type: number, data: Buffer): string {
  if (type === TYPE.A) return `A ${data.join('.')}`;
  if (type === TYPE.AAAA) return `AAAA ${data.toString('hex')}`;
  if (type === TYPE.SRV)
    return `SRV ${data.readUInt16BE(0)} ${data.readUInt16BE(2)} ${data.readUInt16BE(4)} ${decodeName(data, 6).name}`;
  if (type === TYPE.TXT) return `TXT ${data.subarray(1)}`;
  if (type === TYPE.SOA) {
    const mname = decodeName(data, 0);
    const rname = decodeName(data, mname.end);
    const numbers = [1, 2, 3, 4].map(index => data.readUInt32BE(rname.end + index * 4));
    return `SOA ${mname.name} ${rname.name} ${numbers.join(' ')}`;
  }
  return `${Object.entries(TYPE).find(([, value]) => value === type)?.[0]} ${decodeName(data, 0).name}`;
}

const SOA = 'cluster.local 30 SOA ns.dns.cluster.local hostmaster.cluster.local 7200 1800 86400 30';

async function answered(name: string, type: number, answers: string[], additional: string[] = []): Promise<void> {
  const reply = await ask(name, type);
  assert.deepEqual(
    { rcode: reply.rcode, answers: reply.answers, additional: reply.additional, authority: reply.authority },
    { rcode: RCODE.NOERROR, answers, additional, authority: [] },
    name,
  );
  assert.equal(reply.flags & (FLAG.AA | FLAG.RD | FLAG.RA), FLAG.AA | FLAG.RD);
}

async function denied(name: string, type: number, rcode: number, soa = SOA): Promise<void> {
  const reply = await ask(name, type);
  assert.deepEqual(
    { rcode: reply.rcode, answers: reply.answers, authority: reply.authority },
    { rcode, answers: [], authority: [soa] },
    name,
  );
}

test('a Service answers with its cluster IP', async () => {
  await answered('web.default.svc.cluster.local', TYPE.A, ['web.default.svc.cluster.local 30 A 10.96.1.1']);
  await answered('dual.default.svc.cluster.local', TYPE.AAAA, [
    'dual.default.svc.cluster.local 30 AAAA fd000010000000000000000000000002',
  ]);
  await denied('web.default.svc.cluster.local', TYPE.AAAA, RCODE.NOERROR);
  await denied('web.default.svc.cluster.local', TYPE.MX, RCODE.NOERROR);
  await denied('web.default.svc.cluster.local', TYPE.ANY, RCODE.NOERROR);
});

test('SRV records name ports, weights share 100', async () => {
  const target = 'web.default.svc.cluster.local';
  await answered(
    `_http._tcp.${target}`,
    TYPE.SRV,
    [`_http._tcp.${target} 30 SRV 0 100 80 ${target}`],
    [`${target} 30 A 10.96.1.1`],
  );
  await answered(
    target,
    TYPE.SRV,
    [`${target} 30 SRV 0 50 53 ${target}`, `${target} 30 SRV 0 50 80 ${target}`],
    [`${target} 30 A 10.96.1.1`],
  );
  await denied(`_http._udp.${target}`, TYPE.SRV, RCODE.NXDOMAIN);
  await denied(`_nope._tcp.${target}`, TYPE.SRV, RCODE.NXDOMAIN);
  const headless = 'headless.default.svc.cluster.local';
  await answered(
    `_http._tcp.${headless}`,
    TYPE.SRV,
    [
      `_http._tcp.${headless} 30 SRV 0 33 8080 10-1-0-3.${headless}`,
      `_http._tcp.${headless} 30 SRV 0 33 8080 db-0.${headless}`,
      `_http._tcp.${headless} 30 SRV 0 33 8080 fd00-1--1.${headless}`,
    ],
    [
      `10-1-0-3.${headless} 30 A 10.1.0.3`,
      `db-0.${headless} 30 A 10.1.0.2`,
      `fd00-1--1.${headless} 30 AAAA fd000001000000000000000000000001`,
    ],
  );
});

test('a headless Service answers with ready endpoints, each under its own name too', async () => {
  const name = 'headless.default.svc.cluster.local';
  await answered(name, TYPE.A, [`${name} 30 A 10.1.0.2`, `${name} 30 A 10.1.0.3`]);
  await answered(`db-0.${name}`, TYPE.A, [`db-0.${name} 30 A 10.1.0.2`]);
  await answered(`10-1-0-3.${name}`, TYPE.A, [`10-1-0-3.${name} 30 A 10.1.0.3`]);
  await denied(`10-1-0-4.${name}`, TYPE.A, RCODE.NXDOMAIN);
  await denied(`10-1-0-2.${name}`, TYPE.A, RCODE.NXDOMAIN);
  await answered('portless.default.svc.cluster.local', TYPE.A, ['portless.default.svc.cluster.local 30 A 10.1.0.20']);
  await denied('portless.default.svc.cluster.local', TYPE.SRV, RCODE.NOERROR);
  await denied('hollow.default.svc.cluster.local', TYPE.A, RCODE.NXDOMAIN);
  await answered('10-1-0-9.web.default.svc.cluster.local', TYPE.A, [
    '10-1-0-9.web.default.svc.cluster.local 30 A 10.1.0.9',
  ]);
});

test('ExternalName is a CNAME, followed inside the zone', async () => {
  await answered('outside.default.svc.cluster.local', TYPE.CNAME, [
    'outside.default.svc.cluster.local 30 CNAME Example.org',
  ]);
  await answered('outside.default.svc.cluster.local', TYPE.A, [
    'outside.default.svc.cluster.local 30 CNAME Example.org',
  ]);
  await answered('inside.default.svc.cluster.local', TYPE.A, [
    'inside.default.svc.cluster.local 30 CNAME web.default.svc.cluster.local',
    'web.default.svc.cluster.local 30 A 10.96.1.1',
  ]);
  assert.equal((await ask('ring.default.svc.cluster.local', TYPE.A)).answers.length, 1);
  await denied('x.outside.default.svc.cluster.local', TYPE.A, RCODE.NXDOMAIN);
});

test('pods answer by address in namespaces that exist', async () => {
  await answered('10-1-0-9.default.pod.cluster.local', TYPE.A, ['10-1-0-9.default.pod.cluster.local 30 A 10.1.0.9']);
  await answered('fd00--1.default.pod.cluster.local', TYPE.AAAA, [
    'fd00--1.default.pod.cluster.local 30 AAAA fd000000000000000000000000000001',
  ]);
  await denied('10-1-0-9.nowhere.pod.cluster.local', TYPE.A, RCODE.NXDOMAIN);
  await denied('web.default.pod.cluster.local', TYPE.A, RCODE.NXDOMAIN);
  await denied('10-1-0-999.default.pod.cluster.local', TYPE.A, RCODE.NXDOMAIN);
});

test('names between exist without records, others do not', async () => {
  for (const name of [
    'cluster.local',
    'svc.cluster.local',
    'pod.cluster.local',
    'default.svc.cluster.local',
    'empty.svc.cluster.local',
    'empty.pod.cluster.local',
    'dns.cluster.local',
  ]) {
    await denied(name, TYPE.A, RCODE.NOERROR);
  }
  const far = `${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.example.com.default.svc.cluster.local`;
  for (const name of [
    'nope.default.svc.cluster.local',
    'web.nowhere.svc.cluster.local',
    'nowhere.svc.cluster.local',
    'foo.cluster.local',
    'a.b.c.web.default.svc.cluster.local',
    'web\\.default.default.svc.cluster.local',
    far,
  ]) {
    await denied(name, TYPE.A, RCODE.NXDOMAIN);
  }
});

test('the zone tells its version, its name server and its SOA', async () => {
  await answered('dns-version.cluster.local', TYPE.TXT, ['dns-version.cluster.local 28800 TXT 1.1.0']);
  await answered(
    'cluster.local',
    TYPE.NS,
    ['cluster.local 30 NS kube-dns.kube-system.svc.cluster.local'],
    ['kube-dns.kube-system.svc.cluster.local 30 A 10.96.0.10'],
  );
  await answered('ns.dns.cluster.local', TYPE.A, ['ns.dns.cluster.local 30 A 10.96.0.10']);
  await answered('cluster.local', TYPE.SOA, [SOA]);
});

test('addresses lead back to names', async () => {
  await answered('1.1.96.10.in-addr.arpa', TYPE.PTR, ['1.1.96.10.in-addr.arpa 30 PTR web.default.svc.cluster.local']);
  await answered('2.0.1.10.in-addr.arpa', TYPE.PTR, [
    '2.0.1.10.in-addr.arpa 30 PTR db-0.headless.default.svc.cluster.local',
  ]);
  const ip6 = '2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.d.f.ip6.arpa';
  await answered(ip6, TYPE.PTR, [`${ip6} 30 PTR dual.default.svc.cluster.local`]);
  await denied(
    '9.9.9.9.in-addr.arpa',
    TYPE.PTR,
    RCODE.NXDOMAIN,
    'in-addr.arpa 30 SOA ns.dns.in-addr.arpa hostmaster.in-addr.arpa 7200 1800 86400 30',
  );
  await denied(
    '1.1.96.10.in-addr.arpa',
    TYPE.A,
    RCODE.NOERROR,
    'in-addr.arpa 30 SOA ns.dns.in-addr.arpa hostmaster.in-addr.arpa 7200 1800 86400 30',
  );
});

test('other names are refused without an upstream', async () => {
  const reply = await ask('example.org', TYPE.A);
  assert.equal(reply.rcode, RCODE.REFUSED);
  assert.equal(reply.flags & FLAG.AA, 0);
  assert.equal((await ask('xcluster.local', TYPE.A)).rcode, RCODE.REFUSED);
});

test('the question comes back in the case it was asked', async () => {
  const reply = server.answer(encodeQuery({ id: 77, name: 'WEB.Default.svc.CLUSTER.local', type: TYPE.A }))!;
  const message = decodeMessage(reply);
  assert.equal(message.id, 77);
  assert.equal(message.questions[0]!.name, 'WEB.Default.svc.CLUSTER.local');
  assert.equal(message.records[0]!.name, 'WEB.Default.svc.CLUSTER.local');
  assert.equal(message.records[0]!.data.join('.'), '10.96.1.1');
});

test('answers follow changes', async () => {
  const name = 'moving.default.svc.cluster.local';
  await denied(name, TYPE.A, RCODE.NXDOMAIN);
  await cluster.put(service('moving', { clusterIP: '10.96.7.7', ports: [{ port: 80 }] }));
  await answered(name, TYPE.A, [`${name} 30 A 10.96.7.7`]);
  await cluster.put(service('moving', { clusterIP: 'None' }));
  await denied(name, TYPE.A, RCODE.NXDOMAIN);
  await cluster.put(slice('moving-1', 'moving', [{ addresses: ['10.1.7.1'] }], []));
  await answered(name, TYPE.A, [`${name} 30 A 10.1.7.1`]);
  await cluster.put(slice('moving-1', 'moving', [{ addresses: ['10.1.7.2'] }], []));
  await answered(name, TYPE.A, [`${name} 30 A 10.1.7.2`]);
  await cluster.remove(service('moving', {}));
  await denied(name, TYPE.A, RCODE.NXDOMAIN);
});
