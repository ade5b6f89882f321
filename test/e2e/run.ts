/**
 * The end-to-end suite: one cluster of two nodes for all files, faults after the rest since they disturb it, then the life
 * cycle of clusters of their own. As root:
 *
 *   node26 test/e2e/run.ts [--keep] [--runtime NAME] [FILE…]   # FILE: session, network.test.ts …; --keep leaves the cluster running
 */

import { spawn } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { freshCluster } from './cluster.ts';

/** Files that may not run beside others, in order. */
const ALONE = ['rollout-load', 'traffic-faults', 'cloud-disks', 'storage-faults', 'faults'];
/** Files that bring up clusters of their own, after the rest. */
const OWN = ['runtimes', 'tracing', 'lifecycle'];
const PARALLEL_FILES = 2;

const { values, positionals } = parseArgs({
  options: { keep: { type: 'boolean', default: false }, runtime: { type: 'string' } },
  allowPositionals: true,
});
const wanted = positionals.map(name => name.replace(/^.*\//, '').replace(/\.test\.ts$/, ''));
const all = readdirSync(import.meta.dirname)
  .filter(file => file.endsWith('.test.ts'))
  .map(file => file.replace('.test.ts', ''))
  .sort();
for (const name of wanted) if (!all.includes(name)) throw new Error(`no suite "${name}"; there are: ${all.join(' ')}`);
const chosen = all.filter(name => wanted.length === 0 || wanted.includes(name));

function runFiles(names: readonly string[], parallel: number, env: Record<string, string>): Promise<number> {
  return new Promise(resolve => {
    const files = names.map(name => join(import.meta.dirname, `${name}.test.ts`));
    const child = spawn(
      process.execPath,
      ['--test', `--test-concurrency=${parallel}`, '--test-reporter=spec', ...files],
      { stdio: 'inherit', env: { ...process.env, ...env, NODE_TEST_CONTEXT: undefined } },
    );
    child.on('close', code => resolve(code ?? 1));
  });
}

// As `cox up --runtime`, for every cluster of every file.
if (values.runtime) process.env['COX_E2E_RUNTIME'] = values.runtime;

const startedMs = performance.now();
const cluster = freshCluster();
let failed = 0;
let interrupted = false;
const end = async (): Promise<void> => {
  if (values.keep) {
    console.log(`cluster left running: KUBECONFIG=${cluster.kubeconfig}  ./cox down --name ${cluster.name}`);
    return;
  }
  await cluster.down();
  rmSync(cluster.stateDir, { recursive: true, force: true });
};
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    interrupted = true;
    void end().finally(() => process.exit(130));
  });
}

const together = chosen.filter(name => !ALONE.includes(name) && !OWN.includes(name));
const alone = ALONE.filter(name => chosen.includes(name));
if (together.length + alone.length > 0) {
  try {
    process.stdout.write(await cluster.up());
    await cluster.loadImages();
    const env = { COX_E2E_CLUSTER: cluster.name, COX_E2E_STATE_DIR: cluster.stateDir, KUBECONFIG: cluster.kubeconfig };
    if (together.length > 0) failed += await runFiles(together, PARALLEL_FILES, env);
    for (const name of alone) if (!interrupted) failed += await runFiles([name], 1, env);
  } finally {
    if (!interrupted) await end();
  }
}
for (const name of OWN) if (chosen.includes(name) && !interrupted) failed += await runFiles([name], 1, {});
console.log(
  `end to end: ${failed === 0 ? 'all passed' : 'FAILED'} in ${((performance.now() - startedMs) / 1000).toFixed(0)} s`,
);
process.exitCode = failed === 0 ? 0 : 1;
