/**
 * Upstream's conformance suite against a cluster of ours with two nodes, from inside node-1's network namespace, where node ports and pods can be
 * reached. Build the suite first (`bash test/conformance/build.sh`). As root:
 *
 *   node26 test/conformance/run.ts [--name NAME] [--focus REGEX] [--skip REGEX] [--parallel N] [--again] [--keep] [--dir DIR]
 *
 * The tests are handed out in small batches to N processes of the suite, those marked [Serial] after all others and one by one. A line for each test
 * goes to `DIR/results/results.txt` as soon as it ends (outcome, seconds, log, name), what a batch said to the log named there. `--again` keeps what
 * passed in earlier runs and runs only the rest. Exits with 1 when one fails.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { Cluster, root } from '../e2e/cluster.ts';
import { Background, run } from '../e2e/process.ts';

const { values } = parseArgs({
  options: {
    name: { type: 'string', default: 'conformance' },
    focus: { type: 'string', default: '\\[Conformance\\]' },
    skip: { type: 'string', default: '^$' },
    parallel: { type: 'string', default: '4' },
    dir: { type: 'string', default: join(root, '.cache', 'conformance') },
    again: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
  },
});
const suite = join(values.dir, 'built', 'e2e.test');
// The suite looks at what its own release's kubectl prints.
const kubectl = join(values.dir, 'built', 'kubectl');
for (const program of [suite, kubectl])
  if (!existsSync(program)) {
    console.error(`there is no ${program}: run "bash test/conformance/build.sh" first`);
    process.exit(2);
  }
const folder = join(values.dir, 'results');
if (!values.again) rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });

interface Outcome {
  readonly name: string;
  readonly passed: boolean;
  readonly seconds: number;
  readonly log: string;
}
const outcomes = readResults();

function readResults(): Map<string, Outcome> {
  const path = join(folder, 'results.txt');
  const lines = existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : [];
  return new Map(
    lines.map(line => {
      const [, word, seconds, log, name] = /^(\S+) +([\d.]+)s (\S+) +(.*)$/.exec(line)!;
      return [name!, { name: name!, passed: word === 'ok', seconds: Number(seconds), log: log! }];
    }),
  );
}

function keepResult(outcome: Outcome): void {
  outcomes.set(outcome.name, outcome);
  const line = ({ name, passed, seconds, log }: Outcome): string =>
    `${passed ? 'ok  ' : 'FAIL'} ${seconds.toFixed(1).padStart(6)}s ${log} ${name}\n`;
  const sorted = [...outcomes.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  writeFileSync(join(folder, 'results.txt'), sorted.map(line).join(''));
  process.stdout.write(line(outcome));
}

/** The name of the test that a line of the suite says has ended. */
function endOfTest(line: string): { name: string; passed: boolean } | undefined {
  const [, word, name] = /"msg":"(PASSED|FAILED) (.*?)","total":/.exec(line) ?? [];
  return word ? { name: JSON.parse(`"${name}"`), passed: word === 'PASSED' } : undefined;
}

/** The names of all tests that match; the suite need not reach a cluster for that. */
async function listTests(focus: string, skip: string): Promise<string[]> {
  const words = ['-ginkgo.dryRun', '-ginkgo.noColor', '-ginkgo.focus', focus, '-ginkgo.skip', skip];
  const text = await run(suite, [...words, '-kubeconfig', '/dev/null', '-provider', 'skeleton']);
  return text.split('\n').flatMap(line => endOfTest(line)?.name ?? []);
}

const running = new Set<ChildProcess>();
let stopped = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    stopped = true;
    for (const child of running) process.kill(-child.pid!, 'SIGKILL');
  });

/** One process of the suite with these tests, inside the node. */
function runBatch(cluster: Cluster, options: { log: string; kubeconfig: string; tests: string[] }): Promise<void> {
  const log = createWriteStream(join(folder, options.log));
  const focus = options.tests.map(name => `${name.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')}$`).join('|');
  const words = [
    ...['node', 'exec', '--name', cluster.name, 'node-1', '--', suite, '-kubeconfig', options.kubeconfig],
    ...['-provider', 'skeleton', '-num-nodes', '2', '-minStartupPods', '0', '-kubectl-path', kubectl],
    ...['-disable-log-dump', '-delete-namespace-on-failure=true'],
    ...['-ginkgo.noColor', '-ginkgo.slowSpecThreshold', '600', '-ginkgo.focus', focus],
  ];
  return new Promise((resolve, reject) => {
    // A group of its own: what the suite starts ends with it.
    const child = spawn(join(root, 'cox'), words, { stdio: ['ignore', 'pipe', 'pipe'], cwd: folder, detached: true });
    running.add(child);
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    const left = new Set(options.tests);
    let lastMs = performance.now();
    const ended = (name: string, passed: boolean): void => {
      left.delete(name);
      keepResult({ name, passed, seconds: (performance.now() - lastMs) / 1000, log: options.log });
      lastMs = performance.now();
    };
    createInterface(child.stdout).on('line', line => {
      const end = endOfTest(line);
      if (end) ended(end.name, end.passed);
      else if (line.includes('"msg":"Test Suite starting"')) lastMs = performance.now();
    });
    child.on('error', reject);
    child.on('close', () => {
      running.delete(child);
      log.end();
      // A suite that broke off says nothing of those that it did not come to.
      if (!stopped) for (const name of left) ended(name, false);
      resolve();
    });
  });
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

// Until 1.24 the control plane gave each service account a Secret with a token and named it in the account: no test of 1.20 begins without.
const accounts = new Background(
  cluster.kubectlPath,
  [
    ...['get', 'serviceaccounts', '-A', '-w', '-o'],
    'jsonpath={.metadata.namespace} {.metadata.name} {.metadata.deletionTimestamp}{.secrets}{"\\n"}',
  ],
  { env: cluster.env },
);
createInterface(accounts.child.stdout!).on('line', line => {
  const [namespace = '', name = '', settled] = line.split(' ');
  if (!settled && !namespace.startsWith('kube-')) void nameToken(namespace, name);
});

async function nameToken(namespace: string, account: string): Promise<void> {
  const name = `${account}-token`;
  const annotations = { 'kubernetes.io/service-account.name': account };
  const token = { metadata: { name, annotations }, type: 'kubernetes.io/service-account-token' };
  const made = await cluster
    .apply(namespace, [{ apiVersion: 'v1', kind: 'Secret', ...token }])
    .catch((error: Error) => error);
  // A namespace may be gone as fast as it came.
  if (typeof made !== 'string') return console.error(`no token of ${namespace}/${account}: ${made.message}`);
  const patch = JSON.stringify({ secrets: [{ name }] });
  await cluster.tryKubectl('-n', namespace, 'patch', 'serviceaccount', account, '-p', patch);
}

const startedMs = performance.now();
let batches = 0;
/** Each worker takes the next few; fewer towards the end, so that none is left alone with many. */
async function runAll(tests: readonly string[], workers: number): Promise<void> {
  const queue = [...tests];
  const work = async (): Promise<void> => {
    while (queue.length > 0 && !stopped) {
      const batch = queue.splice(0, Math.min(8, Math.ceil(queue.length / (2 * workers))));
      const log = `${startedAt}-${String(++batches).padStart(3, '0')}.log`;
      await runBatch(cluster, { log, kubeconfig: inside, tests: batch });
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
}
const startedAt = new Date().toISOString().slice(11, 19).replaceAll(':', '');
const tests = (await listTests(values.focus, values.skip)).filter(name => !outcomes.get(name)?.passed);
const isSerial = (name: string): boolean => name.includes('[Serial]');
const isSlow = (name: string): boolean => name.includes('[Slow]');
const together = tests.filter(name => !isSerial(name));
console.log(`conformance: ${tests.length} tests to run`);
const loads: number[] = [];
const sampler = setInterval(() => loads.push(loadavg()[0]!), 30_000);
await runAll([...together.filter(isSlow), ...together.filter(name => !isSlow(name))], Number(values.parallel));
await runAll(tests.filter(isSerial), 1);
clearInterval(sampler);

const ran = tests.flatMap(name => outcomes.get(name) ?? []);
const failed = ran.filter(({ passed }) => !passed);
for (const { name, log } of failed) console.log(`FAIL ${log} ${name}`);
const minutes = ((performance.now() - startedMs) / 60_000).toFixed(1);
const load = loads.length > 0 ? `, load ${Math.min(...loads).toFixed(0)} to ${Math.max(...loads).toFixed(0)}` : '';
console.log(`conformance: ${ran.length - failed.length} of ${ran.length} passed in ${minutes} min${load}`);
const passed = [...outcomes.values()].filter(outcome => outcome.passed).length;
if (values.again) console.log(`conformance: with earlier runs ${passed} of ${outcomes.size}`);
await accounts.stop();
if (!values.keep) await cluster.down();
process.exitCode = failed.length === 0 && ran.length === tests.length && !stopped ? 0 : 1;
