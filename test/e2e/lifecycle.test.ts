import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseRequestBytes } from '../../src/api/certificates/certificate-request.ts';
import { issueCertificate, newKey, signGrant } from '../../src/apiserver/certificates/certificate.ts';
import { type Cluster, freshCluster, type Json, pod, root, service } from './cluster.ts';
import { Background, eventually, outcomeOf, pause, run } from './process.ts';

/** Everything on the machine that a cluster may leave behind. */
interface Inventory {
  readonly processes: readonly string[];
  readonly namespaces: readonly string[];
  readonly mounts: readonly string[];
  readonly cgroups: readonly string[];
  readonly links: readonly string[];
}

const belongs = (cluster: Cluster, text: string): boolean =>
  text.includes(cluster.name) || text.includes(cluster.stateDir);

async function inventory(cluster: Cluster): Promise<Inventory> {
  const processes: string[] = [];
  for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name) && Number(name) !== process.pid)) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
      const environment = readFileSync(`/proc/${pid}/cgroup`, 'utf8');
      if (belongs(cluster, command) || belongs(cluster, environment)) processes.push(`${pid} ${command.slice(0, 100)}`);
    } catch {
      // It has ended.
    }
  }
  const cgroups = (await outcomeOf('find', ['/sys/fs/cgroup', '-type', 'd', '-path', `*${cluster.name}*`])).stdout
    .trim()
    .split('\n')
    .filter(Boolean);
  return {
    processes,
    namespaces: (await outcomeOf('ip', ['netns', 'list'])).stdout.split('\n').filter(line => belongs(cluster, line)),
    mounts: readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter(line => belongs(cluster, line)),
    cgroups,
    links: (await run('ip', ['-o', 'link'])).split('\n').filter(line => belongs(cluster, line)),
  };
}

const NOTHING: Inventory = { processes: [], namespaces: [], mounts: [], cgroups: [], links: [] };

function scenario(name: string, body: (cluster: Cluster) => Promise<void>): void {
  test(name, { timeout: 150_000 }, async () => {
    const cluster = freshCluster('life');
    try {
      await body(cluster);
    } finally {
      await cluster.tryCox(['down'], { timeoutMs: 60_000 });
      rmSync(cluster.stateDir, { recursive: true, force: true });
    }
  });
}

const running = async (cluster: Cluster): Promise<boolean> => (await cluster.tryCox(['status'])).code === 0;

/** The cluster's own root as a trust bundle of a signer, read by a pod; a root that is added arrives. */
async function trustBundleInPod(cluster: Cluster): Promise<void> {
  await cluster.loadImages();
  await eventually(
    'service account',
    async () => (await cluster.tryKubectl('get', 'serviceaccount', 'default')).code === 0,
  );
  const { clusters } = await cluster.json('config', 'view', '--raw');
  const trustBundle = Buffer.from(clusters[0].cluster['certificate-authority-data'], 'base64').toString();
  await cluster.apply('default', [
    {
      apiVersion: 'certificates.k8s.io/v1beta1',
      kind: 'ClusterTrustBundle',
      metadata: { name: 'example.com:roots:v1', labels: { live: 'yes' } },
      spec: { signerName: 'example.com/roots', trustBundle },
    },
  ]);
  const labelSelector = { matchLabels: { live: 'yes' } };
  const sources = [
    { clusterTrustBundle: { signerName: 'example.com/roots', labelSelector, path: 'roots.pem' } },
    { clusterTrustBundle: { name: 'none', optional: true, path: 'none.pem' } },
  ];
  const command = 'wc -c < /trust/none.pem; cat /trust/roots.pem';
  await cluster.apply('default', [
    pod('trusting', 'busybox:1.35', {
      command: ['sh', '-c', command],
      spec: { restartPolicy: 'Never', volumes: [{ name: 'trust', projected: { sources } }] },
      container: { volumeMounts: [{ name: 'trust', mountPath: '/trust' }] },
    }),
  ]);
  await eventually(
    'pod read the roots',
    async () => (await cluster.json('get', 'pod', 'trusting')).status.phase === 'Succeeded',
  );
  assert.equal((await cluster.kubectl('logs', 'trusting')).trim(), `0\n${trustBundle.trim()}`);
}

/** A signer of one's own answers the kubelet of a pod, which then has a key and its certificate. */
async function certificateInPod(cluster: Cluster): Promise<void> {
  const podCertificate = {
    signerName: 'example.com/pods',
    keyType: 'ED25519',
    credentialBundlePath: 'me.pem',
    userAnnotations: { 'example.com/role': 'web' },
  };
  await cluster.apply('default', [
    pod('identified', 'busybox:1.35', {
      command: ['cat', '/identity/me.pem'],
      spec: {
        restartPolicy: 'Never',
        volumes: [{ name: 'identity', projected: { sources: [{ podCertificate }] } }],
      },
      container: { volumeMounts: [{ name: 'identity', mountPath: '/identity' }] },
    }),
  ]);
  const requests = async (): Promise<Json[]> => (await cluster.json('get', 'podcertificaterequests')).items;
  await eventually('the kubelet asks', async () => (await requests()).length > 0);
  const [{ metadata, spec }] = (await requests()) as [Json];
  assert.equal(spec.podName, 'identified');
  assert.deepEqual(spec.unverifiedUserAnnotations, podCertificate.userAnnotations);
  const { privateKey, publicKey } = newKey();
  const notBeforeMs = Math.floor(Date.now() / 1000) * 1000;
  const times = { notBeforeMs, notAfterMs: notBeforeMs + 3_600_000 };
  const authority = { subject: { commonName: 'signer' }, usages: ['authority'] as const, ...times };
  const certificate = issueCertificate(authority, publicKey, { selfKey: privateKey });
  const asked = parseRequestBytes(Buffer.from(spec.stubPKCS10Request, 'base64'));
  const leaf = signGrant({ ...asked, usages: ['client auth'], ...times }, { certificate, privateKey });
  const at = (ms: number) => new Date(ms).toISOString().replace('.000Z', 'Z');
  const status = {
    conditions: [{ type: 'Issued', status: 'True', reason: 'Signed', message: '' }],
    certificateChain: leaf,
    notBefore: at(notBeforeMs),
    beginRefreshAt: at(notBeforeMs + 1_800_000),
    notAfter: at(times.notAfterMs),
  };
  const patch = JSON.stringify({ status });
  await cluster.kubectl(
    'patch',
    'podcertificaterequest',
    metadata.name,
    '--subresource=status',
    '--type=merge',
    '-p',
    patch,
  );
  assert.match(
    await cluster.kubectl('get', 'podcertificaterequests'),
    /identified +default +node-1 +example\.com\/pods +Issued/,
  );
  await eventually(
    'the pod has its certificate',
    async () => (await cluster.json('get', 'pod', 'identified')).status.phase === 'Succeeded',
  );
  const bundle = await cluster.kubectl('logs', 'identified');
  assert.ok(bundle.includes(leaf.trim()));
  assert.ok(new X509Certificate(leaf).checkPrivateKey(createPrivateKey(bundle)));
}

scenario('options of kube-apiserver: refused before anything starts, then in force', async cluster => {
  const files = `${cluster.stateDir}-options`;
  mkdirSync(files);
  const file = (name: string, text: string) => {
    writeFileSync(join(files, name), text);
    return join(files, name);
  };
  const up = (...args: string[]) => cluster.up({ nodes: 1, extra: args.flatMap(arg => ['--kube-apiserver-arg', arg]) });
  try {
    const policy = file('policy.yaml', '{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Loud}]}');
    const log = join(files, 'audit.log');
    const audit = [`audit-policy-file=${policy}`, `audit-log-path=${log}`];
    await assert.rejects(up(...audit), /audit-policy-file: .*rules\[0\]\.level: Unsupported value: "Loud"/);
    file('policy.yaml', '{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata, users: [steve]}]}');
    const key = Buffer.alloc(32, 7).toString('base64');
    const encryption = file(
      'encryption.yaml',
      `{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{resources: [secrets], providers: [{aesgcm: {keys: [{name: k, secret: ${key}}]}}]}]}`,
    );
    const tokens = file('tokens.csv', 'sesame,steve,1,"system:masters"\n');
    await up(
      ...audit,
      `encryption-provider-config=${encryption}`,
      `token-auth-file=${tokens}`,
      'runtime-config=api/beta=true',
    );
    const { clusters } = await cluster.json('config', 'view', '--raw');
    const steve = [
      '--kubeconfig=/dev/null',
      `--server=${clusters[0].cluster.server}`,
      '--insecure-skip-tls-verify',
      '--token=sesame',
    ];
    await cluster.kubectl(...steve, 'create', 'secret', 'generic', 'hidden', '--from-literal=password=hunter2');
    const secret = await cluster.json(...steve, 'get', 'secret', 'hidden');
    assert.equal(Buffer.from(secret.data.password, 'base64').toString(), 'hunter2');
    const store = readdirSync(join(cluster.stateDir, 'store')).map(name =>
      readFileSync(join(cluster.stateDir, 'store', name)),
    );
    assert.ok(store.some(bytes => bytes.includes('k8s:enc:aesgcm:v1:k:')));
    assert.ok(!store.some(bytes => bytes.includes(secret.data.password)));
    await eventually('audited', async () => /"username":"steve".*"name":"hidden"/.test(readFileSync(log, 'utf8')));
    await trustBundleInPod(cluster);
    await certificateInPod(cluster);
  } finally {
    rmSync(files, { recursive: true, force: true });
  }
});

scenario('up, a friendly second up, stop, resume with all state, down without a trace', async cluster => {
  assert.match(await cluster.up({ nodes: 2 }), /up in \d+\.\d+ s/);
  await cluster.loadImages();
  assert.match(await cluster.up({ nodes: 2 }), /already running/);
  await eventually(
    'service account',
    async () => (await cluster.tryKubectl('get', 'serviceaccount', 'default')).code === 0,
  );
  await cluster.apply('default', [
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'kept' }, data: { a: 'b' } },
    pod('lasting', 'coxswain/echo:1', {
      labels: { app: 'lasting' },
      container: { ports: [{ containerPort: 80, hostPort: 18_980 }] },
    }),
    service('lasting', 'lasting', { type: 'NodePort', ports: [{ port: 80 }] }),
  ]);
  const before = await cluster.readyPod('default', 'lasting');
  // With processes that outlive server and agents: at the machine's 127.0.0.1 and at the node's.
  const { ports } = (await cluster.json('get', 'service', 'lasting')).spec;
  const atMachine = ['-s', '-m', '2', `http://127.0.0.1:${ports[0].nodePort}/hostname`];
  const atNode = ['curl', '-s', '-m', '2', 'http://127.0.0.1:18980/hostname'];
  const relayed = () =>
    eventually(
      'ports of 127.0.0.1 lead in',
      async () =>
        (await outcomeOf('curl', atMachine)).stdout.includes('lasting') &&
        (await cluster.onNode(before.spec.nodeName, ...atNode)).includes('lasting'),
    );
  await relayed();

  await cluster.down('--keep-data');
  assert.deepEqual(await inventory(cluster), { ...NOTHING, mounts: [] });
  assert.ok(!(await running(cluster)));
  const stopped = JSON.parse((await cluster.cox(['list', '-o', 'json'])).trim()) as Json[];
  assert.equal(stopped.find(item => item.name === cluster.name)?.state, 'stopped');

  // Resumed with something new: a virtual address of the API, right by its certificate too.
  const vip = '172.30.255.200';
  const bad = await cluster.tryCox(['up', '--api-vip', '10.0.0.1']);
  assert.match(
    bad.stderr,
    /--api-vip: Invalid value: "10\.0\.0\.1": must be an address of the cluster's load balancers/,
  );
  await cluster.up({ nodes: 2, extra: ['--api-vip', vip] });
  assert.equal((await cluster.json('get', 'configmap', 'kept')).data.a, 'b');
  const ca = join(cluster.stateDir, 'vip-ca.pem');
  const authority = await cluster.kubectl(
    ...['config', 'view', '--raw', '-o', 'jsonpath={.clusters[0].cluster.certificate-authority-data}'],
  );
  writeFileSync(ca, Buffer.from(authority, 'base64'));
  const readyAt = async (node: string) => {
    const { stdout } = await cluster.tryCox([
      ...['node', 'exec', node, '--', 'curl', '-s', '-m', '2', '--cacert', ca, `https://${vip}:6443/readyz`],
    ]);
    return stdout === 'ok';
  };
  for (const node of ['node-1', 'node-2'])
    await eventually(`the API at its virtual address, from ${node}`, () => readyAt(node));
  const again = await cluster.readyPod('default', 'lasting');
  assert.equal(again.metadata.uid, before.metadata.uid);
  await relayed();
  await eventually('it answers', async () =>
    (await cluster.get('default', 'lasting', 'http://127.0.0.1/hostname')).includes('lasting'),
  );

  // The node that announces the virtual address is cut off: the other one does then, and it leads to the same server.
  const announces = async (node: string) => (await cluster.onNode(node, 'ip', '-o', 'address')).includes(` ${vip}/`);
  const holder = (await announces('node-1')) ? 'node-1' : 'node-2';
  assert.ok(await announces(holder));
  const other = holder === 'node-1' ? 'node-2' : 'node-1';
  await cluster.onNode(holder, 'ip', 'link', 'set', 'eth0', 'down');
  await eventually(`${other} announces it`, () => announces(other));
  await eventually(`the API at its virtual address, from ${other}`, () => readyAt(other));

  await cluster.down();
  assert.deepEqual(await inventory(cluster), NOTHING);
  assert.ok(
    !(JSON.parse(await cluster.cox(['list', '-o', 'json'])) as Json[]).some(item => item.name === cluster.name),
  );
  assert.equal((await cluster.tryCox(['status'])).code === 0, false);
});

scenario('two clusters side by side do not touch each other', async one => {
  const two = freshCluster('life');
  try {
    await Promise.all([one.up({ nodes: 1 }), two.up({ nodes: 1 })]);
    await one.kubectl('create', 'configmap', 'only-here');
    assert.match((await two.tryKubectl('get', 'configmap', 'only-here')).stderr, /NotFound/);
    assert.notEqual(await one.cox(['kubeconfig']), await two.cox(['kubeconfig']));
    const killed = await two.tryCox(['node', 'exec', 'node-1', '--', 'sh', '-c', 'kill -KILL $$']);
    assert.equal(killed.code, 137, 'as a shell tells of it');
    await one.down();
    assert.ok(await running(two));
    assert.match(await two.kubectl('get', 'nodes'), /node-1\s+Ready/);
    assert.deepEqual(await inventory(one), NOTHING);
  } finally {
    await two.tryCox(['down'], { timeoutMs: 60_000 });
    rmSync(two.stateDir, { recursive: true, force: true });
  }
  assert.deepEqual(await inventory(two), NOTHING);
});

for (const afterMs of [150, 500, 900]) {
  scenario(`up interrupted after ${afterMs} ms cleans up`, async cluster => {
    const up = new Background(`${root}/cox`, [
      'up',
      '--name',
      cluster.name,
      '--nodes',
      '1',
      '--api-port',
      '0',
      '--state-dir',
      cluster.stateDir,
    ]);
    await pause(afterMs);
    up.child.kill('SIGINT');
    await up.exited;
    // It may have been quicker than the interrupt; then it is a running cluster, which is right too.
    if (!(await running(cluster))) assert.deepEqual(await inventory(cluster), NOTHING, up.output);
  });
}

scenario('--foreground stays until interrupted and keeps the data', async cluster => {
  const up = new Background(`${root}/cox`, [
    'up',
    '--name',
    cluster.name,
    '--nodes',
    '1',
    '--api-port',
    '0',
    '--state-dir',
    cluster.stateDir,
    '--foreground',
  ]);
  await eventually('running', () => running(cluster));
  up.child.kill('SIGINT');
  await up.exited;
  assert.ok(!(await running(cluster)));
  assert.deepEqual((await inventory(cluster)).processes, []);
});

scenario('wrong words get a right answer', async cluster => {
  const wrong = await cluster.tryCox(['upp']);
  assert.notEqual(wrong.code, 0);
  assert.match(wrong.stderr, /unknown command "upp/);
  assert.notEqual((await cluster.tryCox(['up', '--nodes', 'many'])).code, 0);
  assert.match((await cluster.tryCox(['kubeconfig', '--path'])).stderr, new RegExp(cluster.name));
  assert.match((await cluster.tryCox(['node', 'exec', 'node-9', '--', 'true'])).stderr, /./);
  // A name without --name: not a word about "dev" then, and least of all its end.
  assert.match((await cluster.tryCox(['down', 'ci'])).stderr, /unexpected "ci"; see: cox down --help/);
  for (const command of [
    'up',
    'down',
    'status',
    'list',
    'kubeconfig',
    'image',
    'image load',
    'image list',
    'node',
    'node exec',
    'kubectl',
    'trace',
    'proxy',
    'dns',
  ]) {
    const help = await outcomeOf(`${root}/cox`, [...command.split(' '), '--help']);
    assert.equal(help.code, 0, command);
    assert.match(help.stdout, /Usage: cox/);
  }
});

scenario('kubectl without a cluster and images without root say what to do', async cluster => {
  const none = await outcomeOf(`${root}/cox`, ['kubectl', '--name', cluster.name, 'get', 'nodes']);
  assert.notEqual(none.code, 0);
  assert.match(none.stderr, /cox up/);
  const user = await outcomeOf('setpriv', [
    '--reuid=65534',
    '--regid=65534',
    '--clear-groups',
    `${root}/cox`,
    'up',
    '--name',
    cluster.name,
  ]);
  assert.notEqual(user.code, 0);
  assert.ok(user.stderr.includes(`sudo cox up --name ${cluster.name}`), user.stderr);
});
