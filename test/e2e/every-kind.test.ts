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
const count = manifest.split('\n---\n').length;

/** The command with `-f -` and the manifest; it must succeed. */
const k = (...args: string[]): Promise<string> =>
  cluster.kubectlWith({ input: manifest }, '-n', ns, ...args, '-f', '-');
const lines = (text: string): string[] => text.trim().split('\n');
const generations = async (): Promise<string> =>
  await k('get', '-o', 'custom-columns=KIND:.kind,NAME:.metadata.name,GENERATION:.metadata.generation', '--no-headers');

it('every kind is in the manifest', cluster, async () => {
  const { groups } = JSON.parse(await cluster.kubectl('get', '--raw', '/apis')) as Json;
  const own = ['v1', ...groups.map((group: Json) => group.preferredVersion.groupVersion)].filter(
    version => version === 'v1' || !version.split('/')[0].includes('.') || version.split('/')[0].endsWith('.k8s.io'),
  );
  const elsewhere = ['Node', 'APIService', 'VolumeAttachment', 'IPAddress', 'ComponentStatus'];
  for (const version of own) {
    if (/gateway|snapshot|populator|metrics|policy\.networking/.test(version)) continue;
    const path = version === 'v1' ? '/api/v1' : `/apis/${version}`;
    for (const { name, kind, verbs } of JSON.parse(await cluster.kubectl('get', '--raw', path)).resources as Json[])
      if (!name.includes('/') && verbs.includes('list') && verbs.includes('create') && !elsewhere.includes(kind))
        assert.ok(manifest.includes(`apiVersion: ${version}\nkind: ${kind}\n`), `${version} ${kind}`);
  }
});

it('made, shown and applied again without a change', cluster, async () => {
  assert.equal(lines(await k('create', '--dry-run=server')).length, count);
  const made = lines(await k('apply'));
  assert.equal(made.filter(line => line.endsWith(' created')).length, count, made.join('\n'));
  for (const form of ['wide', 'yaml']) assert.ok((await k('get', '-o', form)).length > 0);
  const told = await k('describe');
  assert.equal(told.match(/^Name:/gm)?.length, count);
  // A defaulter or a controller may still be at its first write.
  await eventually('no difference', async () => {
    try {
      return (await k('diff')) === '';
    } catch (error) {
      if (String(error).includes('+++')) return false;
      throw error;
    }
  });
  await eventually('the same generations', async () => {
    const before = await generations();
    await k('apply');
    return before === (await generations());
  });
});

it('labelled, annotated, patched in each way, applied by the server and replaced', cluster, async () => {
  const each = async (...args: string[]) => assert.equal(lines(await k(...args)).length, count, args.join(' '));
  await each('label', '--overwrite', 'first=a');
  await each('annotate', 'second=b');
  await each('patch', '--type=merge', '-p', '{"metadata":{"labels":{"third":"c"}}}');
  await each('patch', '--type=json', '-p', '[{"op":"add","path":"/metadata/labels/fourth","value":"d"}]');
  await each('apply', '--server-side', '--force-conflicts');
  const { items } = JSON.parse(await k('get', '-o', 'json')) as Json;
  for (const { kind, metadata } of items)
    assert.deepEqual(
      [metadata.labels?.third, metadata.labels?.fourth, metadata.annotations?.second],
      ['c', 'd', 'b'],
      kind,
    );
});

it('deleted', cluster, async () => {
  assert.equal(lines(await k('delete', '--wait=false')).length, count);
  await eventually('all gone', async () => (await k('get', '-o', 'name', '--ignore-not-found')).trim() === '');
});
