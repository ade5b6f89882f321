/** Stock kubectl's commands against an object of every built-in kind: none fails, and doing the same again changes nothing. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeRequest } from '../../src/apiserver/certificates/signing-request.ts';
import { it, type Json, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'every-kind');
const manifest = readFileSync(join(import.meta.dirname, 'every-kind.yaml'), 'utf8')
  .replaceAll('NAMESPACE', ns)
  .replaceAll('REQUEST', makeRequest({ commonName: 'every' }).request);
/** Some sixty requests a command: on a busy machine that takes its time. */
const LONG_MS = 120_000;
const SLOW = { timeoutMs: 4 * LONG_MS };
const count = manifest.split('\n---\n').length;

/** The command with `-f -` and the manifest; it must succeed. */
const k = (...args: string[]): Promise<string> =>
  cluster.kubectlWith({ input: manifest, timeoutMs: LONG_MS }, '-n', ns, ...args, '-f', '-');
const lines = (text: string): string[] => text.trim().split('\n');
const generations = async (): Promise<string> =>
  await k('get', '-o', 'custom-columns=KIND:.kind,NAME:.metadata.name,GENERATION:.metadata.generation', '--no-headers');

it('every kind is in the manifest', cluster, async () => {
  const elsewhere = [
    'Node',
    'APIService',
    'VolumeAttachment',
    'IPAddress',
    'ComponentStatus',
    'StorageVersionMigration',
  ];
  for (const line of lines(await cluster.kubectl('api-resources', '--verbs=list,create', '--no-headers'))) {
    const [version = '', , kind = ''] = line.trim().split(/\s+/).slice(-3);
    const group = version.includes('/') ? version.split('/')[0]! : '';
    // Groups of definitions have a domain of their own, or one that is not Kubernetes' alone.
    const isOwn =
      !group.includes('.') || (group.endsWith('.k8s.io') && !/gateway|snapshot|populator|policy\./.test(group));
    // Beta resources are there only when a server is told to serve them.
    if (isOwn && !version.includes('beta') && !elsewhere.includes(kind))
      assert.ok(manifest.includes(`apiVersion: ${version}\nkind: ${kind}\n`), `${version} ${kind}`);
  }
});

it(
  'made, shown and applied again without a change',
  cluster,
  async () => {
    const made = lines(await k('apply'));
    assert.equal(made.filter(line => line.endsWith(' created')).length, count, made.join('\n'));
    const told = await k('describe');
    assert.equal(told.match(/^Name:/gm)?.length, count);
    // A defaulter or a controller may still be at its first write.
    await eventually(
      'no difference',
      async () => {
        try {
          return (await k('diff')) === '';
        } catch (error) {
          if (String(error).includes('+++')) return false;
          throw error;
        }
      },
      SLOW,
    );
    await eventually(
      'the same generations',
      async () => {
        const before = await generations();
        await k('apply');
        return before === (await generations());
      },
      SLOW,
    );
  },
  SLOW,
);

it(
  'labelled, patched in each way and applied by the server',
  cluster,
  async () => {
    const each = async (...args: string[]) => assert.equal(lines(await k(...args)).length, count, args.join(' '));
    await each('label', '--overwrite', 'first=a');
    await each('patch', '--type=merge', '-p', '{"metadata":{"labels":{"third":"c"}}}');
    await each('patch', '--type=json', '-p', '[{"op":"add","path":"/metadata/labels/fourth","value":"d"}]');
    await each('apply', '--server-side', '--force-conflicts');
    const { items } = JSON.parse(await k('get', '-o', 'json')) as Json;
    for (const { kind, metadata } of items)
      assert.deepEqual(
        [metadata.labels?.first, metadata.labels?.third, metadata.labels?.fourth],
        ['a', 'c', 'd'],
        kind,
      );
  },
  SLOW,
);

it(
  'deleted',
  cluster,
  async () => {
    assert.equal(lines(await k('delete', '--wait=false')).length, count);
    await eventually('all gone', async () => (await k('get', '-o', 'name', '--ignore-not-found')).trim() === '', SLOW);
  },
  SLOW,
);
