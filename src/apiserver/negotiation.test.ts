import { strict as assert } from 'node:assert';
import { request as httpsRequest } from 'node:https';
import { after, before, test } from 'node:test';
import { decodeCbor } from '../api/cbor/decoder.ts';
import { encodeCbor } from '../api/cbor/encoder.ts';
import { decodeProtobuf } from '../api/protobuf/decoder.ts';
import { encodeProtobuf } from '../api/protobuf/encoder.ts';
import { openMemoryStore } from '../store/memory.ts';
import { issueCertificate, issueKeyPair, newKey } from './certificates/certificate.ts';
import { layoutOfFailure, negotiate, negotiateWatch } from './negotiation.ts';
import { ApiServer } from './server.ts';

const PROTOBUF = 'application/vnd.kubernetes.protobuf';

test('the best clause wins: quality, then how exact it is, then the order', () => {
  const format = (accept: string, serving: 'builtin' | 'custom' = 'builtin') => negotiate(accept, serving).format;
  assert.equal(format(`${PROTOBUF}, */*`), 'protobuf');
  assert.equal(format(`${PROTOBUF}, */*`, 'custom'), 'json');
  assert.equal(format(`${PROTOBUF};q=0.5, application/json`), 'json');
  assert.equal(format('*/*, application/yaml'), 'yaml');
  assert.equal(format('text/html, application/*;q=0.2, application/cbor;q=0.3'), 'cbor');
  assert.equal(format('application/*', 'custom'), 'json');
  assert.equal(format('text/html,application/xhtml+xml,*/*;q=0.8'), 'json');
  assert.equal(format(`${PROTOBUF};stream=watch`), 'protobuf');
  assert.throws(
    () => negotiate('text/html'),
    /application\/json, application\/yaml, application\/vnd.kubernetes.protobuf, application\/cbor$/,
  );
  assert.throws(() => negotiate(PROTOBUF, 'custom'), { code: 406 });
  const types = `application/json, application/yaml, ${PROTOBUF}, application/cbor`;
  for (const accept of ['text/html', 'application/*'])
    assert.throws(() => negotiate(accept), { message: `406: Not Acceptable\n\nAvailable representations: ${types}` });
  const streams = `application/json;stream=watch, ${PROTOBUF};stream=watch, application/cbor;stream=watch`;
  assert.throws(() => negotiate('text/html', 'review', { isList: true }), {
    message: `406: Not Acceptable\n\nAvailable representations: ${types}, ${streams}`,
  });
  assert.throws(() => negotiate('application/json;as=Other'), {
    message: `only the following media types are accepted: ${types}`,
  });
});

test('Tables have no protobuf form, metadata has one even of custom resources; YAML has no stream', () => {
  const table = 'as=Table;g=meta.k8s.io;v=v1';
  assert.throws(() => negotiate(`${PROTOBUF};${table}`), { code: 406 });
  assert.throws(() => negotiate(`application/json;${table}`, 'review'), { code: 406 });
  assert.equal(negotiate(`application/json;${table},application/json`, 'review').as, undefined);
  assert.equal(negotiate(`${PROTOBUF};${table},application/json;${table}`).format, 'json');
  const partial = negotiate(`${PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1`, 'custom');
  assert.deepEqual(partial, { format: 'protobuf', as: 'PartialObjectMetadata', version: 'v1' });
  assert.throws(() => negotiateWatch('application/yaml', 'builtin'), /application\/json;stream=watch/);
  assert.deepEqual(layoutOfFailure('text/html'), { format: 'json', version: 'v1', isPretty: true });
});

let server: ApiServer;
let port: number;

before(async () => {
  const validity = { notBeforeMs: Date.now() - 86_400_000, notAfterMs: Date.now() + 86_400_000 };
  const key = newKey();
  const certificate = issueCertificate(
    { subject: { commonName: 'test' }, usages: ['authority'], ...validity },
    key.publicKey,
    { selfKey: key.privateKey },
  );
  const serving = issueKeyPair(
    { subject: { commonName: 'api' }, names: ['127.0.0.1'], usages: ['server'], ...validity },
    { certificate, privateKey: key.privateKey },
  );
  server = await ApiServer.open({ store: openMemoryStore() });
  ({ port } = await server.listen(
    { host: '127.0.0.1', port: 0 },
    { key: serving.key, cert: serving.certificate, ca: certificate },
  ));
});
after(() => server.close());

/** The reply; of a watch what had come when `enough` was satisfied. */
function ask(
  method: string,
  path: string,
  options: { accept?: string; type?: string; body?: Buffer; enough?: (bytes: Buffer) => boolean } = {},
): Promise<{ status: number; type: string; body: Buffer }> {
  const { accept, type, body, enough } = options;
  return new Promise((resolve, reject) => {
    const headers = {
      ...(accept ? { accept } : {}),
      ...(type ? { 'content-type': type } : {}),
      ...(body ? { 'content-length': body.length } : {}),
    };
    const request = httpsRequest(
      { host: '127.0.0.1', port, method, path, headers, rejectUnauthorized: false },
      reply => {
        const chunks: Buffer[] = [];
        const done = () => {
          resolve({
            status: reply.statusCode ?? 0,
            type: reply.headers['content-type'] ?? '',
            body: Buffer.concat(chunks),
          });
          request.destroy();
        };
        reply.on('data', (chunk: Buffer) => {
          chunks.push(chunk);
          if (enough?.(Buffer.concat(chunks))) done();
        });
        reply.on('end', done);
        reply.on('error', () => {});
      },
    );
    request.on('error', reject);
    request.end(body);
  });
}

const PODS = '/api/v1/namespaces/default/configmaps';
const object = (name: string) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { k: 'v' } });

test('a typed Go client: create, get, list, patch and delete in protobuf, failures too', async () => {
  const protobuf = { accept: `${PROTOBUF},*/*` };
  const made = await ask('POST', PODS, { ...protobuf, type: PROTOBUF, body: encodeProtobuf(object('go')) });
  assert.deepEqual([made.status, made.type], [201, PROTOBUF]);
  assert.deepEqual((decodeProtobuf(made.body) as { data?: unknown }).data, { k: 'v' });
  const list = decodeProtobuf((await ask('GET', PODS, protobuf)).body) as { kind: string; items?: unknown[] };
  assert.deepEqual([list.kind, list.items?.length], ['ConfigMapList', 1]);
  const patched = await ask('PATCH', `${PODS}/go`, {
    ...protobuf,
    type: 'application/merge-patch+json',
    body: Buffer.from('{"data":{"x":"y"}}'),
  });
  assert.deepEqual((decodeProtobuf(patched.body) as { data?: unknown }).data, { k: 'v', x: 'y' });
  const absent = await ask('GET', `${PODS}/absent`, protobuf);
  assert.deepEqual([absent.status, absent.type], [404, PROTOBUF]);
  assert.equal((decodeProtobuf(absent.body) as unknown as { reason: string }).reason, 'NotFound');
  const options = encodeProtobuf({ apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds: 0 } as never);
  const gone = await ask('DELETE', `${PODS}/go`, { ...protobuf, type: PROTOBUF, body: options });
  assert.equal((decodeProtobuf(gone.body) as unknown as { status: string }).status, 'Success');
});

test('watches in protobuf are frames with their length in front, in CBOR items in a row', async () => {
  const watch = `${PODS}?watch=true&resourceVersion=0`;
  await ask('POST', PODS, { type: 'application/cbor', body: encodeCbor(object('seen')) });
  const framed = await ask('GET', watch, {
    accept: `${PROTOBUF};stream=watch`,
    enough: bytes => bytes.length >= 4 && bytes.length >= 4 + bytes.readUInt32BE(0),
  });
  assert.equal(framed.type, `${PROTOBUF};stream=watch`);
  const frame = framed.body.subarray(4, 4 + framed.body.readUInt32BE(0));
  // WatchEvent: type (1) ADDED, object (2) of which raw (1) is a message with its envelope.
  assert.equal(frame.subarray(0, 7).toString('latin1'), '\n\x05ADDED');
  const embedded = decodeProtobuf(frame.subarray(frame.indexOf('k8s\0')));
  assert.equal(embedded.metadata.name, 'seen');
  const items = await ask('GET', watch, { accept: 'application/cbor', enough: bytes => bytes.includes('seen') });
  assert.equal(items.type, 'application/cbor-seq');
  const event = decodeCbor(items.body) as { type: string; object: ReturnType<typeof object> };
  assert.deepEqual([event.type, event.object.metadata.name], ['ADDED', 'seen']);
});

test('who accepts no form that there is changes nothing', async () => {
  const body = Buffer.from(JSON.stringify(object('unseen')));
  assert.equal((await ask('POST', PODS, { accept: 'text/html', body })).status, 406);
  assert.equal((await ask('GET', `${PODS}/unseen`)).status, 404);
});

test('discovery documents have a protobuf form', async () => {
  const { body, type } = await ask('GET', '/api/v1', { accept: PROTOBUF });
  assert.equal(type, PROTOBUF);
  const { resources } = decodeProtobuf(body) as unknown as { resources: { name: string; verbs: string[] }[] };
  assert.deepEqual(resources.find(({ name }) => name === 'bindings')?.verbs, ['create']);
});
