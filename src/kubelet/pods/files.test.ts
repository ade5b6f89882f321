import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '../../api/core/v1.gen.ts';
import { hostnameOf, hostsFile, parseResolver, resolverFile } from './files.ts';

const pod = (spec: object = {}): Pod =>
  ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace: 'n', uid: 'u' },
    spec: { containers: [], ...spec },
  }) as Pod;
const options = {
  clusterDns: ['10.96.0.10', 'fd00::a'],
  clusterDomain: 'cluster.local',
  nodeResolver: '# made by hand\nnameserver 9.9.9.9 # first\nsearch old\nsearch home. corp.example.\noptions rotate\n',
};
const CLUSTER = 'search n.svc.cluster.local svc.cluster.local cluster.local home corp.example';

test('dnsPolicy in every form', () => {
  const cluster = `${CLUSTER}\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n`;
  const node = 'search home corp.example\nnameserver 9.9.9.9\noptions rotate\n';
  for (const [spec, text] of [
    [{}, cluster],
    [{ dnsPolicy: 'ClusterFirst' }, cluster],
    [{ dnsPolicy: 'ClusterFirst', hostNetwork: true }, node],
    [{ dnsPolicy: 'ClusterFirstWithHostNet', hostNetwork: true }, cluster],
    [{ dnsPolicy: 'Default' }, node],
    [{ dnsPolicy: 'None' }, ''],
    [
      { dnsPolicy: 'None', dnsConfig: { nameservers: ['192.0.2.1'], searches: ['a.b'] } },
      'search a.b\nnameserver 192.0.2.1\n',
    ],
  ] as const) {
    const { text: written, warnings } = resolverFile(pod(spec), options);
    assert.deepEqual([written, warnings], [text, []], JSON.stringify(spec));
  }
});

test('dnsConfig adds, and replaces options by name', () => {
  const { text } = resolverFile(
    pod({
      dnsConfig: {
        nameservers: ['192.0.2.1', '10.96.0.10'],
        searches: ['home', 'own.example'],
        options: [{ name: 'ndots', value: '2' }, { name: 'single-request' }],
      },
    }),
    options,
  );
  assert.equal(
    text,
    `${CLUSTER} own.example\nnameserver 10.96.0.10\nnameserver fd00::a\nnameserver 192.0.2.1\noptions ndots:2 single-request\n`,
  );
});

test('what is over the limits is left out and told', () => {
  const many = resolverFile(
    pod({
      dnsConfig: { nameservers: ['192.0.2.1', '192.0.2.2'], searches: Array.from({ length: 40 }, (_, i) => `s${i}`) },
    }),
    options,
  );
  assert.equal(parseResolver(many.text).searches.length, 32);
  assert.deepEqual(
    many.warnings.map(({ reason, message }) => `${reason}: ${message.split(':')[0]}`),
    [
      'DNSConfigForming: Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is',
      'DNSConfigForming: Search Line limits were exceeded, some search paths have been omitted, the applied search line is',
    ],
  );
  const long = resolverFile(
    pod({ dnsConfig: { searches: Array.from({ length: 20 }, (_, i) => `${i}${'x'.repeat(150)}`) } }),
    options,
  );
  assert.ok(parseResolver(long.text).searches.join(' ').length <= 2048);
  assert.equal(long.warnings.length, 1);
  const none = resolverFile(pod(), { ...options, clusterDns: [] });
  assert.match(none.warnings[0]!.message, /^pod: "p_n\(u\)"\. kubelet does not have ClusterDNS IP configured/);
  assert.match(none.text, /nameserver 9\.9\.9\.9/);
});

test('host names: subdomain, FQDN, and what the kernel cannot take', () => {
  const of = (spec: object) => hostnameOf(pod(spec), 'cluster.local');
  assert.deepEqual(of({ hostname: 'h', subdomain: 's' }), { hostname: 'h', domain: 's.n.svc.cluster.local' });
  assert.equal(of({ hostname: 'h', subdomain: 's', setHostnameAsFQDN: true }).hostname, 'h.s.n.svc.cluster.local');
  assert.throws(
    () => of({ hostname: 'h'.repeat(50), subdomain: 's', setHostnameAsFQDN: true }),
    /64 characters is the max, 72/,
  );
  const names = of({ hostname: 'h', subdomain: 's', setHostnameAsFQDN: true });
  const text = hostsFile(pod({ hostAliases: [{ ip: '192.0.2.1', hostnames: ['a', 'b'] }] }), {
    podIps: ['10.244.0.5', 'fd00::5'],
    ...names,
  });
  assert.match(text, /^10\.244\.0\.5\th\.s\.n\.svc\.cluster\.local\th\nfd00::5\th\.s\.n\.svc\.cluster\.local\th\n/m);
  assert.match(text, /# Entries added by HostAliases\.\n192\.0\.2\.1\ta\tb\n$/);
});
