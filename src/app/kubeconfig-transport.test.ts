import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { metrics } from '../base/metrics.ts';
import { PODS } from '../client/resources.ts';
import { connectByKubeconfig } from './kubeconfig-transport.ts';

const folder = mkdtempSync(join(tmpdir(), 'cox-kubeconfig-'));
after(() => rmSync(folder, { recursive: true }));

function connect(text: string, context?: string) {
  const path = join(folder, 'config');
  writeFileSync(path, text);
  return connectByKubeconfig(path, { userAgent: 'test', ...(context ? { context } : {}) });
}

const config = (user: string, server = 'https://127.0.0.1:1') => `
apiVersion: v1
kind: Config
current-context: here
contexts:
- {name: here, context: {cluster: c, user: u}}
- {name: there, context: {cluster: nowhere, user: u}}
clusters:
- {name: c, cluster: {server: "${server}", insecure-skip-tls-verify: true}}
users:
- name: u
  user: ${user}
`;

test('a token, in the file or in one beside it', async () => {
  writeFileSync(join(folder, 'token'), 'secret\n');
  for (const user of ['{token: secret}', '{tokenFile: token}']) {
    const { transport, server } = await connect(config(user));
    assert.equal(server, 'https://127.0.0.1:1');
    await assert.rejects(transport.get({ of: PODS, namespace: 'default', name: 'x' }), /ECONNREFUSED/);
    transport.close();
  }
  const page = metrics.render({ prefixes: ['rest_client_'] });
  assert.match(page, /^rest_client_requests_total\{code="<error>",method="GET",host="127.0.0.1:1"\} 2$/m);
  assert.match(page, /^rest_client_request_duration_seconds_count\{verb="GET",host="127.0.0.1:1"\} 2$/m);
});

test('what cannot be used is told with the way out', async () => {
  await assert.rejects(connect(config('{exec: {command: aws}}')), /signs in by exec, which is not supported; use/);
  await assert.rejects(connect(config('{}', 'http://127.0.0.1:1')), /only https:\/\/ is supported/);
  await assert.rejects(connect(config('{client-certificate: missing.crt}')), /ENOENT/);
  await assert.rejects(connect(config('{}'), 'elsewhere'), /there is no context "elsewhere"; there are: here, there/);
  await assert.rejects(connect(config('{}'), 'there'), /there is no cluster "nowhere"/);
  await assert.rejects(connect('{}'), /names no current-context/);
  await assert.rejects(connect('{ unclosed'), /--kubeconfig/);
});
