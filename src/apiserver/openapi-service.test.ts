import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { openapiV2Document, openapiV3Documents, openapiV3Index } from '../api/openapi.ts';
import { openapiV2Protobuf } from '../api/openapi-protobuf.ts';
import type { JsonSchema } from '../api/openapi-schema.ts';
import { builtinResources } from '../api/resources.ts';
import type { ResourceInfo } from '../api/schema.ts';
import { OpenapiService, V2_PROTOBUF } from './openapi-service.ts';
import type { ResourceTable } from './resource-table.ts';

const RELEASE = 'v1.36.0';
const EVERY = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

function infoOf(number: number, group: string): ResourceInfo {
  const resource = `things${number}`;
  const kind = `Thing${number}`;
  const names = { resource, singular: `thing${number}`, kind, listKind: `${kind}List` };
  const lists = { shortNames: [], categories: [], verbs: EVERY, subresources: [] };
  return { ...names, ...lists, group, version: 'v1', namespaced: true, type: '' };
}
function schemaOf(width: number): JsonSchema {
  const field = { type: 'string', description: 'Ü, "one" of many', nullable: true, enum: ['a', 'b'] };
  return {
    type: 'object',
    properties: Object.fromEntries(Array.from({ length: width }, (_, at) => [`field${at}`, field])),
  };
}

function setup(count: number) {
  const table = { version: 1, builtin: builtinResources, custom: [] as { info: ResourceInfo; custom: object }[] };
  const add = (number: number, group = 'a.example.com', width = 2) => {
    table.custom.push({ info: infoOf(number, group), custom: { published: schemaOf(width) } });
    table.version++;
  };
  for (let number = 0; number < count; number++) add(number);
  const service = new OpenapiService(RELEASE, table as unknown as ResourceTable);
  const bytes = async (path: string) => gunzipSync((await service.find(path))!.gzipped);
  const json = async (path: string) => JSON.parse((await bytes(path)).toString());
  const options = () => ({
    release: RELEASE,
    custom: table.custom.map(({ info, custom }) => ({ info, schema: (custom as { published: JsonSchema }).published })),
  });
  return { add, service, bytes, json, options, table };
}

test('what is made in steps is what is made at once, in every form', async () => {
  const { bytes, json, options, service } = setup(3);
  const v2 = openapiV2Document(options());
  assert.equal((await bytes('/openapi/v2')).toString(), JSON.stringify(v2));
  assert.deepEqual(await bytes(V2_PROTOBUF), openapiV2Protobuf(v2));
  const documents = openapiV3Documents(options());
  for (const { path, build } of documents)
    assert.equal((await bytes(`/openapi/v3/${path}`)).toString(), JSON.stringify(build()), path);
  const paths = Object.keys((await json('/openapi/v3')).paths);
  assert.deepEqual(paths, Object.keys(openapiV3Index(documents)['paths'] as object));
  assert.equal(await service.find('/openapi/v3/apis/nobody.example.com/v1'), undefined);
});

test('documents of extension servers stand beside ours, and ours go before', async () => {
  const { json, service } = setup(1);
  const theirs = (path: string, hash: string) => ({
    path,
    hash,
    v3: { openapi: '3.0.0', info: { title: 'theirs' }, paths: {} },
    v2: { paths: { '/apis/z.example.com/v1/': { get: {} } }, definitions: { Zebra: { type: 'object' } } },
  });
  service.merge([theirs('apis/z.example.com/v1', 'AA'), theirs('apis/a.example.com/v1', 'BB')]);
  assert.equal((await service.find('/openapi/v3/apis/z.example.com/v1'))!.etag, '"AA"');
  assert.equal((await json('/openapi/v3/apis/z.example.com/v1')).info.title, 'theirs');
  assert.equal((await json('/openapi/v3/apis/a.example.com/v1')).info.title, 'Kubernetes');
  const v2 = await json('/openapi/v2');
  assert.ok(v2.definitions.Zebra && v2.paths['/apis/z.example.com/v1/']);
  service.merge([]);
  assert.equal((await json('/openapi/v2')).definitions.Zebra, undefined);
  assert.equal(await service.find('/openapi/v3/apis/z.example.com/v1'), undefined);
});

test('others have their turns while a large document is made, and all who wait get the same', async () => {
  const { add, service } = setup(0);
  for (let number = 0; number < 300; number++) add(number, 'large.example.com', 100);
  let turns = 0;
  let isMade = false;
  const count = () => {
    turns++;
    if (!isMade) setImmediate(count);
  };
  setImmediate(count);
  const [first, second] = await Promise.all([service.find(V2_PROTOBUF), service.find(V2_PROTOBUF)]);
  isMade = true;
  assert.equal(first, second);
  assert.equal(await service.find(V2_PROTOBUF), first);
  assert.ok(turns > 10, `${turns} turns`);
});

test('whoever asks after a definition has taken effect finds it, also while a document without it is being made', async () => {
  const { add, json, service } = setup(40);
  const early = service.find('/openapi/v2');
  await new Promise(resolve => setImmediate(resolve));
  add(77);
  const late = json('/openapi/v2');
  await early;
  const has = (document: { definitions: object }) => 'com.example.a.v1.Thing77' in document.definitions;
  assert.ok(has(await late));
  assert.ok(has(await json('/openapi/v2')));
});

test('a group-version keeps its entity tag until something of it changes', async () => {
  const { add, service } = setup(1);
  const tagOf = async (group: string) => (await service.find(`/openapi/v3/apis/${group}/v1`))!.etag;
  const before = await tagOf('a.example.com');
  add(5, 'b.example.com');
  assert.equal(await tagOf('a.example.com'), before);
  const index = await service.find('/openapi/v3');
  add(6);
  assert.notEqual(await tagOf('a.example.com'), before);
  assert.notEqual((await service.find('/openapi/v3'))!.etag, index!.etag);
});
