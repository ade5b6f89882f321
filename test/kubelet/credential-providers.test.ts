/** A program of the node that knows passwords, asked with a token of the pod's service account; a real registry that wants one. */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { metrics } from '../../src/base/metrics.ts';
import { SERVICE_ACCOUNTS } from '../../src/client/resources.ts';
import { TestNode } from './node.ts';
import { done, sh } from './pods.ts';
import { buildImage, hasRegistry, push, Registry, tarOf } from './registry.ts';

let node: TestNode;
const registries: Registry[] = [];
before(async () => {
  if (!hasRegistry) return;
  node = new TestNode();
  await node.start();
});
after(async () => {
  for (const registry of registries) await registry.stop();
  await node?.close();
});
const needs = { skip: hasRegistry ? false : 'needs docker-registry' };

/** Answers only who comes with a token, and remembers what it was asked. */
const program = (folder: string) => `#!/bin/sh
read -r request
echo "$request" >> ${folder}/asked
case "$request" in *'"serviceAccountToken":"ey'*) ;; *) echo "no token" >&2; exit 3 ;; esac
cat <<END
{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry",
 "cacheDuration":"0s","auth":{"$HOST":{"username":"ann","password":"$1"}}}
END
`;

test('the image comes for pods of an account that opted in, and for no others', needs, async () => {
  const content = join(node.root, 'content');
  const open = await Registry.start({ folder: content });
  const closed = await Registry.start({ folder: content, user: { name: 'ann', password: 'sesame' } });
  registries.push(open, closed);
  await push(open.host, 'team/data', ['v1'], buildImage([tarOf({ word: 'opened' })]));

  const folder = join(node.root, 'plugins');
  mkdirSync(folder);
  writeFileSync(join(folder, 'knows'), program(folder), { mode: 0o755 });
  const provider = {
    name: 'knows',
    matchImages: [`127.0.0.*:${closed.host.split(':')[1]}/team`],
    defaultCacheDuration: '1h',
    apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
    args: ['sesame'],
    env: [{ name: 'HOST', value: closed.host }],
    tokenAttributes: {
      serviceAccountTokenAudience: 'https://kubernetes.default.svc',
      cacheType: 'ServiceAccount',
      requireServiceAccount: true,
      requiredServiceAccountAnnotationKeys: ['example.com/team'],
    },
  };
  const config = { apiVersion: 'kubelet.config.k8s.io/v1', kind: 'CredentialProviderConfig', providers: [provider] };
  writeFileSync(join(folder, 'config.yaml'), JSON.stringify(config));
  writeFileSync(
    join(node.root, 'images/images.yaml'),
    JSON.stringify({ credentialProviders: { config: join(folder, 'config.yaml'), binDir: folder } }),
  );
  for (const [name, annotations] of [
    ['puller', { 'example.com/team': 'blue', other: 'x' }],
    ['other', {}],
  ] as const)
    await node.put(SERVICE_ACCOUNTS, {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name, namespace: 'default', annotations },
    });
  const pod = (name: string, serviceAccountName: string, pullPolicy: string) =>
    node.create(name, {
      serviceAccountName,
      automountServiceAccountToken: false,
      restartPolicy: 'Never',
      containers: [sh('grep opened /data/word', { volumeMounts: [{ name: 'data', mountPath: '/data' }] })],
      volumes: [{ name: 'data', image: { reference: `${closed.host}/team/data:v1`, pullPolicy } }],
    });
  const asked = () =>
    readFileSync(join(folder, 'asked'), 'utf8')
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as Record<string, unknown>);

  await pod('stranger', 'other', 'IfNotPresent');
  await node.untilEvents('stranger', events => events.some(text => text.includes('pull access denied')));
  await pod('first', 'puller', 'IfNotPresent');
  assert.equal((await node.until('first', done)).status!.phase, 'Succeeded');
  const [request] = asked();
  assert.equal(request!['kind'], 'CredentialProviderRequest');
  assert.equal(request!['image'], `${closed.host}/team/data`);
  assert.deepEqual(request!['serviceAccountAnnotations'], { 'example.com/team': 'blue' });
  const claims = JSON.parse(
    Buffer.from(String(request!['serviceAccountToken']).split('.')[1]!, 'base64url').toString(),
  );
  assert.equal(claims.sub, 'system:serviceaccount:default:puller');
  assert.equal(claims['kubernetes.io'].pod.name, 'first');

  // The account is known to have opened it: nobody asks the registry again, which is not there any more.
  await closed.stop();
  await pod('second', 'puller', 'Never');
  assert.equal((await node.until('second', done)).status!.phase, 'Succeeded');
  await pod('stranger-again', 'other', 'Never');
  await node.untilEvents('stranger-again', events =>
    events.some(text => text.includes('has no credentials that give access')),
  );
  for (const line of [
    /^kubelet_image_pull_duration_seconds_count\{image_size_in_bytes="0-10MB"\} [1-9]/m,
    /^kubelet_image_manager_ensure_image_requests_total\{pull_policy="ifnotpresent",present_locally="false",pull_required="true"\} [1-9]/m,
    /^kubelet_imagemanager_image_mustpull_checks_total\{result="credentialRecordFound"\} [1-9]/m,
    /^kubelet_imagemanager_ondisk_pulledrecords 1$/m,
    /^kubelet_credential_provider_plugin_duration_count\{plugin_name="knows"\} [1-9]/m,
  ])
    assert.match(metrics.render(), line);

  // A configuration with a mistake stops pulls, and says where it is.
  writeFileSync(
    join(folder, 'wrong.yaml'),
    JSON.stringify({ ...config, providers: [{ ...provider, tokenAttributes: { cacheType: 'Token' } }] }),
  );
  writeFileSync(
    join(node.root, 'images/images.yaml'),
    JSON.stringify({ credentialProviders: { config: join(folder, 'wrong.yaml'), binDir: folder } }),
  );
  await pod('third', 'puller', 'Always');
  await node.untilEvents('third', events =>
    events.some(text => text.includes('providers[0].tokenAttributes.requireServiceAccount: Required value')),
  );
});
