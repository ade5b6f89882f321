import assert from 'node:assert/strict';
import { before, deployment, HTTP_READY, it, type Json, pod, service, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'trace');

interface Outcome {
  readonly code: number | null;
  readonly works: boolean;
  /** `step status text` for each finding. */
  readonly lines: readonly string[];
  readonly json: Json;
}

async function trace(...words: string[]): Promise<Outcome> {
  const { code, stdout, stderr } = await cluster.tryCox(['trace', '-n', ns, '-o', 'json', ...words]);
  assert.ok(stdout.startsWith('{'), stderr);
  const json: Json = JSON.parse(stdout);
  const lines = json.steps.flatMap((step: Json) =>
    step.findings.map(
      (finding: Json) => `${step.name} ${finding.status} ${finding.text}${finding.next ? ` → ${finding.next}` : ''}`,
    ),
  );
  return { code, works: json.works, lines, json };
}

function says({ lines }: Outcome, pattern: RegExp): void {
  assert.ok(
    lines.some(line => pattern.test(line)),
    `no line like ${pattern} in:\n${lines.join('\n')}`,
  );
}

before(
  async () => {
    const sick = {
      ...HTTP_READY,
      lifecycle: { postStart: { exec: { command: ['touch', '/tmp/not-ready'] } } },
    };
    await cluster.apply(ns, [
      pod('client', 'busybox:1.35', { command: ['sleep', '10000'], spec: { nodeName: 'node-1' } }),
      pod('there', 'coxswain/echo:1', { labels: { app: 'there' }, spec: { nodeName: 'node-2' } }),
      deployment('web', 'coxswain/echo:1', { replicas: 2, container: HTTP_READY }),
      deployment('sick', 'coxswain/echo:1', { replicas: 3, container: sick }),
      service('web', 'web', {
        type: 'NodePort',
        ports: [
          { name: 'http', port: 80 },
          { name: 'wrong', port: 81, targetPort: 8181 },
        ],
      }),
      service('sick', 'sick', { ports: [{ port: 80 }] }),
      service('sick-headless', 'sick', { clusterIP: 'None', ports: [{ port: 80 }] }),
      service('nobody', 'nobody', { ports: [{ port: 80 }] }),
      service('local', 'there', { internalTrafficPolicy: 'Local', ports: [{ port: 80 }] }),
    ]);
    for (const name of ['client', 'there']) await cluster.readyPod(ns, name);
    await cluster.readyPods(ns, 'app=web', 2);
  },
  { timeout: 120_000 },
);

it('a Service that works, from name to listener, as the kernel has it', cluster, async () => {
  const service = await cluster.json('-n', ns, 'get', 'service', 'web');
  const ips = (await cluster.pods(ns, 'app=web')).map((one: Json) => one.status.podIP).sort();
  const found = await eventually('both endpoints in the kernel', async () => {
    const outcome = await trace('--from', 'client', `http://web.${ns}/path`);
    const kernel = outcome.json.steps.find((step: Json) => step.name === 'kernel');
    return kernel?.findings[0]?.data?.endpoints?.length === 2 ? outcome : undefined;
  });
  assert.deepEqual([found.code, found.works], [0, true]);
  const step = (name: string): Json => found.json.steps.find((one: Json) => one.name === name);
  assert.equal(step('name').findings[0].data.name, `web.${ns}.svc.cluster.local`);
  assert.deepEqual(step('name').findings[0].data.addresses, [service.spec.clusterIP]);
  assert.equal(step('service').findings[0].data.servicePort, 'http');
  assert.deepEqual(
    [...step('kernel').findings[0].data.endpoints].sort(),
    ips.map((ip: string) => `${ip}:80`),
  );
  // The very words of the kernel's own tool.
  const listed = await cluster.onNode('node-1', 'nft', 'list', 'map', 'ip', 'coxswain-proxy', 'services');
  const verdict = step('kernel').findings[0].data.verdict;
  assert.match(listed, new RegExp(`${service.spec.clusterIP.replaceAll('.', '\\.')} \\. tcp \\. 80 : ${verdict}\\b`));
  says(found, /^nat ok the sender's address is kept/);
  says(found, /^listener ok 2 endpoints have a listener/);
  assert.match(await cluster.get(ns, 'client', `http://web.${ns}/hostname`), /^web-/, 'and so it does');
});

it('a client that a Service with session affinity remembers', cluster, async () => {
  await cluster.apply(ns, [service('sticky', 'web', { sessionAffinity: 'ClientIP', ports: [{ port: 80 }] })]);
  const url = `http://sticky.${ns}`;
  await eventually('it answers', async () => (await cluster.get(ns, 'client', `${url}/hostname`)).startsWith('web-'));
  const found = await trace('--from', 'client', url);
  const endpoint = new Map(
    (await cluster.pods(ns, 'app=web')).map((one: Json) => [one.metadata.name, `${one.status.podIP}:80`]),
  ).get((await cluster.get(ns, 'client', `${url}/hostname`)).trim());
  says(found, new RegExp(`^kernel ok .*this client is remembered and goes to ${endpoint}$`));
});

it('the way: bridge on one node, vxlan to another', cluster, async () => {
  const ip = (await cluster.json('-n', ns, 'get', 'pod', 'there')).status.podIP;
  says(await trace('--from', 'client', `${ip}:80`), /^way ok .*node-1: \S+ \(vxlan\).* → node-2/);
  says(await trace('--from', 'node-2', `${ip}:80`), /^way ok .*node-2: cox0 \(bridge\) → pod/);
});

it('no pod is Ready: the probe and its answer', cluster, async () => {
  const outcome = await eventually('three probes that fail', async () => {
    const found = await trace('--from', 'client', 'sick');
    if (found.lines.some(line => /none Ready: readiness probe GET :80\/ready answers 503/.test(line))) return found;
    throw new Error(found.lines.join('; '));
  });
  assert.deepEqual([outcome.code, outcome.works], [1, false]);
  says(
    outcome,
    /^endpoints failure selector matches 3 pods, none Ready: readiness probe GET :80\/ready answers 503 — connections are rejected/,
  );
  says(await trace('--from', 'client', 'sick-headless'), /^name failure .*is headless and has no ready endpoint/);
});

it('other reasons to fail, each with what to do', cluster, async () => {
  // The last address of a node's range is given to no pod.
  const [node] = (await cluster.json('get', 'nodes')).items;
  const nobody = node.spec.podCIDR.replace(/\d+\/\d+$/, '255');
  for (const [words, pattern] of [
    [['--from', 'client', 'nobody'], /^endpoints failure selector app=nobody matches no pod in namespace trace/],
    [
      ['--from', 'client', 'web:81'],
      /^listener failure nothing listens on \S+:8181\/TCP in pod web-\S+; it listens on 80.* → set targetPort of Service web, port wrong/,
    ],
    [
      ['--from', 'client', 'web:82'],
      /^service failure .* has no port 82\/TCP: connections are rejected → it has: http 80\/TCP, wrong 81\/TCP/,
    ],
    [
      ['--from', 'client', 'local'],
      /^endpoints failure traffic policy Local: no ready endpoint on node-1, .* there are some on node-2/,
    ],
    [['--from', 'client', 'web.default'], /^name failure .*NXDOMAIN.* → there is a Service "web" in namespace .*trace/],
    [
      ['--from', 'client', 'localhost:30080'],
      /^listener failure nothing listens on 127\.0\.0\.1:30080\/TCP in pod client/,
    ],
    [['127.0.0.1:1'], /^listener failure nothing listens on 127\.0\.0\.1:1\/TCP in node-/],
    [['10.96.0.0:80'], /^service failure no Service has 10\.96\.0\.0, which is in the range of Services/],
    [['192.0.2.1:80'], /^way failure 192\.0\.2\.1 is outside/],
    [[`${nobody}:80`], /^way failure \S+ is in the range of the pods of node-\d, but no pod has it/],
    [['--from', 'host', '127.0.0.1:1'], /^service failure no Service has node port 1\/TCP/],
    [['--from', 'host', 'svc/local'], /^service failure Service trace\/local has no node port/],
  ] as const) {
    const outcome = await trace(...words);
    assert.deepEqual([outcome.code, outcome.works], [1, false], words.join(' '));
    says(outcome, pattern);
  }
});

it('network policies: who may, who may not, and by which', cluster, async () => {
  const rule = (name: string, from: object[]) => ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name },
    spec: { podSelector: { matchLabels: { app: 'web' } }, ingress: from.map(peer => ({ from: [peer] })) },
  });
  await cluster.apply(ns, [rule('closed', [])]);
  const closed = await trace('--from', 'client', 'web');
  assert.deepEqual([closed.code, closed.works], [1, false]);
  says(closed, /^policy failure \S+:80: no rule of NetworkPolicy trace\/closed allows the way in/);
  await cluster.apply(ns, [rule('open', [{ podSelector: {} }])]);
  const open = await trace('--from', 'client', 'web');
  assert.equal(open.works, true, open.lines.join('\n'));
  says(open, /^policy ok network policies allow 2 endpoints, by NetworkPolicy trace\/open/);
  await cluster.kubectl('-n', ns, 'delete', 'networkpolicy', 'closed', 'open');
});

it('from this machine through a node port; text for people; wrong questions', cluster, async () => {
  const port = (await cluster.json('-n', ns, 'get', 'service', 'web')).spec.ports[0].nodePort;
  const { code, stdout } = await cluster.tryCox(['trace', '--from', 'host', `127.0.0.1:${port}`]);
  assert.equal(code, 0, stdout);
  assert.match(stdout, new RegExp(`^service +✓ 127\\.0\\.0\\.1:${port} is the node port of Service trace/web`, 'm'));
  assert.match(stdout, /^It would work\.$/m);
  for (const [words, pattern] of [
    [['--from', 'no-such-pod', 'web'], /pod "no-such-pod" not found in namespace "default"/],
    [['what is this'], /neither a Service, a name, a URL nor an address/],
    [[], /trace needs a target/],
  ] as const) {
    const refused = await cluster.tryCox(['trace', ...words]);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, pattern);
  }
});
