import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it, type Json, root, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'helm');
const chart = join(root, 'examples', 'chart');
const helm = (...args: string[]): Promise<string> => cluster.helm('-n', ns, ...args);

it(
  'install with hooks, test, upgrade, roll back, uninstall',
  cluster,
  async () => {
    assert.match(
      await helm('install', 'hello', chart, '--wait', '--timeout', '60s'),
      /STATUS: deployed[\s\S]*greets with "Hello from Helm"/,
    );
    await cluster.readyPods(ns, 'app.kubernetes.io/instance=hello,app.kubernetes.io/name=greeter', 2);
    // The hook's pod has succeeded and is gone.
    assert.match((await cluster.tryKubectl('-n', ns, 'get', 'pod', 'hello-greeter-check')).stderr, /NotFound/);
    assert.match(await helm('test', 'hello', '--timeout', '60s'), /Phase:\s+Succeeded/);
    const page = (): Promise<string> =>
      cluster.exec(ns, 'deploy/hello-greeter', 'wget', '-qO-', 'http://hello-greeter/');
    assert.match(await page(), /Hello from Helm \(release hello, revision 1\)/);

    await helm(
      'upgrade',
      'hello',
      chart,
      '--set',
      'greeting=Changed',
      '--set',
      'replicas=1',
      '--wait',
      '--timeout',
      '60s',
    );
    await eventually('changed page', async () => (await page()).includes('Changed (release hello, revision 2)'));
    assert.equal((await cluster.json('-n', ns, 'get', 'deploy', 'hello-greeter')).spec.replicas, 1);
    assert.equal((JSON.parse(await helm('history', 'hello', '-o', 'json')) as Json[]).length, 2);

    await helm('rollback', 'hello', '1', '--wait', '--timeout', '60s');
    await eventually('first page again', async () => (await page()).includes('Hello from Helm'));
    assert.equal((await cluster.json('-n', ns, 'get', 'deploy', 'hello-greeter')).spec.replicas, 2);

    assert.match(await helm('list'), /hello\s+helm\s+3\s/);
    await helm('uninstall', 'hello', '--wait', '--timeout', '60s');
    await eventually(
      'nothing left',
      async () =>
        (
          (await cluster.json('-n', ns, 'get', 'deploy,svc,cm,sa', '-l', 'app.kubernetes.io/instance=hello'))
            .items as Json[]
        ).length === 0,
    );
  },
  { timeoutMs: 240_000 },
);

it(
  'a failing install says why and leaves a release that can be mended',
  cluster,
  async () => {
    await assert.rejects(
      helm('install', 'broken', chart, '--set', 'service.port=99999'),
      /spec\.ports\[0\]\.port.*must be between 1 and 65535/,
    );
    await helm('upgrade', '--install', 'broken', chart, '--set', 'replicas=1', '--wait', '--timeout', '60s');
    await helm('uninstall', 'broken');
  },
  { timeoutMs: 150_000 },
);
