/** The kubelet's server as other clients see it: who may call, plain answers, and the WebSocket protocols. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { WebSocket } from 'ws';
import type { KeyPair } from '../../src/apiserver/certificates/certificate.ts';
import { ensurePki } from '../../src/apiserver/certificates/pki.ts';
import { type BenchCluster, startBenchCluster } from './bench-cluster.ts';

let cluster: BenchCluster;
let master: KeyPair;
let user: KeyPair;
let stranger: KeyPair;
let echo: Server;

before(async () => {
  cluster = await startBenchCluster();
  const pki = await ensurePki(join(cluster.folder, 'pki'), { sans: [] });
  master = pki.issueClient({ commonName: 'admin', organizations: ['system:masters'] });
  user = pki.issueClient({ commonName: 'jane' });
  const other = await ensurePki(join(cluster.folder, 'other'), { sans: [] });
  stranger = other.issueClient({ commonName: 'admin', organizations: ['system:masters'] });
  echo = createServer(socket => socket.pipe(socket)).listen(0, '127.0.0.1');
});
after(async () => {
  echo.close();
  await cluster.close();
});

const target = (path: string, pair?: KeyPair) => ({
  host: '127.0.0.1',
  port: cluster.kubeletPort,
  path,
  ca: cluster.ca,
  ...(pair ? { cert: pair.certificate, key: pair.key } : {}),
});

function get(
  path: string,
  pair?: KeyPair,
  headers: Record<string, string> = {},
): Promise<{ code: number; body: string }> {
  return new Promise((resolve, reject) => {
    const call = request({ ...target(path, pair), headers }, response => {
      let body = '';
      response.on('data', chunk => (body += chunk));
      response.on('end', () => resolve({ code: response.statusCode!, body }));
    });
    call.on('error', reject);
    call.end();
  });
}

test("tokens are the API server's to know, and so is what of the node their owners may; it is asked once", async () => {
  const as = (token: string) => ({ authorization: `Bearer ${token}` });
  const before = cluster.reviews.length;
  for (let i = 0; i < 3; i++) assert.equal((await get('/metrics', undefined, as('scraper'))).code, 200);
  assert.deepEqual(cluster.reviews.slice(before), ['scraper', 'scraper get metrics']);
  assert.deepEqual(await get('/pods', undefined, as('scraper')), {
    code: 403,
    body: 'Forbidden (user=scraper, verb=get, resource=nodes, subresource(s)=[pods proxy])',
  });
  // A program that is run is made, though a WebSocket has to say GET.
  const exec = await get('/exec/default/p/c?command=ls', undefined, as('scraper'));
  assert.match(exec.body, /verb=create, resource=nodes, subresource\(s\)=\[proxy\]/);
  assert.equal((await get('/metrics', undefined, as('nobody'))).code, 401);
  assert.equal((await get('/metrics', user)).code, 403);
});

test('only the API server and masters are served without asking', async () => {
  assert.deepEqual(await get('/healthz'), { code: 200, body: 'ok' });
  assert.deepEqual(await get('/pods'), { code: 401, body: 'Unauthorized' });
  assert.deepEqual(await get('/pods', stranger), { code: 401, body: 'Unauthorized' });
  assert.equal((await get('/pods', user)).code, 403);
  // Twice, so that one of them resumes a TLS session.
  for (let i = 0; i < 2; i++) assert.equal(JSON.parse((await get('/pods', master)).body).items[0].metadata.name, 'p');
});

test('plain answers', async () => {
  assert.match((await get('/metrics', master)).body, /kubelet_http_requests_total\{/);
  assert.equal(JSON.parse((await get('/runningpods/', master)).body).kind, 'PodList');
  assert.equal((await get('/stats/summary', master)).code, 404);
  assert.match(
    (await get('/statusz', master)).body,
    /^\nkubelet statusz\n.*\nPaths: \/attach \/configz .* \/stats\n$/s,
  );
  assert.match((await get('/flagz/', master)).body, /^\nkubelet flagz\n.*\nhostname-override=n\n$/s);
  const before = cluster.reviews.length;
  await get('/statusz', undefined, { authorization: 'Bearer scraper' });
  assert.match(cluster.reviews.slice(before).at(-1)!, /scraper get statusz$/);
  assert.equal((await get('/nothing', master)).code, 404);
  assert.deepEqual(await get('/exec/default/p/c?command=ls&output=1', master), {
    code: 400,
    body: 'Upgrade request required',
  });
});

test('log requests that cannot be answered', async () => {
  writeFileSync(cluster.logPath, '2026-01-01T00:00:00Z stdout F one\n');
  assert.deepEqual(await get('/containerLogs/default/p/c', master), { code: 200, body: 'one\n' });
  assert.deepEqual(await get('/containerLogs/default/p/c?previous=true', master), {
    code: 400,
    body: 'previous terminated container "c" in pod "p" not found',
  });
  assert.deepEqual(await get('/containerLogs/default/p/other', master), {
    code: 400,
    body: 'container "other" in pod "p" is not available',
  });
  assert.equal((await get('/containerLogs/default/p/c?tailLines=x', master)).code, 400);
  assert.equal((await get('/containerLogs/default/p/c?limitBytes=0', master)).code, 422);
  assert.equal((await get('/containerLogs/default/q/c', master)).code, 404);
});

interface Messages {
  readonly socket: WebSocket;
  /** Text of a channel. */
  channel(id: number): string;
  readonly closed: Promise<number>;
}

function dial(path: string, protocols: string[]): Messages {
  const { host, port, ...tls } = target(path, master);
  const socket = new WebSocket(`wss://${host}:${port}${path}`, protocols, tls);
  const texts = new Map<number, string>();
  const isBase64 = protocols[0]?.includes('base64');
  socket.on('message', (data: Buffer) => {
    const id = isBase64 ? data[0]! - 48 : data[0]!;
    const payload = isBase64 ? Buffer.from(data.toString('latin1', 1), 'base64') : data.subarray(1);
    texts.set(id, (texts.get(id) ?? '') + payload.toString('latin1'));
  });
  const closed = new Promise<number>((resolve, reject) => {
    socket.on('error', reject);
    socket.on('close', resolve);
  });
  return { socket, channel: id => texts.get(id) ?? '', closed };
}

const opened = (socket: WebSocket) => new Promise(resolve => socket.once('open', resolve));
const CAT = '/exec/default/p/c?command=head&command=-n1&input=1&output=1&error=1';

test('exec by every WebSocket protocol', async () => {
  for (const protocol of ['v5.channel.k8s.io', 'v4.channel.k8s.io', 'v4.base64.channel.k8s.io', 'channel.k8s.io', '']) {
    const session = dial(CAT, protocol ? [protocol] : []);
    await opened(session.socket);
    assert.equal(session.socket.protocol, protocol);
    session.socket.send(protocol.includes('base64') ? `0${btoa('one\n')}` : Buffer.from('\0one\n'));
    assert.equal(await session.closed, 1000);
    assert.equal(session.channel(1), 'one\n');
    assert.equal(session.channel(3), protocol.startsWith('v') ? '{"metadata":{},"status":"Success"}' : '');
  }
});

test('channel 255 ends the input, and only in v5', async () => {
  const session = dial('/exec/default/p/c?command=cat&stdin=true&stdout=true', ['v5.channel.k8s.io']);
  await opened(session.socket);
  session.socket.send(Buffer.from('\0abc'));
  session.socket.send(Buffer.from([255, 0]));
  await session.closed;
  assert.equal(session.channel(1), 'abc');
});

test('outcomes, word for word', async () => {
  const fails = dial('/exec/default/p/c?command=sh&command=-c&command=exit+3&stdout=true', ['v4.channel.k8s.io']);
  await fails.closed;
  assert.deepEqual(JSON.parse(fails.channel(3)), {
    metadata: {},
    status: 'Failure',
    message: 'command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3',
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: '3' }] },
  });
  const missing = dial('/exec/default/p/c?command=%2Fno&stdout=true', ['v4.channel.k8s.io']);
  await missing.closed;
  assert.equal(JSON.parse(missing.channel(3)).code, 500);
  assert.match(
    JSON.parse(missing.channel(3)).message,
    /^Internal error occurred: error executing command in container: /,
  );
});

test('requests that are refused', async () => {
  await assert.rejects(dial('/exec/default/p/c?command=ls', ['v4.channel.k8s.io']).closed, /400/);
  await assert.rejects(dial(CAT, ['v9.channel.k8s.io']).closed, /403/);
  await assert.rejects(dial(CAT.replace('/p/', '/q/'), ['v4.channel.k8s.io']).closed, /404/);
});

test('a client that goes away takes its process along', async () => {
  const session = dial('/exec/default/p/c?command=sleep&command=60&stdout=true', ['v5.channel.k8s.io']);
  await opened(session.socket);
  for (let i = 0; i < 200 && cluster.runtime.running.size === 0; i++) await new Promise(done => setTimeout(done, 5));
  assert.equal(cluster.runtime.running.size, 1);
  session.socket.terminate();
  for (let i = 0; i < 200 && cluster.runtime.running.size > 0; i++) await new Promise(done => setTimeout(done, 5));
  assert.equal(cluster.runtime.running.size, 0);
});

test('port forwarding by plain channels', async () => {
  const { port } = echo.address() as { port: number };
  const session = dial(`/portForward/default/p?port=${port}`, ['v4.channel.k8s.io']);
  await opened(session.socket);
  session.socket.send(Buffer.from('\0ping'));
  const named = String.fromCharCode(port & 255, port >> 8);
  for (let i = 0; i < 200 && session.channel(0).length < 6; i++) await new Promise(done => setTimeout(done, 5));
  assert.equal(session.channel(0), `${named}ping`);
  assert.equal(session.channel(1), named);
  session.socket.close();
  await session.closed;
});

test('port forwarding by plain channels ends with the last of its connections', async () => {
  const brief = createServer(socket => socket.end('that is all')).listen(0, '127.0.0.1');
  const closed = createServer().listen(0, '127.0.0.1');
  await Promise.all([once(brief, 'listening'), once(closed, 'listening')]);
  const { port } = brief.address() as { port: number };
  const { port: nobodys } = closed.address() as { port: number };
  closed.close();
  const session = dial(`/portForward/default/p?port=${port},${nobodys}`, ['v4.channel.k8s.io']);
  await opened(session.socket);
  await session.closed;
  brief.close();
  assert.equal(session.channel(0).slice(2), 'that is all');
  assert.match(session.channel(3).slice(2), /^error forwarding port \d+ to pod p_default, uid : .*ECONNREFUSED/);
});
