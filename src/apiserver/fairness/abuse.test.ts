import { strict as assert } from 'node:assert';
import { type ClientHttp2Session, connect } from 'node:http2';
import { after, before, test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { CONFIG_MAPS, FLOW_SCHEMAS } from '../../client/resources.ts';
import { openMemoryStore } from '../../store/memory.ts';
import { issueCertificate, issueKeyPair, newKey } from '../certificates/certificate.ts';
import { LOOPBACK_USER } from '../request.ts';
import { ApiServer } from '../server.ts';
import { Fairness } from './fairness.ts';
import { FairnessObjects } from './fairness-objects.ts';

// An abuser and somebody who wants one object, on the same level. What is asserted is order, never time.

const OBJECTS = 320;
const OBJECT_BYTES = 600;
const PATH = '/api/v1/namespaces/default/configmaps';

let server: ApiServer;
let port: number;
const sessions: ClientHttp2Session[] = [];

before(async () => {
  const validity = { notBeforeMs: Date.now() - 86_400_000, notAfterMs: Date.now() + 86_400_000 };
  const key = newKey();
  const ca = issueCertificate({ subject: { commonName: 'test' }, usages: ['authority'], ...validity }, key.publicKey, {
    selfKey: key.privateKey,
  });
  const serving = issueKeyPair(
    { subject: { commonName: 'api' }, names: ['127.0.0.1'], usages: ['server'], ...validity },
    { certificate: ca, privateKey: key.privateKey },
  );
  const fairness = new Fairness({ clock: systemClock, unreadBytesMax: 4 * 1024 * 1024 });
  server = await ApiServer.open({
    store: openMemoryStore(),
    fairness,
    authenticators: [
      { authenticate: ({ headers }) => ({ name: String(headers['x-user']), groups: ['system:authenticated'] }) },
    ],
  });
  const transport = server.transport(LOOPBACK_USER);
  const flows = new FairnessObjects({
    fairness,
    reader: () => server.reader,
    transport: () => transport,
    clock: systemClock,
    log: silentLogger,
  });
  await flows.bootstrap();
  flows.follow();
  for (let i = 0; i < OBJECTS; i++)
    await transport.create({ of: CONFIG_MAPS, namespace: 'default' }, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: `c${i}` },
      data: { k: 'x'.repeat(OBJECT_BYTES) },
    } as never);
  ({ port } = await server.listen({ host: '127.0.0.1', port: 0 }, { key: serving.key, cert: serving.certificate, ca }));
});
after(async () => {
  for (const session of sessions) session.destroy();
  await server.close();
});

function open(): ClientHttp2Session {
  const session = connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false });
  session.on('error', () => {});
  sessions.push(session);
  return session;
}

interface Reply {
  readonly status: number;
  readonly headers: Record<string, unknown>;
  readonly bytes: number;
  readonly text: string;
}

function ask(
  session: ClientHttp2Session,
  user: string,
  path: string,
  { method = 'GET', body, unread }: { method?: string; body?: string; unread?: true } = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': method,
      ':path': path,
      'x-user': user,
      ...(body ? { 'content-length': Buffer.byteLength(body), 'content-type': 'application/json' } : {}),
    });
    stream.on('error', reject);
    stream.on('response', headers => {
      const status = Number(headers[':status']);
      if (unread) return resolve({ status, headers, bytes: 0, text: '' });
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: string | Buffer) => chunks.push(chunk as Buffer));
      stream.on('end', () => {
        const whole = Buffer.concat(chunks);
        resolve({ status, headers, bytes: whole.length, text: whole.subarray(0, 200).toString() });
      });
    });
    stream.end(body);
  });
}

test('replies name the flow schema and priority level that the request ran under', async () => {
  const { headers } = await ask(open(), 'jo', `${PATH}/c1`);
  const schema = server.reader.get(FLOW_SCHEMAS, '', 'global-default');
  assert.equal(headers['x-kubernetes-pf-flowschema-uid'], schema!.metadata.uid);
  assert.match(String(headers['x-kubernetes-pf-prioritylevel-uid']), /^[0-9a-f-]{36}$/);
});

test('endless lists of one user: single objects are read by another between them', async () => {
  const abuser = open();
  let done = 0;
  const lists = Array.from({ length: 50 }, () => ask(abuser, 'mallory', PATH).finally(() => done++));
  const victim = open();
  for (let i = 0; i < 3; i++) assert.equal((await ask(victim, 'jo', `${PATH}/c${i}`)).status, 200);
  assert.ok(done < lists.length, `all ${done} lists came first`);
  for (const { status } of await Promise.all(lists)) assert.ok(status === 200 || status === 429, String(status));
});

test('3 MB bodies of one user: single objects are read by another between them', async () => {
  const abuser = open();
  const body = JSON.stringify({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'large' },
    data: { k: 'x'.repeat(2_900_000) },
  });
  let done = 0;
  const writes = Array.from({ length: 12 }, () =>
    ask(abuser, 'mallory', PATH, { method: 'POST', body })
      // The connection itself refuses to hold that many bodies nobody has asked for yet.
      .catch(() => ({ status: 0 }))
      .finally(() => done++),
  );
  assert.equal((await ask(open(), 'jo', `${PATH}/c1`)).status, 200);
  assert.ok(done < writes.length);
  for (const { status } of await Promise.all(writes))
    assert.ok([0, 201, 409, 413, 422, 429].includes(status), String(status));
});

test('whoever asks for large lists and reads none of them gets no more, others do', async () => {
  const abuser = open();
  const statuses = new Set<number>();
  for (let asked = 0; asked < 100 && !statuses.has(429); asked++)
    statuses.add((await ask(abuser, 'silent', PATH, { unread: true })).status);
  assert.deepEqual([...statuses], [200, 429]);
  const refused = await ask(abuser, 'silent', PATH);
  assert.equal(refused.text, 'Too many requests, please try again later.\n');
  assert.equal(refused.headers['retry-after'], '1');
  assert.equal((await ask(open(), 'jo', PATH)).status, 200);
});

test('a request that takes too long is told so, when it says how long it may take', async () => {
  const refused = await ask(open(), 'jo', `${PATH}/c1?timeout=never`);
  assert.equal(refused.status, 400);
});
