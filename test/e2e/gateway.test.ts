/** The Gateway API by stock kubectl: from `apply` to an answer, conditions, columns, who may refer to whom, what `cox trace` says. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { ensurePki } from '../../src/apiserver/certificates/pki.ts';
import { before, it, type Json, pod, root, useCluster, useNamespace } from './cluster.ts';
import { eventually, outcomeOf } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'gateway');
const other = useNamespace(cluster, 'gateway-other');
const k = (...args: string[]): Promise<string> => cluster.kubectl('-n', ns, ...args);
const folder = mkdtempSync(join(tmpdir(), 'cox-gateway-e2e-'));
after(() => rmSync(folder, { recursive: true, force: true }));
/** A machine with other work to do may take its time. */
const SLOWLY = { timeoutMs: 60_000 };
let address = '';

before(
  async () => {
    await cluster.kubectl('wait', '--for=condition=Accepted', 'gatewayclass/coxswain', '--timeout=120s');
    const pki = await ensurePki(join(folder, 'pki'), { sans: ['localhost'] });
    const pair = await pki.ensureServer('shop', { commonName: 'shop', organizations: [] }, ['shop.example.com']);
    writeFileSync(join(folder, 'tls.crt'), pair.certificate);
    writeFileSync(join(folder, 'tls.key'), pair.key);
    await k('create', 'secret', 'tls', 'shop', `--cert=${folder}/tls.crt`, `--key=${folder}/tls.key`);
    await k('apply', '-f', join(root, 'examples', 'gateway', 'shop.yaml'));
    await k('wait', '--for=condition=Programmed', 'gateway/shop', '--timeout=120s');
    await cluster.readyPods(ns, 'app=shop', 2);
    address = (await k('get', 'gateway', 'shop', '-o', 'jsonpath={.status.addresses[0].value}')).trim();
    await reply('/', { 'X-Version': '2' }, said => /version: 2/.test(said.text));
  },
  { timeout: 180_000 },
);

interface Said {
  readonly status: number;
  readonly text: string;
  readonly location: string;
}

/** What curl on a node says of the Gateway's address, once it is as wanted: the API has a route before a node's HAProxy does. */
function reply(
  path: string,
  headers: Record<string, string>,
  isWanted: (said: Said) => boolean,
  host = 'shop.example.com',
): Promise<Said> {
  return eventually(
    `${host}${path}`,
    async () => {
      const given = Object.entries({ Host: host, ...headers }).flatMap(([name, value]) => ['-H', `${name}: ${value}`]);
      const said = await ask(...given, `http://${address}:8080${path}`);
      if (!isWanted(said)) throw new Error(`${said.status} ${said.location}: ${said.text.slice(0, 200)}`);
      return said;
    },
    SLOWLY,
  );
}
async function ask(...args: string[]): Promise<Said> {
  const output = await cluster
    .onNode('node-1', 'curl', '-sk', '-m', '10', '-w', '\n%{http_code} %{redirect_url}', ...args)
    .catch(() => '\n0 ');
  const at = output.trimEnd().lastIndexOf('\n');
  const [status, location = ''] = output
    .slice(at + 1)
    .trim()
    .split(' ') as [string, string?];
  return { status: Number(status), text: output.slice(0, at), location };
}
const conditions = async (kind: string, name: string, namespace = ns): Promise<string> => {
  const { status } = (await cluster.json('-n', namespace, 'get', kind, name)) as Json;
  const said = (list: Json[]) => (list ?? []).map(each => `${each.type}=${each.status}/${each.reason}`).join(' ');
  if (kind === 'gateway')
    return `${said(status.conditions)}; ${(status.listeners ?? []).map((each: Json) => `${each.name} ${each.attachedRoutes} ${said(each.conditions)}`).join('; ')}`;
  return (status?.parents ?? []).map((each: Json) => said(each.conditions)).join('; ');
};
const says = (kind: string, name: string, wanted: RegExp, namespace = ns): Promise<string> =>
  eventually(
    `${kind} ${name} says ${wanted}`,
    async () => {
      const text = await conditions(kind, name, namespace);
      if (!wanted.test(text)) throw new Error(text);
      return text;
    },
    SLOWLY,
  );

it('no request is lost while listeners, weights and filters change', cluster, async () => {
  const asking = cluster.onNode(
    'node-1',
    'sh',
    '-c',
    `end=$(($(date +%s) + 8)); while [ $(date +%s) -lt $end ]; do
       curl -sf -m 2 -o /dev/null -H 'Host: shop.example.com' http://${address}:8080/ && echo ok || echo lost; done`,
  );
  const change = (of: string, op: string, path: string, value?: unknown) =>
    k('patch', of, 'shop', '--type=json', '-p', JSON.stringify([{ op, path, value }]));
  for (let at = 1; at <= 3; at++) {
    await change('gateway', 'add', '/spec/listeners/-', { name: `more-${at}`, port: 8100 + at, protocol: 'HTTP' });
    await change('httproute', 'replace', '/spec/rules/0/backendRefs/1/weight', at);
    const set = [{ name: 'x-step', value: String(at) }];
    await change('httproute', 'replace', '/spec/rules/0/filters', [
      { type: 'ResponseHeaderModifier', responseHeaderModifier: { set } },
    ]);
  }
  for (let at = 1; at <= 3; at++) await change('gateway', 'remove', '/spec/listeners/-1');
  await change('httproute', 'remove', '/spec/rules/0/filters');
  const said = (await asking).trim().split('\n');
  assert.equal(said.filter(line => line === 'lost').length, 0);
  assert.ok(said.length > 20, `${said.length} requests`);
});

it('an applied Gateway is served: by path, header and weight, rewritten and redirected', cluster, async () => {
  await reply('/', { 'X-Version': '2' }, ({ text }) => /version: 2/.test(text));
  await reply('/', {}, ({ text }) => /version: 1/.test(text));
  const api = await reply('/api/items?x=1', {}, ({ text }) => /version: 2/.test(text));
  assert.match(api.text, /request: GET \/v2\/items\?x=1/);
  assert.match(api.text, /user-agent: gateway/i);
  assert.match(api.text, /x-forwarded-for: \d/);
  const old = await reply('/old', {}, ({ status }) => status === 301);
  assert.equal(old.location, 'http://shop.example.com:8080/new');
  await reply('/', {}, ({ status }) => status === 404, 'nobody.example.com');
  const https = await eventually('an answer by HTTPS', async () => {
    const said = await ask('--resolve', `shop.example.com:8443:${address}`, 'https://shop.example.com:8443/');
    return said.status === 200 && said;
  });
  assert.match(https.text, /version: \d/);
  await eventually('an answer by the TCP listener', async () => {
    const said = await ask(`http://${address}:9000/plain`);
    return /version: 1[\s\S]*request: GET \/plain/.test(said.text);
  });
});

it('conditions and columns are upstream’s', cluster, async () => {
  await says('gateway', 'shop', /Accepted=True\/Accepted Programmed=True\/Programmed.*http 1 .*https 1 .*tcp 1 /);
  await says('httproute', 'shop', /^Accepted=True\/Accepted ResolvedRefs=True\/ResolvedRefs$/);
  assert.match(await k('get', 'gateways'), /^NAME +CLASS +ADDRESS +PROGRAMMED +AGE\nshop +coxswain +[\d.]+ +True/);
  assert.match(await k('get', 'httproutes'), /^NAME +HOSTNAMES +AGE\nshop +\["shop.example.com"\]/);
  assert.match(
    await cluster.kubectl('get', 'gc'),
    /^NAME +CONTROLLER +ACCEPTED +AGE\ncoxswain +coxswain.dev\/gateway +True/,
  );
  const { status, metadata } = (await cluster.json('-n', ns, 'get', 'gateway', 'shop')) as Json;
  for (const each of status.conditions) assert.equal(each.observedGeneration, metadata.generation);
  assert.deepEqual(
    status.listeners[0].supportedKinds.map((each: Json) => each.kind),
    ['HTTPRoute', 'GRPCRoute'],
  );
});

it('other namespaces: allowed by the listener, and by a ReferenceGrant', cluster, async () => {
  const route = (backend: object) => ({
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'HTTPRoute',
    metadata: { name: 'cross' },
    spec: {
      parentRefs: [{ name: 'shop', namespace: ns, sectionName: 'http' }],
      hostnames: ['cross.example.com'],
      rules: [{ backendRefs: [{ name: 'shop-v1', port: 80, ...backend }] }],
    },
  });
  await cluster.apply(other, [route({ namespace: ns })]);
  await says('httproute', 'cross', /Accepted=False\/NotAllowedByListeners/, other);
  const from = '[{"op":"replace","path":"/spec/listeners/0/allowedRoutes/namespaces","value":{"from":"All"}}]';
  await k('patch', 'gateway', 'shop', '--type=json', '-p', from);
  await says('httproute', 'cross', /Accepted=True\/Accepted ResolvedRefs=False\/RefNotPermitted/, other);
  await reply('/', {}, ({ status }) => status === 500, 'cross.example.com');
  await cluster.apply(ns, [
    {
      apiVersion: 'gateway.networking.k8s.io/v1beta1',
      kind: 'ReferenceGrant',
      metadata: { name: 'cross' },
      spec: {
        from: [{ group: 'gateway.networking.k8s.io', kind: 'HTTPRoute', namespace: other }],
        to: [{ group: '', kind: 'Service', name: 'shop-v1' }],
      },
    },
  ]);
  await says('httproute', 'cross', /Accepted=True\/Accepted ResolvedRefs=True\/ResolvedRefs/, other);
  await reply('/', {}, ({ status }) => status === 200, 'cross.example.com');
});

it('a ListenerSet of another namespace adds a listener, once the Gateway allows it', cluster, async () => {
  const api = 'gateway.networking.k8s.io/v1';
  await cluster.apply(other, [
    {
      apiVersion: api,
      kind: 'ListenerSet',
      metadata: { name: 'more' },
      spec: {
        parentRef: { name: 'shop', namespace: ns },
        listeners: [
          { name: 'own', port: 8080, protocol: 'HTTP', hostname: 'set.example.net' },
          { name: 'taken', port: 9000, protocol: 'TCP' },
        ],
      },
    },
    {
      apiVersion: api,
      kind: 'HTTPRoute',
      metadata: { name: 'set' },
      spec: {
        parentRefs: [{ kind: 'ListenerSet', name: 'more', sectionName: 'own' }],
        rules: [{ backendRefs: [{ name: 'shop-v1', namespace: ns, port: 80 }] }],
      },
    },
  ]);
  const setSays = (wanted: RegExp) =>
    eventually(
      `the ListenerSet says ${wanted}`,
      async () => {
        const { status } = (await cluster.json('-n', other, 'get', 'listenerset', 'more')) as Json;
        const said = (list: Json[]) => list.map(each => `${each.type}=${each.status}/${each.reason}`).join(' ');
        const text = `${said(status.conditions)}; ${(status.listeners ?? []).map((each: Json) => `${each.name} ${each.attachedRoutes} ${said(each.conditions)}`).join('; ')}`;
        if (!wanted.test(text)) throw new Error(text);
        return text;
      },
      SLOWLY,
    );
  await setSays(/^Accepted=False\/NotAllowed Programmed=False\/NotAllowed; $/);
  await says('httproute', 'set', /Accepted=False\/NoMatchingParent/, other);
  const allow = [{ op: 'add', path: '/spec/allowedListeners', value: { namespaces: { from: 'All' } } }];
  await k('patch', 'gateway', 'shop', '--type=json', '-p', JSON.stringify(allow));
  await setSays(
    /^Accepted=True\/ListenersNotValid Programmed=True\/Programmed; own 1 Accepted=True.* Programmed=True\/Programmed; taken 0 Accepted=False\/HostnameConflict Conflicted=True/,
  );
  await says('httproute', 'set', /Accepted=True\/Accepted ResolvedRefs=True/, other);
  await reply('/', {}, ({ text }) => /version: 1/.test(text), 'set.example.net');
  const { status } = (await cluster.json('-n', ns, 'get', 'gateway', 'shop')) as Json;
  assert.equal(status.attachedListenerSets, 1);
  assert.equal(status.listeners.length, 3);
  await cluster.kubectl('-n', other, 'delete', 'listenerset', 'more');
  await reply('/', {}, ({ status }) => status === 404, 'set.example.net');
});

it('cox trace tells which rule of which route takes a request', cluster, async () => {
  const traced = await eventually('a trace that works', async () => {
    const { code, stdout } = await cluster.tryCox(['trace', 'http://shop.example.com:8080/api/x']);
    if (code !== 0) throw new Error(stdout);
    return stdout;
  });
  assert.match(traced, new RegExp(`taken by rule 3 of HTTPRoute ${ns}/shop, at listener http of Gateway ${ns}/shop`));
  assert.match(traced, /rewritten with another path/);
  assert.match(traced, new RegExp(`HAProxy sends it to Service ${ns}/shop-v2:80`));
  const missing = await cluster.tryCox(['trace', 'http://nobody.example.com:8080/']);
  assert.match(missing.stdout, /listener http of Gateway .* no route there takes \/: 404/);
  assert.equal(missing.code, 1);
});

it('datagrams and streams go to pods by their routes', cluster, async () => {
  const api = 'gateway.networking.k8s.io';
  const route = (kind: string, sectionName: string, version: string) => ({
    apiVersion: `${api}/${version}`,
    kind,
    metadata: { name: 'streams' },
    spec: {
      parentRefs: [{ name: 'streams', sectionName }],
      rules: [{ backendRefs: [{ name: 'streams', port: 5000 }] }],
    },
  });
  await cluster.apply(ns, [
    pod('streams', 'coxswain/echo:1', { labels: { app: 'streams' } }),
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'streams' },
      spec: {
        selector: { app: 'streams' },
        ports: ['TCP', 'UDP'].map(protocol => ({ name: protocol.toLowerCase(), port: 5000, protocol })),
      },
    },
    {
      apiVersion: `${api}/v1`,
      kind: 'Gateway',
      metadata: { name: 'streams' },
      spec: {
        gatewayClassName: 'coxswain',
        listeners: ['TCP', 'UDP'].map(protocol => ({ name: protocol.toLowerCase(), port: 5300, protocol })),
      },
    },
    route('TCPRoute', 'tcp', 'v1'),
    route('UDPRoute', 'udp', 'v1alpha2'),
  ]);
  await says('gateway', 'streams', /Programmed=True\/Programmed.*tcp 1 .*udp 1 /);
  for (const kind of ['tcproute', 'udproute'])
    await says(kind, 'streams', /^Accepted=True\/Accepted ResolvedRefs=True\/ResolvedRefs$/);
  await cluster.readyPod(ns, 'streams');
  const at = (await k('get', 'gateway', 'streams', '-o', 'jsonpath={.status.addresses[0].value}')).trim();
  for (const protocol of ['tcp', 'udp'])
    await eventually(
      `an answer by ${protocol}`,
      async () => {
        const ask = `exec 3<>/dev/${protocol}/${at}/5300; echo hi >&3; timeout 1 head -n1 <&3`;
        return (await cluster.onNode('node-1', 'bash', '-c', ask).catch(() => '')).startsWith('streams');
      },
      SLOWLY,
    );
  await k('delete', 'gateway', 'streams');
});

it('what cannot be had is told; with the Gateway its Service goes', cluster, async () => {
  await cluster.apply(ns, [
    {
      apiVersion: 'gateway.networking.k8s.io/v1',
      kind: 'Gateway',
      metadata: { name: 'odd' },
      spec: {
        gatewayClassName: 'coxswain',
        listeners: [
          { name: 'http', port: 80, protocol: 'HTTP' },
          { name: 'tcp', port: 80, protocol: 'TCP' },
          { name: 'https', port: 443, protocol: 'HTTPS', tls: { certificateRefs: [{ name: 'nobody' }] } },
        ],
      },
    },
  ]);
  const told = await says('gateway', 'odd', /Accepted=False\/ListenersNotValid Programmed=False\/Invalid/);
  assert.match(told, /http 0 Accepted=False\/ProtocolConflict Conflicted=True\/ProtocolConflict/);
  assert.match(told, /https 0 .*ResolvedRefs=False\/InvalidCertificateRef/);
  await k('delete', 'gateway', 'odd', 'shop');
  await eventually('the Service is gone', async () => {
    const { code } = await outcomeOf(cluster.kubectlPath, ['-n', ns, 'get', 'service', 'shop-coxswain'], {
      env: cluster.env,
    });
    return code !== 0;
  });
});
