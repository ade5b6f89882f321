import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { VirtualClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
import { seededRandom } from '../base/random.ts';
import { SERVICES } from '../client/resources.ts';
import { ClusterFixture, namespace, service, slice } from './cluster-fixture.ts';
import { defaultCorefile } from './configuration.ts';
import { decodeMessage, encodeQuery, FLAG, RCODE, TYPE } from './message.ts';
import { decodeName } from './name.ts';
import { freePort, NameServerFixture } from './name-server-fixture.ts';
import { PLUGINS } from './plugins/registry.ts';
import { DnsServer, type DnsServerOptions } from './server.ts';

const KUBERNETES =
  'kubernetes cluster.local in-addr.arpa ip6.arpa {\n pods insecure\n ttl 30\n fallthrough in-addr.arpa ip6.arpa\n}';

async function started(t: TestContext, corefile: string, options: Partial<DnsServerOptions> = {}) {
  const stop = new AbortController();
  const cluster = new ClusterFixture();
  const warnings: string[] = [];
  const server = new DnsServer({
    informers: cluster,
    listen: { addresses: ['127.0.0.1'], port: await freePort() },
    corefile,
    random: seededRandom(1),
    log: silentLogger,
    onWarning: (reason, message) => warnings.push(`${reason}: ${message}`),
    ...options,
  });
  await cluster.put(
    namespace('default'),
    service('web', { clusterIP: '10.96.1.1', ports: [{ name: 'http', port: 80 }] }),
  );
  await cluster.start(stop.signal);
  const running = server.run(stop.signal);
  const { port } = await server.bound;
  t.after(async () => {
    stop.abort();
    await running;
  });
  const ask = async (name: string, type: number = TYPE.A) => {
    const reply = await server.resolve(encodeQuery({ id: 1, name, type }), 'udp', '10.244.0.9');
    const message = decodeMessage(reply!);
    return {
      rcode: message.rcode,
      flags: message.flags,
      question: message.questions[0]!.name,
      answers: message.records
        .filter(({ section }) => section === 'answer')
        .map(record => `${record.name} ${record.ttlSeconds} ${show(record.type, record.data)}`),
    };
  };
  return { server, cluster, port, stop, ask, warnings };
}

function show(type: number, data: Buffer): string {
  if (type === TYPE.A) return data.join('.');
  if (type === TYPE.CNAME || type === TYPE.PTR) return decodeName(data, 0).name;
  return data.toString('hex');
}

test('every plugin of the folder is in the registry', () => {
  const folder = join(import.meta.dirname, 'plugins');
  const exported = readdirSync(folder).flatMap(file =>
    [...readFileSync(join(folder, file), 'utf8').matchAll(/^export const \w+: Plugin = \{\n\s+name: '(\w+)'/gm)].map(
      ([, name]) => name!,
    ),
  );
  assert.deepEqual(PLUGINS.map(({ name }) => name).sort(), exported.sort());
});

test("kubeadm's Corefile is understood whole", async t => {
  const { ask, server } = await started(t, defaultCorefile('cluster.local'));
  assert.deepEqual((await ask('web.default.svc.cluster.local')).answers, [
    'web.default.svc.cluster.local 30 10.96.1.1',
  ]);
  assert.match(server.metrics.render(), /coredns_dns_requests_total\{.*type="A"\} 1/);
});

test('stub domains: the longest zone answers', async t => {
  const world = await NameServerFixture.start(() => ({ answers: ['x. 60 A 192.0.2.1'] }), t);
  const company = await NameServerFixture.start(name => ({ answers: [`${name}. 60 A 192.0.2.2`] }), t);
  const { ask } = await started(
    t,
    `.:53 {\n ${KUBERNETES}\n forward . ${world.address}\n}\nexample.local:53 {\n forward . ${company.address}\n}\n`,
  );
  assert.deepEqual((await ask('db.Example.local')).answers, ['db.Example.local 60 192.0.2.2']);
  await ask('db.example.locals');
  await ask('xexample.local');
  assert.deepEqual(company.asked, ['udp db.example.local']);
  assert.deepEqual(world.asked, ['udp db.example.locals', 'udp xexample.local']);
  assert.equal((await ask('nope.default.svc.cluster.local')).rcode, RCODE.NXDOMAIN);
});

test('answers of others are remembered as long as they allow, denials as their SOA says', async t => {
  const clock = new VirtualClock();
  const upstream = await NameServerFixture.start(
    name =>
      name.startsWith('no')
        ? { rcode: RCODE.NXDOMAIN, authority: ['example.com. 300 SOA ns.example.com. me.example.com. 1 2 3 4 7'] }
        : { answers: [`${name}. 20 A 192.0.2.1`] },
    t,
  );
  const { ask } = await started(
    t,
    `. {\n ${KUBERNETES}\n forward . ${upstream.address} {\n max_fails 0\n }\n cache 60\n}\n`,
    { clock },
  );
  const times = async (name: string): Promise<number> => {
    await ask(name);
    return upstream.asked.filter(asked => asked === `udp ${name}`).length;
  };
  assert.deepEqual((await ask('www.example.com')).answers, ['www.example.com 20 192.0.2.1']);
  await clock.advance(15_000);
  assert.deepEqual((await ask('WWW.example.com')).answers, ['WWW.example.com 5 192.0.2.1']);
  assert.equal(await times('www.example.com'), 1);
  await clock.advance(6000);
  assert.equal(await times('www.example.com'), 2);
  assert.equal(await times('no.example.com'), 1);
  await clock.advance(6000);
  assert.equal(await times('no.example.com'), 1);
  await clock.advance(2000);
  assert.equal(await times('no.example.com'), 2);
});

test('equal questions at one time are asked once; a stale answer beats none', async t => {
  const clock = new VirtualClock();
  let silent = false;
  const upstream = await NameServerFixture.start(
    name => (silent ? { rcode: RCODE.SERVFAIL } : { answers: [`${name}. 10 A 192.0.2.1`] }),
    t,
  );
  const { ask } = await started(
    t,
    `. {\n forward . ${upstream.address} {\n max_fails 0\n }\n cache {\n serve_stale\n }\n}\n`,
    { clock },
  );
  const replies = await Promise.all(Array.from({ length: 20 }, () => ask('www.example.com')));
  assert.ok(replies.every(({ answers }) => answers.length === 1));
  assert.equal(upstream.asked.length, 1);
  silent = true;
  await clock.advance(20_000);
  assert.deepEqual((await ask('www.example.com')).answers, ['www.example.com 0 192.0.2.1']);
});

test('a cache stays within its capacity', async t => {
  const upstream = await NameServerFixture.start(name => ({ answers: [`${name}. 600 A 192.0.2.1`] }), t);
  const { ask, server } = await started(t, `. {\n forward . ${upstream.address}\n cache {\n success 10\n }\n}\n`);
  for (let index = 0; index < 30; index++) await ask(`n${index}.example.com`);
  assert.match(server.metrics.render(), /coredns_cache_entries\{type="success"\} 10/);
});

test('a dead upstream is passed over, and comes back', async t => {
  const good = await NameServerFixture.start(name => ({ answers: [`${name}. 60 A 192.0.2.1`] }), t);
  const other = await NameServerFixture.start(name => ({ answers: [`${name}. 60 A 192.0.2.2`] }), t);
  const dead = other.address;
  other.close();
  const { ask } = await started(t, `. {\n forward . ${dead} ${good.address} {\n policy sequential\n }\n}\n`);
  for (let index = 0; index < 5; index++)
    assert.deepEqual((await ask(`n${index}.example.com`)).answers, [`n${index}.example.com 60 192.0.2.1`]);
});

test('when every upstream is known to be dead a question fails at once', async t => {
  const closed = await NameServerFixture.start(() => undefined, t);
  const gone = closed.address;
  closed.close();
  const { ask, server } = await started(t, `. {\n errors\n forward . ${gone} {\n health_check 100ms\n }\n}\n`);
  for (let round = 0; round < 100 && !/forward_healthcheck_broken/.test(server.metrics.render()); round++) {
    assert.equal((await ask('www.example.com')).rcode, RCODE.SERVFAIL);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  assert.match(server.metrics.render(), /coredns_forward_healthcheck_broken_total [1-9]/);
});

test('what an upstream cut off is asked for again over TCP', async t => {
  const many = Array.from({ length: 150 }, (_, index) => `big.example.com. 60 A 192.0.2.${index}`);
  const upstream = await NameServerFixture.start(() => ({ answers: many }), t);
  const { server } = await started(t, `. {\n forward . ${upstream.address}\n cache\n}\n`);
  const reply = await server.resolve(encodeQuery({ id: 1, name: 'big.example.com', type: TYPE.A }), 'tcp', 'x');
  assert.equal(decodeMessage(reply!).records.length, 150);
  const cut = await server.resolve(encodeQuery({ id: 1, name: 'big.example.com', type: TYPE.A }), 'udp', 'x');
  assert.ok(decodeMessage(cut!).flags & FLAG.TC);
  assert.equal(upstream.asked.length, 1, 'the second came from memory, and was cut for its client');
});

test('an alias out of the cluster is followed, one inside too, and never remembered', async t => {
  const upstream = await NameServerFixture.start(
    name => ({ answers: [`${name}. 60 CNAME end.example.org.`, 'end.example.org. 60 A 192.0.2.9'] }),
    t,
  );
  const { ask, cluster } = await started(t, `. {\n ${KUBERNETES}\n forward . ${upstream.address}\n cache\n}\n`);
  await cluster.put(service('out', { type: 'ExternalName', externalName: 'www.example.org' }));
  assert.deepEqual((await ask('out.default.svc.cluster.local')).answers, [
    'out.default.svc.cluster.local 30 www.example.org',
    'www.example.org 60 end.example.org',
    'end.example.org 60 192.0.2.9',
  ]);
  await cluster.put(service('out', { type: 'ExternalName', externalName: 'web.default.svc.cluster.local' }));
  assert.deepEqual((await ask('out.default.svc.cluster.local')).answers, [
    'out.default.svc.cluster.local 30 web.default.svc.cluster.local',
    'web.default.svc.cluster.local 30 10.96.1.1',
  ]);
});

test('hosts, from lines and from a key of the ConfigMap', async t => {
  const { ask } = await started(
    t,
    `. {\n hosts /etc/coredns/NodeHosts {\n 10.9.9.9 db.company.test db\n fd00::9 db.company.test\n ttl 60\n fallthrough\n }\n ${KUBERNETES}\n}\n`,
    { readFile: path => (path === '/etc/coredns/NodeHosts' ? '192.168.1.7 node-7 # comment\nbad line\n' : undefined) },
  );
  assert.deepEqual((await ask('DB.company.test')).answers, ['DB.company.test 60 10.9.9.9']);
  assert.deepEqual((await ask('node-7')).answers, ['node-7 60 192.168.1.7']);
  assert.deepEqual((await ask('9.9.9.10.in-addr.arpa', TYPE.PTR)).answers, [
    '9.9.9.10.in-addr.arpa 60 db.company.test',
    '9.9.9.10.in-addr.arpa 60 db',
  ]);
  const other = await ask('node-7', TYPE.AAAA);
  assert.deepEqual([other.rcode, other.answers.length], [RCODE.NOERROR, 0]);
  assert.deepEqual((await ask('web.default.svc.cluster.local')).answers.length, 1);
});

test('rewrite asks for another name, and tells the one that was asked', async t => {
  const { ask } = await started(
    t,
    `. {\n rewrite name exact shop.example.com web.default.svc.cluster.local\n rewrite name suffix .old.test .default.svc.cluster.local answer auto\n rewrite name regex (.*)\\.short\\.test {1}.default.svc.cluster.local\n ${KUBERNETES}\n}\n`,
  );
  for (const name of ['Shop.example.com', 'web.old.test', 'web.short.test']) {
    const reply = await ask(name);
    assert.deepEqual([reply.question, reply.answers], [name, [`${reply.answers[0]!.split(' ')[0]} 30 10.96.1.1`]]);
    assert.equal(reply.answers[0]!.split(' ')[0]!.toLowerCase(), name.toLowerCase());
  }
  assert.equal((await ask('nope.old.test')).rcode, RCODE.NXDOMAIN);
  const long = `${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.${'d'.repeat(50)}.old.test`;
  assert.equal((await ask(long)).rcode, RCODE.SERVFAIL);
});

test('template fills in', async t => {
  const { ask } = await started(
    t,
    '. {\n template IN A example {\n match (^|[.])ip-(?P<a>[0-9]*)-(?P<b>[0-9]*)-(?P<c>[0-9]*)-(?P<d>[0-9]*)[.]example[.]$\n answer "{{ .Name }} 60 IN A {{ .Group.a }}.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}"\n fallthrough\n }\n template ANY ANY invalid {\n rcode NXDOMAIN\n }\n}\n',
  );
  assert.deepEqual((await ask('ip-10-1-2-3.example')).answers, ['ip-10-1-2-3.example 60 10.1.2.3']);
  assert.equal((await ask('ip-10-1-2-999.example')).rcode, RCODE.SERVFAIL);
  assert.equal((await ask('other.example')).rcode, RCODE.REFUSED);
  assert.equal((await ask('some.invalid')).rcode, RCODE.NXDOMAIN);
});

test('a loop is found and nothing is forwarded any more; the cluster still resolves', async t => {
  const { ask, port, server, warnings } = await started(t, `. {\n ${KUBERNETES}\n reload\n}\n`);
  server.configure(`. {\n ${KUBERNETES}\n loop\n cache\n forward . 127.0.0.1:${port}\n}\n`);
  for (let round = 0; round < 200 && warnings.length === 0; round++)
    await new Promise(resolve => setTimeout(resolve, 10));
  assert.match(warnings[0]!, /^DNSLoop: Loop \(127\.0\.0\.1 -> \.\) detected/);
  assert.equal((await ask('www.example.com')).rcode, RCODE.SERVFAIL);
  assert.equal((await ask('web.default.svc.cluster.local')).answers.length, 1);
});

test('a faulty Corefile is told and changes nothing; a good one takes over', async t => {
  const { ask, server, warnings } = await started(t, `. {\n ${KUBERNETES}\n reload\n}\n`);
  for (const [text, pattern] of [
    ['. {\n kubernetes cluster.local\n nonsense\n}', /^Corefile:3 - Unknown directive 'nonsense'; there are: /],
    ['. {\n kubernetes {\n pods maybe\n }\n}', /^Corefile:2 - kubernetes: needs the cluster domain/],
    ['. {\n kubernetes cluster.local {\n pods maybe\n }\n}', /^Corefile:3 - pods: must be/],
    ['. {\n forward .\n}', /^Corefile:2 - forward: needs a zone and servers/],
    ['. {\n forward . dns.example.com\n}', /not an IP address or file: "dns.example.com"/],
    ['. {\n cache 30 {\n nothing\n }\n}', /^Corefile:3 - cache: unknown property 'nothing'/],
    ['. {\n errors\n errors\n}', /^Corefile:3 - plugin\/errors: this plugin can only be used once/],
    ['. {\n errors\n}\n. {\n errors\n}', /^Corefile:4 - cannot serve dns:\/\/\.:53 - it is already defined/],
    ['.:5353 {\n errors\n}', /^Corefile:1 - \.:5353: only port 53 is served/],
    ['tls://. {\n errors\n}', /^Corefile:1 - tls:\/\/\.: only plain DNS is served/],
    ['', /^Corefile:1 - no server block/],
  ] as const) {
    assert.match(server.configure(text) ?? '', pattern, text);
  }
  assert.match(warnings[0]!, /^InvalidCorefile: Corefile:3.*the last good configuration stays in force$/);
  assert.equal((await ask('web.default.svc.cluster.local')).answers.length, 1);
  assert.equal(server.configure(`. {\n kubernetes other.test {\n ttl 7\n }\n reload\n}\n`), undefined);
  assert.deepEqual((await ask('web.default.svc.other.test')).answers, ['web.default.svc.other.test 7 10.96.1.1']);
  assert.equal((await ask('web.default.svc.cluster.local')).rcode, RCODE.REFUSED);
});

test("kubernetes' own options", async t => {
  const { ask, cluster } = await started(
    t,
    '. {\n kubernetes cluster.local in-addr.arpa {\n pods verified\n namespaces default\n labels tier notin (hidden)\n endpoint_pod_names\n ignore empty_service\n }\n}\n',
  );
  await cluster.put(
    namespace('secret'),
    service('web', { clusterIP: '10.96.1.2', ports: [{ port: 80 }] }, 'secret'),
    {
      ...service('hidden', { clusterIP: '10.96.1.3', ports: [{ port: 80 }] }),
      metadata: { name: 'hidden', namespace: 'default', labels: { tier: 'hidden' } },
    },
    service('group', { clusterIP: 'None' }),
    slice('group-1', 'group', [{ addresses: ['10.1.0.5'], targetRef: { kind: 'Pod', name: 'group-abc' } }], []),
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'p', namespace: 'default' },
      status: { podIPs: [{ ip: '10.1.0.5' }] },
    } as never,
  );
  assert.equal((await ask('web.default.svc.cluster.local')).rcode, RCODE.NXDOMAIN, 'it has no endpoints');
  await cluster.put(slice('web-1', 'web', [{ addresses: ['10.1.0.6'] }], []));
  assert.equal((await ask('web.default.svc.cluster.local')).answers.length, 1);
  assert.equal((await ask('web.secret.svc.cluster.local')).rcode, RCODE.NXDOMAIN);
  assert.equal((await ask('2.1.96.10.in-addr.arpa', TYPE.PTR)).rcode, RCODE.NXDOMAIN);
  assert.equal((await ask('hidden.default.svc.cluster.local')).rcode, RCODE.NXDOMAIN);
  assert.equal((await ask('group-abc.group.default.svc.cluster.local')).answers.length, 1);
  assert.equal((await ask('10-1-0-5.default.pod.cluster.local')).answers.length, 1);
  assert.equal((await ask('10-1-0-7.default.pod.cluster.local')).rcode, RCODE.NXDOMAIN);
});

test('transfers and other classes are refused, other types of a name are empty', async t => {
  const { server, ask } = await started(t, `. {\n ${KUBERNETES}\n}\n`);
  for (const type of [TYPE.AXFR, TYPE.IXFR]) assert.equal((await ask('cluster.local', type)).rcode, RCODE.REFUSED);
  const chaos = server.answer(encodeQuery({ id: 1, name: 'version.bind', type: TYPE.TXT, class: 3 }))!;
  assert.equal(decodeMessage(chaos).rcode, RCODE.REFUSED);
  for (const type of [TYPE.MX, TYPE.TXT, TYPE.HINFO, TYPE.ANY, 65, 65_280]) {
    const reply = await ask('web.default.svc.cluster.local', type);
    assert.deepEqual([reply.rcode, reply.answers.length], [RCODE.NOERROR, 0]);
  }
});

test('no answer is older than the last watch event: who hears the event already gets the new answer', async t => {
  const { server, cluster } = await started(t, `. {\n ${KUBERNETES}\n cache\n}\n`);
  const query = encodeQuery({ id: 1, name: 'web.default.svc.cluster.local', type: TYPE.A });
  const address = () => decodeMessage(server.answer(query)!).records[0]?.data.join('.');
  const heard: [string | undefined, string | undefined][] = [];
  cluster.get(SERVICES).onChange(({ object }) => {
    const spec = (object as { spec?: { clusterIP?: string } } | undefined)?.spec;
    heard.push([spec?.clusterIP, address()]);
  });
  heard.length = 0;
  for (let index = 2; index < 50; index++)
    await cluster.put(service('web', { clusterIP: `10.96.1.${index}`, ports: [{ port: 80 }] }));
  assert.equal(heard.length, 48);
  for (const [told, answered] of heard) assert.equal(answered, told);
});

test('names of the cluster still resolve when the API server is gone', async t => {
  const { ask, cluster } = await started(t, `. {\n ${KUBERNETES}\n}\n`);
  cluster.disconnect();
  assert.equal((await ask('web.default.svc.cluster.local')).answers.length, 1);
  assert.equal((await ask('nope.default.svc.cluster.local')).rcode, RCODE.NXDOMAIN);
});

test('hostile packets: always a well-formed reply or none, never a fall', async t => {
  const { server, ask } = await started(
    t,
    `. {\n rewrite name suffix .old.test .default.svc.cluster.local answer auto\n template IN A tpl {\n answer "{{ .Name }} 60 IN A 192.0.2.1"\n }\n hosts {\n 192.0.2.7 h.test\n fallthrough\n }\n ${KUBERNETES}\n cache\n}\n`,
  );
  const names = ['web.default.svc.cluster.local', 'web.old.test', 'x.tpl', 'h.test', '1.1.96.10.in-addr.arpa', '.'];
  const query = fc
    .tuple(fc.constantFrom(...names), fc.constantFrom(1, 5, 6, 12, 28, 33, 255, 65_535), fc.nat(65_535))
    .map(([name, type, id]) => encodeQuery({ id, name, type, udpBytesMax: 1232 }));
  const changes = fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(query, fc.uint8Array({ maxLength: 600 }).map(Buffer.from)),
      changes,
      fc.nat(300),
      async (base, edits, length) => {
        const bytes = Buffer.from(base);
        for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
        const message = Buffer.from(
          bytes.subarray(0, bytes.length - (length % 7 === 0 ? length % (bytes.length + 1) : 0)),
        );
        for (const via of ['udp', 'tcp'] as const) {
          const reply = await server.resolve(message, via, '192.0.2.99');
          if (reply) assert.equal(decodeMessage(reply).id, message.readUInt16BE(0));
        }
      },
    ),
    { numRuns: 400 },
  );
  assert.doesNotMatch(server.metrics.render(), /coredns_panics_total [1-9]/);
  assert.equal((await ask('web.default.svc.cluster.local')).answers.length, 1);
});
