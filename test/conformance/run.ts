/**
 * Upstream's conformance suite against a cluster of ours with two nodes, from inside node-1's network namespace, where node ports and pods can be
 * reached. Build the suite first (`bash test/conformance/build.sh`). As root:
 *
 *   node26 test/conformance/run.ts [--name NAME] [--focus REGEX] [--skip REGEX] [--parallel N] [--keep] [--dir DIR]
 *
 * Groups of tests run side by side, those marked [Serial] after them. Each test's name goes to `DIR/results/results.txt` with `ok` or `FAIL`, each
 * group's output to `DIR/results/GROUP.log`. Exits with 1 when one fails.
 */

import { spawn } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Cluster, root } from '../e2e/cluster.ts';
import { Background, run } from '../e2e/process.ts';

const { values } = parseArgs({
  options: {
    name: { type: 'string', default: 'conformance' },
    focus: { type: 'string', default: '\\[Conformance\\]' },
    skip: { type: 'string', default: '' },
    dir: { type: 'string', default: join(root, '.cache', 'conformance') },
    keep: { type: 'boolean', default: false },
  },
});
const suite = join(values.dir, 'built', 'e2e.test');
if (!existsSync(suite)) {
  console.error(`there is no ${suite}: run "bash test/conformance/build.sh" first`);
  process.exit(2);
}
const folder = join(values.dir, 'results');
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });

/** By the first words of the tests' names; each group takes about as long as the others. */
const GROUPS = {
  services: '\\[sig-(network|cli|auth|instrumentation|scheduling|autoscaling)\\]',
  pods: '\\[(sig-node|k8s\\.io|sig-storage)\\]',
  control: '\\[sig-(apps|api-machinery)\\]',
};

interface Outcome {
  readonly name: string;
  readonly passed: boolean;
}

/** One process of the suite with the tests that match, inside the node. */
function runShard(
  cluster: Cluster,
  options: { name: string; kubeconfig: string; more: readonly string[] },
): Promise<Outcome[]> {
  const report = join(folder, options.name);
  mkdirSync(report, { recursive: true });
  const log = createWriteStream(join(folder, `${options.name}.log`));
  const words = [
    ...['node', 'exec', '--name', cluster.name, 'node-1', '--', suite],
    ...[
      '-kubeconfig',
      options.kubeconfig,
      '-provider',
      'skeleton',
      '-num-nodes',
      '2',
      '-report-dir',
      report,
      '-report-prefix',
      options.name,
    ],
    ...[
      '-kubectl-path',
      cluster.kubectlPath,
      '-disable-log-dump',
      '-delete-namespace-on-failure=true',
      '-minStartupPods',
      '0',
    ],
    ...['-ginkgo.noColor', '-ginkgo.slowSpecThreshold', '600', ...options.more],
  ];
  return new Promise((resolve, reject) => {
    const child = spawn(join(root, 'cox'), words, { stdio: ['ignore', 'pipe', 'pipe'], cwd: report });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    child.on('error', reject);
    child.on('close', () => resolve(readReport(report)));
  });
}

/** The JUnit report that the suite leaves. */
function readReport(folder: string): Outcome[] {
  return readdirSync(folder)
    .filter(name => name.endsWith('.xml'))
    .flatMap(name => readFileSync(join(folder, name), 'utf8').split('<testcase ').slice(1))
    .filter(text => !text.includes('<skipped'))
    .map(text => ({ name: /name="([^"]*)"/.exec(text)?.[1] ?? '?', passed: !text.includes('<failure') }));
}

const cluster = new Cluster({ name: values.name, stateDir: join(values.dir, 'state') });
const status = await cluster.tryCox(['status', '-o', 'json']);
if (status.code !== 0 || JSON.parse(status.stdout).state !== 'running') process.stdout.write(await cluster.up());
else cluster.kubeconfig = (await cluster.cox(['kubeconfig', '--path'])).trim();
const images = join(values.dir, 'images');
if (!existsSync(images))
  await run(
    process.execPath,
    [
      join(import.meta.dirname, 'images.ts'),
      join(values.dir, 'built'),
      join(values.dir, 'gopath/src/k8s.io/kubernetes'),
      images,
    ],
    {
      timeoutMs: 600_000,
    },
  );
await cluster.cox(['image', 'load', ...readdirSync(images).map(name => join(images, name))], { timeoutMs: 300_000 });

// The machine's loopback address of the API server is not there inside a node.
const inside = join(values.dir, 'kubeconfig');
const { ip } = (await cluster.json('-n', 'default', 'get', 'endpoints', 'kubernetes')).subsets[0].addresses[0];
writeFileSync(
  inside,
  readFileSync(cluster.kubeconfig, 'utf8').replace(/https:\/\/127\.0\.0\.1:\d+/, `https://${ip}:6443`),
  { mode: 0o600 },
);

// Until 1.24 each service account had a Secret with a token, and the suite of 1.20 begins no test without its name. It looks at nothing else of it.
const accounts = new Background(
  cluster.kubectlPath,
  [
    'get',
    'serviceaccounts',
    '-A',
    '--field-selector=metadata.name=default',
    '-w',
    '-o',
    'jsonpath={.metadata.namespace} {.secrets}{"\\n"}',
  ],
  { env: cluster.env },
);
accounts.child.stdout!.on('data', (text: string) => {
  for (const line of text.trim().split('\n')) {
    const [namespace, secrets] = line.split(' ');
    if (namespace && !secrets)
      void cluster.tryKubectl(
        '-n',
        namespace,
        'patch',
        'serviceaccount',
        'default',
        '-p',
        '{"secrets":[{"name":"none"}]}',
      );
  }
});

const startedMs = performance.now();
const shard = (name: string, focus: string, skip: string): Promise<Outcome[]> =>
  runShard(cluster, {
    name,
    kubeconfig: inside,
    more: ['-ginkgo.focus', focus, '-ginkgo.skip', [values.skip, skip].filter(Boolean).join('|') || '^$'],
  });
const together = await Promise.all(
  Object.entries(GROUPS).map(([name, pattern]) => shard(name, `${pattern}.*${values.focus}`, '\\[Serial\\]')),
);
const outcomes = [...together.flat(), ...(await shard('serial', `\\[Serial\\].*${values.focus}`, ''))];
outcomes.sort((a, b) => (a.name < b.name ? -1 : 1));
writeFileSync(
  join(folder, 'results.txt'),
  outcomes.map(({ name, passed }) => `${passed ? 'ok  ' : 'FAIL'} ${name}\n`).join(''),
);
const failed = outcomes.filter(({ passed }) => !passed);
for (const { name } of failed) console.log(`FAIL ${name}`);
console.log(
  `conformance: ${outcomes.length - failed.length} of ${outcomes.length} passed in ${((performance.now() - startedMs) / 60_000).toFixed(1)} min`,
);
await accounts.stop();
if (!values.keep) await cluster.down();
process.exitCode = failed.length === 0 && outcomes.length > 0 ? 0 : 1;
