/** Ingresses by stock kubectl: from `create ingress` to an answer, addresses, events, TLS, a data plane that outlives its agent. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { ensurePki } from '../../src/apiserver/certificates/pki.ts';
import { before, it, type Json, root, useCluster, useNamespace } from './cluster.ts';
import { eventually, outcomeOf } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'ingress');
const other = useNamespace(cluster, 'ingress-other');
const k = (...args: string[]): Promise<string> => cluster.kubectl('-n', ns, ...args);
const folder = mkdtempSync(join(tmpdir(), 'cox-ingress-e2e-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let ports: { http: number; https: number };

before(
  async () => {
    await k('apply', '-f', join(root, 'examples', 'ingress', 'shop.yaml'));
    await cluster.readyPods(ns, 'app=shop', 2);
    await cluster.readyPods(ns, 'app=api', 1);
    const service = (await cluster.json('-n', 'kube-system', 'get', 'service', 'ingress')) as Json;
    const nodePort = (name: string) => service.spec.ports.find((port: Json) => port.name === name).nodePort as number;
    ports = { http: nodePort('http'), https: nodePort('https') };
  },
  { timeout: 120_000 },
);

/** What curl on the machine says: status and body. */
async function curl(host: string, path: string, ...more: string[]): Promise<{ status: number; text: string }> {
  const { stdout } = await outcomeOf('curl', [
    ...['-s', '-m', '20', '-w', '\n%{http_code}', '-H', `Host: ${host}`, ...more],
    `http://127.0.0.1:${ports.http}${path}`,
  ]);
  const at = stdout.lastIndexOf('\n');
  return { status: Number(stdout.slice(at + 1)), text: stdout.slice(0, at) };
}
/** The API has an Ingress before a node's HAProxy does: a status is waited for. */
const says = (host: string, path: string, status: number): Promise<unknown> =>
  eventually(`${host}${path} answers ${status}`, async () => {
    const reply = await curl(host, path);
    if (reply.status !== status) throw new Error(`it answered ${reply.status}: ${reply.text.slice(0, 200)}`);
    return true;
  });
const answers = (host: string, path: string, wanted: RegExp): Promise<string> =>
  eventually(`${host}${path} answers ${wanted}`, async () => {
    const { text } = await curl(host, path);
    return wanted.test(text) && text;
  });
const describes = (name: string, wanted: RegExp, namespace = ns): Promise<string> =>
  eventually(`${name} is told ${wanted}`, async () => {
    const text = await cluster.kubectl('-n', namespace, 'describe', 'ingress', name);
    return wanted.test(text) && text;
  });
const server = (name: string): object => ({
  rules: [
    {
      host: name,
      http: {
        paths: [{ path: '/', pathType: 'Prefix', backend: { service: { name: 'shop', port: { number: 80 } } } }],
      },
    },
  ],
});

it('paths lead to their Services; ADDRESS is that of the Service in front', cluster, async () => {
  await answers('shop.example.com', '/x', /version: 1/);
  const text = await answers('shop.example.com', '/api/x', /version: 2/);
  assert.match(text, /request: GET \/api\/x/);
  assert.match(text, /x-forwarded-for: \d/);
  await says('nobody.example.com', '/', 404);
  const address = await eventually('an address', async () => {
    const [, , , found] = (await k('get', 'ingress', 'shop', '--no-headers')).split(/\s+/);
    return found !== '80' && found;
  });
  const service = (await cluster.json('-n', 'kube-system', 'get', 'service', 'ingress')) as Json;
  assert.equal(service.status.loadBalancer.ingress[0].ip, address);
  for (const other of [null, { ingress: [{ ip: '203.0.113.9' }] }]) {
    const status = JSON.stringify({ status: { loadBalancer: other } });
    await k('patch', 'ingress', 'shop', '--subresource=status', '--type=merge', '-p', status);
    await eventually('a status that somebody else wrote is corrected', async () => {
      const { status } = (await cluster.json('-n', ns, 'get', 'ingress', 'shop')) as Json;
      return status.loadBalancer.ingress?.length === 1 && status.loadBalancer.ingress[0].ip === address;
    });
  }
  // At the address itself, which keeps the client's.
  const node = await eventually('an answer at the address', async () => {
    const said = await cluster
      .onNode('node-1', 'curl', '-s', '-m', '3', '-H', 'Host: shop.example.com', `http://${address}/`)
      .catch(() => '');
    return said.includes('version: 1') && said;
  });
  // Its own: that of the segment, or of its loopback link where it announces the address itself.
  assert.match(node, /x-forwarded-for: (172\.30\.0\.|10\.96\.0\.10)/);
  assert.match(await cluster.kubectl('get', 'ingressclass', 'coxswain'), /coxswain\.dev\/ingress/);
});

it('kubectl create ingress makes one of the default class; both nodes serve it', cluster, async () => {
  await k('create', 'ingress', 'made', '--rule=made.example.com/*=shop:http');
  await answers('made.example.com', '/', /version: 1/);
  assert.match(await k('get', 'ingress', 'made'), /made\s+coxswain\s+made\.example\.com/);
  for (const node of ['node-1', 'node-2'])
    await eventually(`${node} serves it`, async () => {
      const said = await cluster
        .onNode(node, 'curl', '-s', '-m', '3', '-H', 'Host: made.example.com', 'http://127.0.0.1:10080/')
        .catch(() => '');
      return said.includes('version: 1');
    });
});

it('cox trace tells which Ingress takes a request, and follows it to its pods', cluster, async () => {
  const traced = await cluster.cox(['trace', 'http://shop.example.com/api/x']);
  assert.match(traced, new RegExp(`shop\\.example\\.com/api/x is taken by Ingress ${ns}/shop`));
  assert.match(traced, /HAProxy sends it to Service api:80/);
  assert.match(traced, /It would work/);
  const missing = await cluster.tryCox(['trace', 'https://api.example.com/v2']);
  assert.match(missing.stdout, /no rule of an Ingress for api\.example\.com has the path \/v2: 404/);
  assert.equal(missing.code, 1);
});

it('a rolling update fails nobody who reads', cluster, async () => {
  const failures: string[] = [];
  let requests = 0;
  let isOver = false;
  const read = async (agent: Agent): Promise<void> => {
    const reply = await new Promise<string>(resolve => {
      const options = { agent, port: ports.http, host: '127.0.0.1', headers: { Host: 'shop.example.com' } };
      get(options, response => {
        response.resume();
        response.on('end', () => resolve(String(response.statusCode)));
        response.on('error', error => resolve(error.message));
      }).on('error', error => resolve(error.message));
    });
    requests++;
    if (reply !== '200') failures.push(reply);
    await new Promise(resolve => setTimeout(resolve, 2));
  };
  await answers('shop.example.com', '/', /version: 1/);
  const readers = Array.from({ length: 4 }, async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    while (!isOver) await read(agent);
    agent.destroy();
  });
  await k('set', 'image', 'deployment/shop', 'main=coxswain/echo:2');
  await k('rollout', 'status', 'deployment/shop', '--timeout=60s');
  await k('rollout', 'undo', 'deployment/shop');
  await k('rollout', 'status', 'deployment/shop', '--timeout=60s');
  isOver = true;
  await Promise.all(readers);
  assert.deepEqual(failures, [], `of ${requests} requests`);
  assert.ok(requests > 100, `${requests} requests`);
  await answers('shop.example.com', '/', /version: 1/);
});

it('a Service of the cluster says who may come in, the node itself is not asked', cluster, async () => {
  const guarded = (name: string, url: string) =>
    k(
      ...['create', 'ingress', name, `--rule=${name}.example.com/*=shop:http`],
      ...['--annotation', `nginx.ingress.kubernetes.io/auth-url=${url}`],
    );
  await guarded('asked', `http://api.${ns}.svc.cluster.local/v1/may`);
  await guarded('own', 'http://127.0.0.1:10248/healthz');
  await answers('asked.example.com', '/', /version: 1/);
  await says('own.example.com', '/', 503);
  await describes('own', /AnnotationRefused .*must not lead to the node's own 127\.0\.0\.1/);
});

it("a name that leads to the node's own loopback address is not followed there", cluster, async () => {
  // Names of pods are answered with whatever address they spell; the node's proxy tells its health at every address of the node.
  const nodeIp = (await k('get', 'nodes', '-o', 'jsonpath={.items[0].status.addresses[0].address}')).trim();
  const external = (name: string, address: string): object => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name },
    spec: { type: 'ExternalName', externalName: `${address.replaceAll('.', '-')}.${ns}.pod.cluster.local` },
  });
  const to = (name: string) => ({ service: { name, port: { number: 10256 } } });
  const rule = (name: string) => ({
    host: `${name}.names.test`,
    http: { paths: [{ path: '/', pathType: 'Prefix', backend: to(name) }] },
  });
  const items = [
    external('own', '127.0.0.1'),
    external('node', nodeIp),
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'Ingress',
      metadata: { name: 'names', annotations: { 'nginx.ingress.kubernetes.io/proxy-next-upstream-tries': '1' } },
      spec: { rules: [rule('own'), rule('node')] },
    },
  ];
  await cluster.apply(ns, items);
  await answers('node.names.test', '/healthz', /lastUpdated/);
  for (let tries = 0; tries < 3; tries++) assert.equal((await curl('own.names.test', '/healthz')).status, 503);
});

it('TLS by SNI from a Secret that comes later, is broken, and is mended', cluster, async () => {
  await describes('api', /SecretRefused .*Secret api for api\.example\.com does not exist/);
  const pki = await ensurePki(join(folder, 'pki'), { sans: ['localhost'] });
  const put = async (name: string) => {
    const pair = await pki.ensureServer(name, { commonName: name, organizations: [] }, ['api.example.com']);
    writeFileSync(join(folder, 'tls.crt'), pair.certificate);
    writeFileSync(join(folder, 'tls.key'), pair.key);
    const secret = await k(
      'create',
      'secret',
      'tls',
      'api',
      `--cert=${folder}/tls.crt`,
      `--key=${folder}/tls.key`,
      '--dry-run=client',
      '-o',
      'yaml',
    );
    await cluster.apply(ns, secret);
  };
  const shows = (subject: string) =>
    eventually(`the certificate of ${subject}`, async () => {
      const { stdout, stderr } = await outcomeOf('curl', [
        ...['-skv', '-m', '5', '--connect-to', `api.example.com:443:127.0.0.1:${ports.https}`],
        'https://api.example.com/v1/users?x=1',
      ]);
      return stderr.includes(`CN=${subject}`) && stdout;
    });
  await put('first');
  const text = await shows('first');
  assert.match(text, /version: 2/);
  assert.match(text, /request: GET \/users\?x=1/);
  await put('second');
  await shows('second');
  await says('api.example.com', '/v1/x', 308);
});

it('what belongs to another namespace stays there, and what is not understood is told', cluster, async () => {
  await cluster.apply(other, [
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'Ingress',
      metadata: { name: 'thief' },
      spec: server('shop.example.com'),
    },
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'Ingress',
      metadata: {
        name: 'odd',
        annotations: {
          'nginx.ingress.kubernetes.io/configuration-snippet': 'return 200;',
          'nginx.ingress.kubernetes.io/whitelist-source-range': 'everybody',
        },
      },
      spec: server('odd.example.com'),
    },
  ]);
  await describes(
    'thief',
    new RegExp(`HostPathTaken .*shop\\.example\\.com/ belongs to the older Ingress ${ns}/shop`),
    other,
  );
  await describes('odd', /AnnotationRefused .*whitelist-source-range: "everybody"/, other);
  await describes('odd', /AnnotationRefused .*configuration-snippet: "return 200;": snippets/, other);
  await describes('odd', /BackendNotFound .*Service shop does not exist/, other);
  await answers('shop.example.com', '/x', /version: 1/);
  await says('odd.example.com', '/', 503);
  await cluster.kubectl('-n', other, 'delete', 'ingress', '--all');
});

it('endpoints follow the Deployment without a failed request', cluster, async () => {
  let failed = 0;
  let asked = 0;
  let isOver = false;
  const asking = (async () => {
    while (!isOver) {
      asked++;
      const { status } = await curl('shop.example.com', '/');
      if (status !== 200) failed++;
    }
  })();
  await k('scale', 'deployment', 'shop', '--replicas=3');
  await cluster.readyPods(ns, 'app=shop', 3);
  await k('rollout', 'restart', 'deployment', 'shop');
  await k('rollout', 'status', 'deployment', 'shop', '--timeout=60s');
  isOver = true;
  await asking;
  assert.ok(asked > 10);
  assert.equal(failed, 0, `${failed} of ${asked}`);
});
