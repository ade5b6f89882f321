import assert from 'node:assert/strict';
import { before, deployment, it, type Json, pod, useCluster, useNamespace } from './cluster.ts';
import { Background, eventually, outcomeOf } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'api');
const k = (...args: string[]): Promise<string> => cluster.kubectl('-n', ns, ...args);
const fails = async (...args: string[]): Promise<string> => {
  const outcome = await cluster.tryKubectl('-n', ns, ...args);
  assert.notEqual(outcome.code, 0, `${args.join(' ')} should fail`);
  return outcome.stderr;
};
const raw = async (path: string): Promise<Json> => JSON.parse(await cluster.kubectl('get', '--raw', path));
const map = (name: string, data: object, labels = {}): object => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, ...(Object.keys(labels).length ? { labels } : {}) },
  data,
});

before(async () => {
  await cluster.apply(
    ns,
    ['a', 'b', 'c', 'd', 'e'].map((name, index) =>
      map(`page-${name}`, { index: String(index) }, { set: 'pages', parity: index % 2 ? 'odd' : 'even' }),
    ),
  );
});

it('discovery, OpenAPI, health and version', cluster, async () => {
  const groups = (await raw('/apis')).groups.map((group: Json) => group.name);
  for (const group of [
    'apps',
    'batch',
    'discovery.k8s.io',
    'rbac.authorization.k8s.io',
    'networking.k8s.io',
    'storage.k8s.io',
  ])
    assert.ok(groups.includes(group), group);
  const core = await raw('/api/v1');
  for (const name of [
    'pods',
    'pods/log',
    'pods/exec',
    'pods/binding',
    'services',
    'nodes/status',
    'replicationcontrollers/scale',
  ])
    assert.ok(
      core.resources.some((item: Json) => item.name === name),
      name,
    );
  assert.equal((await raw('/version')).minor, '36');
  assert.ok((await raw('/openapi/v3')).paths['apis/apps/v1']);
  assert.ok((await raw('/openapi/v2')).definitions['io.k8s.api.core.v1.Pod']);
  for (const path of ['/readyz', '/livez', '/healthz']) assert.equal(await cluster.kubectl('get', '--raw', path), 'ok');
  assert.match(await cluster.kubectl('get', '--raw', '/readyz?verbose'), /readyz check passed/);
  const metrics = await cluster.kubectl('get', '--raw', '/metrics');
  assert.match(metrics, /^# TYPE /m);
  assert.match(metrics, /^kubernetes_feature_enabled\{name="MutatingAdmissionPolicy",stage=""\} 1$/m);
});

it('every component tells of itself on the port of its own', cluster, async () => {
  const [{ endpoints }] = (await raw('/apis/discovery.k8s.io/v1/namespaces/default/endpointslices')).items;
  const [address] = endpoints[0].addresses;
  const node = (await raw('/api/v1/nodes')).items[0].metadata.name;
  const ask = (...args: string[]) => cluster.onNode(node, 'curl', '-sk', '-m', '5', ...args);
  await k('create', 'serviceaccount', 'monitor');
  const binding = `monitor-${ns}`;
  await cluster.kubectl(
    ...['create', 'clusterrolebinding', binding, '--clusterrole=cluster-admin', `--serviceaccount=${ns}:monitor`],
  );
  const token = (await k('create', 'token', 'monitor')).trim();
  const as = ['-H', `Authorization: Bearer ${token}`];
  for (const [port, name] of Object.entries({ 10259: 'kube-scheduler', 10257: 'kube-controller-manager' })) {
    const at = `https://${address}:${port}`;
    assert.equal(await ask(`${at}/healthz`), 'ok');
    assert.match(await ask(`${at}/metrics`), /"code": 403/);
    assert.match(await ask(...as, `${at}/metrics`), /^process_cpu_seconds_total \d/m);
    for (const page of ['statusz', 'flagz'])
      assert.match(await ask(...as, `${at}/${page}`), new RegExp(`^\\n${name} ${page}\\n`));
  }
  const resources = () => ask(...as, `https://${address}:10259/metrics/resources`);
  await cluster.apply(ns, [pod('asks', 'busybox:1.35', { container: { resources: { requests: { cpu: '10m' } } } })]);
  const asked = new RegExp(
    `^kube_pod_resource_request\\{namespace="${ns}",pod="asks",.*resource="cpu",unit="cores"\\} 0.01$`,
    'm',
  );
  await eventually('the scheduler tells of the pod', async () => asked.test(await resources()));
  for (const page of ['statusz', 'flagz']) {
    assert.match(await cluster.kubectl('get', '--raw', `/api/v1/nodes/${node}/proxy/${page}`), /^\nkubelet /);
    assert.match(await ask(`http://127.0.0.1:10249/${page}`), /^\nkube-proxy /);
  }
  await cluster.kubectl('delete', 'clusterrolebinding', binding);
});

it('explain knows every level', cluster, async () => {
  assert.match(await k('explain', 'pod.spec.containers.livenessProbe'), /FIELD: livenessProbe <Probe>/);
  assert.match(await k('explain', 'pod'), /DESCRIPTION:\n {4}One or more containers/);
  assert.match(await k('explain', 'pod.spec.nodeName'), /DESCRIPTION:\n {4}The node on which the pod runs/);
  assert.match(await k('explain', 'deploy.spec.strategy', '--recursive'), /maxSurge/);
  assert.match(
    await k('explain', 'httproute.spec.rules.timeouts'),
    /backendRequest\t<string>\n {4}For one try at a backend\./,
  );
});

it('create, replace, and the errors of both', cluster, async () => {
  await k('create', 'configmap', 'once', '--from-literal=a=1');
  assert.match(await fails('create', 'configmap', 'once'), /configmaps "once" already exists/);
  const object = await cluster.json('-n', ns, 'get', 'configmap', 'once');
  await k('patch', 'configmap', 'once', '-p', '{"data":{"a":"2"}}');
  const stale = await outcomeOf(cluster.kubectlPath, ['-n', ns, 'replace', '-f', '-'], {
    input: JSON.stringify(object),
    env: cluster.env,
  });
  assert.match(
    stale.stderr,
    /Error from server \(Conflict\):.*the object has been modified; please apply your changes to the latest version and try again/,
  );
  assert.match(await fails('get', 'nonsense'), /the server doesn't have a resource type "nonsense"/);
  assert.match(await fails('get', 'configmap', 'nope'), /Error from server \(NotFound\): configmaps "nope" not found/);
});

it('validation speaks as upstream does', cluster, async () => {
  const invalid = async (object: object): Promise<string> =>
    (
      await outcomeOf(cluster.kubectlPath, ['-n', ns, 'create', '-f', '-'], {
        input: JSON.stringify(object),
        env: cluster.env,
      })
    ).stderr;
  assert.match(
    await invalid(map('Bad_Name', {})),
    /The ConfigMap "Bad_Name" is invalid: metadata\.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of/,
  );
  assert.match(
    await invalid({ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'empty' }, spec: { containers: [] } }),
    /spec\.containers: Required value/,
  );
  assert.match(
    await invalid({ apiVersion: 'v1', kind: 'Service', metadata: { name: 'bad' }, spec: { ports: [{ port: 70000 }] } }),
    /spec\.ports\[0\]\.port: Invalid value: 70000: must be between 1 and 65535, inclusive/,
  );
  const unknown = { ...map('strict', {}), nonsense: 1 };
  assert.match(await invalid(unknown), /unknown field "nonsense"/);
  const loose = await cluster.kubectlWith(
    { input: JSON.stringify(unknown) },
    '-n',
    ns,
    'create',
    '--validate=ignore',
    '-f',
    '-',
  );
  assert.match(loose, /created/);
});

it('apply keeps what others own; last-applied removes', cluster, async () => {
  await cluster.apply(ns, [map('applied', { a: '1', b: '2' })]);
  await k('patch', 'configmap', 'applied', '-p', '{"data":{"other":"x"}}');
  await cluster.apply(ns, [map('applied', { a: '3' })]);
  assert.deepEqual((await cluster.json('-n', ns, 'get', 'configmap', 'applied')).data, { a: '3', other: 'x' });
  assert.match(await cluster.apply(ns, [map('applied', { a: '3' })]), /configmap\/applied unchanged/);
});

it('server-side apply: ownership, conflict, force', cluster, async () => {
  const apply = (manager: string, data: object, ...extra: string[]) =>
    outcomeOf(
      cluster.kubectlPath,
      ['-n', ns, 'apply', '--server-side', `--field-manager=${manager}`, ...extra, '-f', '-'],
      { input: JSON.stringify(map('shared', data)), env: cluster.env },
    );
  const first = await apply('one', { a: '1', b: '1' });
  assert.match(first.stdout, /serverside-applied/, first.stderr);
  assert.match((await apply('two', { c: '2' })).stdout, /serverside-applied/);
  const conflict = await apply('two', { a: '2', c: '2' });
  assert.match(conflict.stderr, /conflict with "one": \.data\.a/);
  assert.equal((await apply('two', { a: '2', c: '2' }, '--force-conflicts')).code, 0);
  assert.equal((await apply('one', { b: '1' })).code, 0);
  const object = await cluster.json('-n', ns, 'get', 'configmap', 'shared', '--show-managed-fields');
  assert.deepEqual(object.data, { a: '2', b: '1', c: '2' });
  assert.deepEqual(object.metadata.managedFields.map((entry: Json) => [entry.manager, entry.operation]).sort(), [
    ['one', 'Apply'],
    ['two', 'Apply'],
  ]);
});

it('patches of three kinds', cluster, async () => {
  await cluster.apply(ns, [deployment('patched', 'busybox:1.35', { replicas: 0 })]);
  await k(
    'patch',
    'deploy',
    'patched',
    '--type=strategic',
    '-p',
    '{"spec":{"template":{"spec":{"containers":[{"name":"second","image":"nginx:1.22"}]}}}}',
  );
  assert.deepEqual(
    (await cluster.json('-n', ns, 'get', 'deploy', 'patched')).spec.template.spec.containers
      .map((item: Json) => item.name)
      .sort(),
    ['main', 'second'],
  );
  await k(
    'patch',
    'deploy',
    'patched',
    '--type=merge',
    '-p',
    '{"spec":{"template":{"spec":{"containers":[{"name":"only","image":"nginx:1.22"}]}}}}',
  );
  assert.deepEqual(
    (await cluster.json('-n', ns, 'get', 'deploy', 'patched')).spec.template.spec.containers.map(
      (item: Json) => item.name,
    ),
    ['only'],
  );
  await k(
    'patch',
    'deploy',
    'patched',
    '--type=json',
    '-p',
    '[{"op":"test","path":"/spec/replicas","value":0},{"op":"add","path":"/metadata/labels","value":{"x":"y"}},{"op":"remove","path":"/spec/template/spec/containers/0/imagePullPolicy"}]',
  );
  assert.equal((await cluster.json('-n', ns, 'get', 'deploy', 'patched')).metadata.labels.x, 'y');
  assert.match(
    await fails('patch', 'deploy', 'patched', '--type=json', '-p', '[{"op":"test","path":"/spec/replicas","value":9}]'),
    /the server rejected our request|testing/i,
  );
  await k('patch', 'deploy', 'patched', '--subresource=scale', '--type=merge', '-p', '{"spec":{"replicas":1}}');
  assert.equal((await cluster.json('-n', ns, 'get', 'deploy', 'patched')).spec.replicas, 1);
  await k('delete', 'deploy', 'patched', '--wait=false');
});

it('label and field selectors', cluster, async () => {
  const names = async (...args: string[]): Promise<string> =>
    (await k('get', 'configmaps', '-o', 'jsonpath={.items[*].metadata.name}', ...args)).replaceAll('page-', '');
  assert.equal(await names('-l', 'set=pages,parity!=odd'), 'a c e');
  assert.equal(await names('-l', 'parity in (odd)'), 'b d');
  assert.equal(await names('-l', 'set=pages,!parity'), '');
  assert.equal(await names('--field-selector', 'metadata.name=page-b'), 'b');
  assert.match(
    await fails('get', 'configmaps', '--field-selector', 'data.x=1'),
    /"data\.x" is not a known field selector: only "metadata\.name"/,
  );
});

it('limit and continue page through a list at one revision', cluster, async () => {
  const path = `/api/v1/namespaces/${ns}/configmaps?labelSelector=set%3Dpages&limit=2`;
  const first = await raw(path);
  assert.deepEqual([first.items.length, first.metadata.remainingItemCount ?? 3], [2, 3]);
  await cluster.apply(ns, [map('page-z', {}, { set: 'pages' })]);
  const second = await raw(`${path}&continue=${encodeURIComponent(first.metadata.continue)}`);
  const third = await raw(`${path}&continue=${encodeURIComponent(second.metadata.continue)}`);
  assert.deepEqual(
    [...first.items, ...second.items, ...third.items].map((item: Json) => item.metadata.name),
    ['page-a', 'page-b', 'page-c', 'page-d', 'page-e'],
  );
  assert.equal(third.metadata.continue ?? '', '');
  assert.match(await k('get', 'configmaps', '--chunk-size=2', '-o', 'name'), /page-e/);
});

it('watch streams changes in order, from a revision too', cluster, async () => {
  const start = (await raw(`/api/v1/namespaces/${ns}/configmaps`)).metadata.resourceVersion;
  const watch = new Background(
    cluster.kubectlPath,
    [
      '-n',
      ns,
      'get',
      'configmaps',
      '-l',
      'set=watched',
      '--watch',
      '--output-watch-events',
      '-o',
      'jsonpath={.type} {.object.metadata.name} {.object.data.n}{"\\n"}',
    ],
    { env: cluster.env },
  );
  try {
    await new Promise(resolve => setTimeout(resolve, 1000));
    await cluster.apply(ns, [map('seen', { n: '1' }, { set: 'watched' })]);
    await k('patch', 'configmap', 'seen', '-p', '{"data":{"n":"2"}}');
    await k('delete', 'configmap', 'seen');
    await eventually('three events', () => watch.output.includes('DELETED'));
    assert.equal(watch.output, 'ADDED seen 1\nMODIFIED seen 2\nDELETED seen 2\n');
  } finally {
    await watch.stop();
  }
  const replay = await cluster.kubectl(
    'get',
    '--raw',
    `/api/v1/namespaces/${ns}/configmaps?watch=1&labelSelector=set%3Dwatched&resourceVersion=${start}&timeoutSeconds=1`,
  );
  assert.deepEqual(
    replay
      .trim()
      .split('\n')
      .map(line => JSON.parse(line).type),
    ['ADDED', 'MODIFIED', 'DELETED'],
  );
});

it('RBAC: can-i, as others, and refusals that name what is missing', cluster, async () => {
  assert.equal((await k('auth', 'can-i', '*', '*', '-A')).trim(), 'yes');
  const canI = async (...args: string[]): Promise<string> =>
    (await cluster.tryKubectl('-n', ns, 'auth', 'can-i', ...args)).stdout.trim();
  assert.equal(await canI('get', 'pods', '--as=eve'), 'no');
  await k('create', 'role', 'look', '--verb=get,list', '--resource=configmaps');
  await k('create', 'rolebinding', 'eve', '--role=look', '--user=eve');
  await eventually('bound', async () => (await canI('list', 'configmaps', '--as=eve')) === 'yes');
  assert.match(await k('get', 'configmaps', '--as=eve', '-o', 'name'), /page-a/);
  assert.match(
    await fails('delete', 'configmap', 'page-a', '--as=eve'),
    /configmaps "page-a" is forbidden: User "eve" cannot delete resource "configmaps" in API group "" in the namespace "api"/,
  );
  assert.match(await k('auth', 'whoami'), /system:masters|kubernetes-admin|admin/);
  await k('create', 'clusterrolebinding', 'e2e-view', '--clusterrole=view', '--user=viewer').catch(() => {});
  await eventually('view', async () => (await canI('list', 'deployments', '--as=viewer')) === 'yes');
  assert.equal(await canI('get', 'secrets', '--as=viewer'), 'no');
  await k('delete', 'clusterrolebinding', 'e2e-view');
});

it('dry run changes nothing and tells what it would do', cluster, async () => {
  assert.match(
    await k('create', 'deployment', 'dry', '--image=nginx:1.22', '--dry-run=server'),
    /deployment\.apps\/dry created \(server dry run\)/,
  );
  assert.match(await fails('get', 'deploy', 'dry'), /NotFound/);
  const shown = JSON.parse(
    await k('create', 'service', 'clusterip', 'dry', '--tcp=80', '--dry-run=server', '-o', 'json'),
  );
  assert.ok(shown.metadata.uid);
  await k('create', 'configmap', 'dry', '--from-literal=a=b');
  assert.match(await k('delete', 'configmap', 'dry', '--dry-run=server'), /deleted .*\(server dry run\)/);
  assert.equal(await k('get', 'configmap', 'dry', '-o', 'name'), 'configmap/dry\n');
  assert.match(await k('delete', 'configmap', 'dry'), /deleted/);
});

it('tables as kubectl prints them', cluster, async () => {
  assert.match(await k('get', 'configmaps'), /^NAME\s+DATA\s+AGE\n/);
  await cluster.apply(ns, [pod('shown', 'busybox:1.35', { command: ['sleep', '3600'] })]);
  await cluster.readyPod(ns, 'shown');
  assert.match(
    await k('get', 'pod', 'shown'),
    /^NAME\s+READY\s+STATUS\s+RESTARTS\s+AGE\nshown\s+1\/1\s+Running\s+0\s+\d+s\n$/,
  );
  assert.match(
    await k('get', 'svc', '-n', 'default', 'kubernetes'),
    /^NAME\s+TYPE\s+CLUSTER-IP\s+EXTERNAL-IP\s+PORT\(S\)\s+AGE\nkubernetes\s+ClusterIP\s+10\.96\.0\.1\s+<none>\s+443\/TCP\s+\S+\n$/,
  );
  assert.match(await k('get', 'namespaces'), /^NAME\s+STATUS\s+AGE\n/);
  assert.match(
    await k('get', 'pod', 'shown', '-o', 'custom-columns=N:.metadata.name,P:.status.phase'),
    /^N\s+P\nshown\s+Running\n$/,
  );
  assert.match(await k('get', 'events'), /^LAST SEEN\s+TYPE\s+REASON\s+OBJECT\s+MESSAGE\n/);
});

it('namespaces end with everything in them', cluster, async () => {
  await k('create', 'namespace', 'short-lived');
  await cluster.apply('short-lived', [map('x', {}), pod('p', 'busybox:1.35', { command: ['sleep', '3600'] })]);
  await cluster.readyPod('short-lived', 'p');
  await cluster.kubectl('delete', 'namespace', 'short-lived', '--timeout=40s');
  assert.match((await cluster.tryKubectl('get', 'namespace', 'short-lived')).stderr, /NotFound/);
  await k('create', 'namespace', 'short-lived');
  assert.match(await cluster.kubectl('-n', 'short-lived', 'get', 'pods'), /^$/);
  await k('delete', 'namespace', 'short-lived', '--wait=false');
});

it('finalizers hold an object until they are gone; generateName makes names', cluster, async () => {
  await cluster.apply(ns, [
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'held', finalizers: ['example.com/hold'] } },
  ]);
  await k('delete', 'configmap', 'held', '--wait=false');
  assert.ok((await cluster.json('-n', ns, 'get', 'configmap', 'held')).metadata.deletionTimestamp);
  await k('patch', 'configmap', 'held', '--type=merge', '-p', '{"metadata":{"finalizers":null}}');
  assert.match(await fails('get', 'configmap', 'held'), /NotFound/);
  const made = await cluster.kubectlWith(
    { input: JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { generateName: 'made-' } }) },
    '-n',
    ns,
    'create',
    '-f',
    '-',
  );
  assert.match(made, /configmap\/made-[bcdfghjklmnpqrstvwxz2456789]{5} created/);
});

it('cluster IPs and node ports: chosen, kept, refused when taken', cluster, async () => {
  const make = (name: string, spec: object) =>
    outcomeOf(cluster.kubectlPath, ['-n', ns, 'create', '-f', '-'], {
      input: JSON.stringify({
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name },
        spec: { ports: [{ port: 80 }], ...spec },
      }),
      env: cluster.env,
    });
  assert.equal((await make('fixed', { clusterIP: '10.96.77.77' })).code, 0);
  assert.match(
    (await make('twice', { clusterIP: '10.96.77.77' })).stderr,
    /spec\.clusterIPs: Invalid value: \[?"10\.96\.77\.77"\]?: failed to allocate IP 10\.96\.77\.77: provided IP is already allocated/,
  );
  assert.match(
    (await make('outside', { clusterIP: '192.0.2.1' })).stderr,
    /failed to allocate IP 192\.0\.2\.1: the provided network does not match the current range/,
  );
  assert.equal((await make('port', { type: 'NodePort', ports: [{ port: 80, nodePort: 31777 }] })).code, 0);
  assert.match(
    (await make('port-2', { type: 'NodePort', ports: [{ port: 80, nodePort: 31777 }] })).stderr,
    /spec\.ports\[0\]\.nodePort: Invalid value: 31777: provided port is already allocated/,
  );
  await k('delete', 'service', 'fixed', 'port');
  assert.equal((await make('fixed-again', { clusterIP: '10.96.77.77' })).code, 0);
});

it('every built-in kind can be listed', cluster, async () => {
  const names = (await cluster.kubectl('api-resources', '--verbs=list', '-o', 'name')).trim().split('\n');
  assert.ok(names.length > 50, `only ${names.length} kinds`);
  const failed: string[] = [];
  for (let at = 0; at < names.length; at += 20) {
    const outcome = await cluster.tryKubectl('get', names.slice(at, at + 20).join(','), '-A', '-o', 'name');
    if (outcome.code !== 0) failed.push(outcome.stderr);
  }
  assert.deepEqual(failed, []);
});
