/** Requests that no client library would send, and what upstream's server says to them. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Bed, openBed } from './who-bed.ts';

let bed: Bed;
const maps = '/api/v1/namespaces/raw/configmaps';

before(async () => {
  bed = await openBed(() => ['--anonymous-auth=true', '--runtime-config=api/beta=false']);
  await bed.ask({
    path: '/api/v1/namespaces',
    as: bed.admin,
    body: { metadata: { name: 'raw' } },
  });
  for (const name of ['a', 'b'])
    await bed.ask({ path: maps, as: bed.admin, body: { metadata: { name }, data: { k: 'v' } } });
});
after(() => bed.close());

interface Row {
  readonly ask: string;
  readonly body?: object | string;
  readonly type?: string;
  readonly code: number;
  /** What the Status must say. */
  readonly says?: RegExp;
}

const JSON_PATCH = 'application/json-patch+json';
const MERGE = 'application/merge-patch+json';
const STRATEGIC = 'application/strategic-merge-patch+json';
const UNKNOWN = /^the server could not find the requested resource$/;
const METHOD = /^the server does not allow this method on the requested resource$/;

async function asked({ ask, body, type, code, says }: Row): Promise<void> {
  const [method = 'GET', path = ''] = ask.split(' ');
  const reply = await bed.ask({
    method,
    path,
    as: bed.admin,
    ...(body === undefined ? {} : { body }),
    ...(type ? { headers: { 'content-type': type } } : {}),
  });
  const told = `${ask} ${JSON.stringify(body ?? '')}: ${JSON.stringify(reply.json)}`;
  assert.equal(reply.status, code, told);
  if (says) assert.match(reply.json.message, says, told);
}

function table(name: string, rows: readonly Row[]): void {
  test(name, async () => {
    for (const row of rows) await asked(row);
  });
}

table('paths that are no routes', [
  { ask: 'GET /api/v1/namespaces/raw/nodes', code: 404, says: UNKNOWN },
  { ask: 'GET /api/v1/namespaces/raw/nodes/n', code: 404, says: UNKNOWN },
  { ask: 'GET /api/v1/namespaces/raw/nodes/n/proxy/', code: 404, says: UNKNOWN },
  { ask: 'GET /api/v1/namespaces/raw/namespaces', code: 404, says: UNKNOWN },
  { ask: 'GET /api/v1/namespaces/raw/namespaces/default', code: 404, says: UNKNOWN },
  {
    ask: 'POST /apis/rbac.authorization.k8s.io/v1/namespaces/raw/clusterroles',
    body: { metadata: { name: 'c' } },
    code: 404,
  },
  { ask: 'GET /api/v1/configmaps/a', code: 404, says: UNKNOWN },
  { ask: 'GET /api/v1/namespaces/raw/nothings', code: 404, says: UNKNOWN },
  { ask: 'GET /apis/apps/v1beta9/deployments', code: 404, says: UNKNOWN },
  { ask: `GET ${maps}/a/nothing`, code: 404, says: UNKNOWN },
  { ask: 'GET /apis/nobody.example/v1/things', code: 404 },
  { ask: 'GET /api/v1/namespaces/raw', code: 200 },
  { ask: 'GET /api/v1/configmaps', code: 200 },
]);

table('methods that a path does not have', [
  { ask: 'DELETE /api/v1/configmaps', code: 405, says: METHOD },
  { ask: 'POST /api/v1/configmaps', body: { metadata: { name: 'c' } }, code: 405, says: METHOD },
  { ask: `POST ${maps}/a`, body: {}, code: 405, says: METHOD },
  { ask: `PUT ${maps}`, body: { metadata: { name: 'a' } }, code: 405, says: METHOD },
  { ask: `PATCH ${maps}`, body: {}, type: MERGE, code: 405, says: METHOD },
  { ask: `OPTIONS ${maps}`, code: 405, says: METHOD },
  { ask: `HEAD ${maps}/a`, code: 405 },
  { ask: 'POST /api/v1/watch/configmaps', body: {}, code: 405, says: METHOD },
  { ask: 'PUT /api/v1/namespaces/raw/pods/p/exec?command=id', body: {}, code: 405, says: METHOD },
  { ask: 'DELETE /api/v1/namespaces/raw/pods/p/log', code: 405, says: METHOD },
  { ask: 'DELETE /version', code: 405, says: METHOD },
  { ask: 'POST /version', body: {}, code: 405, says: METHOD },
  { ask: 'POST /api', body: {}, code: 405, says: METHOD },
  { ask: 'POST /api/v1', body: {}, code: 405, says: METHOD },
  { ask: 'POST /apis/apps/v1', body: {}, code: 405, says: METHOD },
  { ask: 'POST /apis', body: {}, code: 200 },
  { ask: 'DELETE /apis/apps', code: 200 },
  { ask: 'POST /openapi/v2', body: {}, code: 200 },
  { ask: 'POST /openapi/v3', body: {}, code: 200 },
  { ask: 'POST /', body: {}, code: 200 },
  { ask: 'POST /api/v9', body: {}, code: 404, says: UNKNOWN },
  { ask: 'GET /apis/authorization.k8s.io/v1/subjectaccessreviews', code: 405, says: METHOD },
  { ask: `GET ${maps}/a`, code: 200 },
]);

table('options', [
  { ask: `GET ${maps}/a?resourceVersion=abc`, code: 400, says: /strconv.ParseUint: parsing "abc": invalid syntax/ },
  { ask: `GET ${maps}?timeoutSeconds=abc`, code: 400, says: /^strconv.ParseInt: parsing "abc": invalid syntax$/ },
  { ask: `GET ${maps}?dryRun=Some`, code: 200 },
  {
    ask: `GET ${maps}?continue=xyz`,
    code: 400,
    says: /^invalid continue token: continue key is not valid: invalid character/,
  },
  {
    ask: `POST ${maps}?dryRun=Some&fieldManager=%01`,
    body: { metadata: { name: 'c' } },
    code: 422,
    says: /CreateOptions.*dryRun: Unsupported value: \["Some"\]: supported values: "All".*invalid character U\+0001 \(at position 0\)/,
  },
  { ask: `DELETE ${maps}/a`, body: { dryRun: ['Some'] }, code: 422, says: /DeleteOptions.*dryRun: Unsupported value/ },
  { ask: `DELETE ${maps}/a?dryRun=Some`, code: 422, says: /DeleteOptions.*dryRun: Unsupported value/ },
  {
    ask: `DELETE ${maps}/a?propagationPolicy=Some`,
    code: 422,
    says: /propagationPolicy: Unsupported value: "Some"/,
  },
  {
    ask: `DELETE ${maps}/a`,
    body: { propagationPolicy: 'Orphan', orphanDependents: true },
    code: 422,
    says: /orphanDependents and deletionPropagation cannot be both set/,
  },
  { ask: `DELETE ${maps}/a?propagationPolicy=`, code: 422, says: /propagationPolicy: Unsupported value: ""/ },
  {
    ask: `DELETE ${maps}/a?propagationPolicy=Orphan&orphanDependents=FALSE`,
    code: 422,
    says: /propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set$/,
  },
  ...['', 'abc', '1.5', '0x1'].map(grace => ({
    ask: `DELETE ${maps}/a?gracePeriodSeconds=${grace}`,
    code: 400,
    says: new RegExp(`^strconv.ParseInt: parsing "${grace}": invalid syntax$`),
  })),
  {
    ask: `DELETE ${maps}/a?gracePeriodSeconds=9223372036854775808`,
    code: 400,
    says: /^strconv.ParseInt: parsing "9223372036854775808": value out of range$/,
  },
  { ask: `GET ${maps}?limit=`, code: 400, says: /^strconv.ParseInt: parsing "": invalid syntax$/ },
  { ask: `DELETE ${maps}/a`, body: { gracePeriodSeconds: 'x' }, code: 400, says: /cannot unmarshal string/ },
  { ask: `DELETE ${maps}/a`, body: { kind: 'Pod', apiVersion: 'v1' }, code: 400, says: /DeleteOptions/ },
  { ask: `DELETE ${maps}/a`, body: '[]', code: 400, says: /DeleteOptions/ },
  {
    ask: `DELETE ${maps}/a`,
    body: { preconditions: { uid: 'x' } },
    code: 409,
    says: /on ConfigMap "a": the UID in the precondition \(x\) does not match the UID in record/,
  },
  { ask: `GET ${maps}/a`, code: 200 },
]);

test('a dry run that only the body of a deletion asks for deletes nothing, nor does one of a collection', async () => {
  for (const path of [`${maps}/a`, maps]) {
    await asked({
      ask: `DELETE ${path}`,
      body: { kind: 'DeleteOptions', apiVersion: 'v1', dryRun: ['All'] },
      code: 200,
    });
    await asked({ ask: `DELETE ${path}?dryRun=All`, code: 200 });
    await asked({ ask: `GET ${maps}/a`, code: 200 });
    await asked({ ask: `GET ${maps}/b`, code: 200 });
  }
});

table('bodies', [
  {
    ask: `POST ${maps}`,
    body: '{',
    code: 400,
    says: /^the object provided is unrecognized \(must be of type ConfigMap\): couldn't get version\/kind; json parse error: unexpected end of JSON input \(\{\)$/,
  },
  { ask: `POST ${maps}`, body: '', code: 400, says: /unexpected end of JSON input \(<empty>\)$/ },
  { ask: `POST ${maps}`, body: '{"a" 1}', code: 400, says: /invalid character '1' after object key \(/ },
  { ask: `POST ${maps}`, body: '{"a":1 "b"}', code: 400, says: /invalid character '"' after object key:value pair/ },
  { ask: `POST ${maps}`, body: '{"a":[1 2]}', code: 400, says: /invalid character '2' after array element/ },
  { ask: `POST ${maps}`, body: '{"a":x}', code: 400, says: /invalid character 'x' looking for beginning of value/ },
  { ask: `POST ${maps}`, body: '[]', code: 400, says: /cannot unmarshal array into Go value .* \(5b5d\)$/ },
  {
    ask: `POST ${maps}`,
    body: { metadata: { name: 'c', resourceVersion: '5' } },
    code: 500,
    says: /^resourceVersion should not be set on objects to be created$/,
  },
  {
    ask: `PUT ${maps}/a`,
    body: { metadata: { name: 'a', resourceVersion: 'x' } },
    code: 500,
    says: /^strconv.ParseUint: parsing "x": invalid syntax$/,
  },
  {
    ask: `PATCH ${maps}/a`,
    type: MERGE,
    body: { metadata: { resourceVersion: '18446744073709551616' } },
    code: 500,
    says: /^strconv.ParseUint: parsing "18446744073709551616": value out of range$/,
  },
  { ask: `PUT ${maps}/a`, body: { metadata: { name: 'a', resourceVersion: '1' } }, code: 409 },
  {
    ask: `PUT ${maps}/a`,
    body: { metadata: {} },
    code: 400,
    says: /\(a based on URL\) was undeterminable: name must be/,
  },
  {
    ask: `PUT ${maps}/a`,
    body: { metadata: { name: 'a', namespace: 'z' } },
    code: 400,
    says: /^the namespace of the object \(z\) does not match the namespace on the request \(raw\)$/,
  },
  { ask: 'PUT /api/v1/namespaces/raw/finalize', body: {}, code: 400, says: /name must be provided/ },
  {
    ask: 'POST /api/v1/namespaces/raw/pods/p/eviction',
    body: {},
    code: 400,
    says: /^name in URL does not match name in Eviction object$/,
  },
  {
    ask: 'POST /api/v1/namespaces/raw/pods/p/binding',
    body: {},
    code: 400,
    says: /^name in URL does not match name in Binding object$/,
  },
]);

test('a kind that wants the resource version of what an update replaces takes none that is zero', async () => {
  const leases = '/apis/coordination.k8s.io/v1/namespaces/raw/leases';
  await asked({ ask: `POST ${leases}`, body: { metadata: { name: 'l' } }, code: 201 });
  for (const resourceVersion of ['', '0'])
    await asked({
      ask: `PUT ${leases}/l`,
      body: { metadata: { name: 'l', resourceVersion } },
      code: 422,
      says: /metadata.resourceVersion: Invalid value: 0: must be specified for an update$/,
    });
});

test('what is replaced by its UID is not made anew', async () => {
  const leases = '/apis/coordination.k8s.io/v1/namespaces/raw/leases';
  await asked({
    ask: `PUT ${leases}/absent`,
    body: { metadata: { name: 'absent', uid: 'abc' } },
    code: 409,
    says: /Precondition failed: UID in precondition: abc, UID in object meta: $/,
  });
  await asked({ ask: `PUT ${leases}/absent`, body: { metadata: { name: 'absent' } }, code: 201 });
});

table('patches', [
  ...[MERGE, STRATEGIC].flatMap(type => [
    { ask: `PATCH ${maps}/a`, type, body: '{', code: 400, says: /^unexpected end of JSON input$/ },
    {
      ask: `PATCH ${maps}/a`,
      type,
      body: { metadata: { name: 'z' } },
      code: 400,
      says: /^the name of the object \(z\) does not match the name on the URL \(a\)$/,
    },
    {
      ask: `PATCH ${maps}/a`,
      type,
      body: { data: { a: 1 } },
      code: 422,
      says: /^ "" is invalid: patch: Invalid value: ".*": json: cannot unmarshal number/,
    },
    {
      ask: `PATCH ${maps}/a?fieldValidation=Strict`,
      type,
      body: { nothing: 1 },
      code: 422,
      says: /^ "" is invalid: patch: Invalid value: ".*": strict decoding error: unknown field "nothing"/,
    },
    { ask: `PATCH ${maps}/a`, type, body: { metadata: { annotations: { a: 'b' } } }, code: 200 },
  ]),
  {
    ask: `PATCH ${maps}/a`,
    type: JSON_PATCH,
    body: [{ op: 'replace', path: '/kind', value: 'Pod' }],
    code: 422,
    says: /^ "" is invalid: patch: /,
  },
  {
    ask: `PATCH ${maps}/a?fieldValidation=Strict`,
    type: JSON_PATCH,
    body: [{ op: 'test', path: '/kind', value: 'ConfigMap', why: 1 }],
    code: 422,
    says: /^ "" is invalid: patch: Invalid value: ".*": strict decoding error: json patch unknown field "\[0\]\.why"$/,
  },
  {
    ask: `PATCH ${maps}/a`,
    type: JSON_PATCH,
    body: [{ op: 'replace', path: '/metadata/annotations/new', value: 'here', why: 1 }],
    code: 200,
  },
]);

test('YAML: the last of two values counts, and is warned of or refused', async () => {
  const twice = (path: string) =>
    bed.ask({
      path,
      as: bed.admin,
      body: 'metadata: {name: yam}\ndata: {a: "1"}\ndata: {a: "2"}\n',
      headers: { 'content-type': 'application/yaml' },
    });
  const taken = await twice(`${maps}?dryRun=All`);
  assert.equal(taken.status, 201, JSON.stringify(taken.json));
  assert.equal(taken.json.data.a, '2');
  assert.match(String(taken.headers['warning']), /line 3: key .*data.* already set in map/);
  const refused = await twice(`${maps}?dryRun=All&fieldValidation=Strict`);
  assert.equal(refused.status, 400);
  assert.match(refused.json.message, /strict decoding error: .*line 3: key "data" already set in map/);
  const ignored = await twice(`${maps}?dryRun=All&fieldValidation=Ignore`);
  assert.equal(ignored.headers['warning'], undefined);
  const broken = await bed.ask({
    path: maps,
    as: bed.admin,
    body: 'a: [',
    headers: { 'content-type': 'application/yaml' },
  });
  assert.equal(broken.status, 400);
  assert.match(broken.json.message, /must be of type ConfigMap\): yaml: line 1: .* \(613a205b\)$/);
});

test('a scale has a table of its own', async () => {
  const path = '/apis/apps/v1/namespaces/raw/deployments';
  const template = { metadata: { labels: { a: 'b' } }, spec: { containers: [{ name: 'c', image: 'i' }] } };
  const spec = { replicas: 3, selector: { matchLabels: { a: 'b' } }, template };
  await asked({ ask: `POST ${path}`, body: { metadata: { name: 'd' }, spec }, code: 201 });
  const { json } = await bed.ask({
    path: `${path}/d/scale`,
    as: bed.admin,
    headers: { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' },
  });
  const names = json.columnDefinitions.map(({ name }: { name: string }) => name);
  assert.deepEqual(names, ['Name', 'Desired', 'Available', 'Age']);
  assert.deepEqual(json.rows[0].cells.slice(0, 3), ['d', 3, 0]);
});

test('the rules of an administrator are those of cluster-admin, once', async () => {
  const { json } = await bed.ask({
    path: '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews',
    as: bed.admin,
    body: { spec: { namespace: 'raw' } },
  });
  const all = json.status.resourceRules.filter(({ verbs }: { verbs: string[] }) => verbs.includes('*'));
  assert.deepEqual(all, [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }]);
});

test('statusz and flagz: text, objects to whoever names them, nothing else', async () => {
  const page = (path: string, accept?: string) =>
    bed.ask({ path, as: bed.admin, ...(accept ? { headers: { accept } } : {}) });
  const status = await page('/statusz', 'application/json, */*');
  assert.match(
    status.json,
    /^\nkube-apiserver statusz\nWarning: .*\n\nStarted: \w+ \w+ [ \d]\d .* UTC \d+\nUp: 0 hr 00 min \d\d sec\nGo version: .*\nBinary version: 1\.36.*\nEmulation version: 1\.36\nPaths: \/flagz \/healthz \/livez \/metrics \/readyz \/statusz \/version\n$/,
  );
  assert.match(String(status.headers['content-type']), /^text\/plain/);
  const flags = await page('/flagz');
  assert.match(
    flags.json,
    /^\nkube-apiserver flagz\nWarning: .*\nanonymous-auth=true\nruntime-config=api\/beta=false\n$/,
  );
  const kinds = { statusz: 'Statusz', flagz: 'Flagz' };
  for (const [path, kind] of Object.entries(kinds)) {
    const { json, headers } = await page(`/${path}`, `application/json;v=v1beta1;g=config.k8s.io;as=${kind}`);
    assert.equal(json.kind, kind);
    assert.equal(json.apiVersion, 'config.k8s.io/v1beta1');
    assert.deepEqual(json.metadata, { name: 'kube-apiserver' });
    assert.equal(headers['warning'], undefined);
    const old = await page(`/${path}`, `application/json;v=v1alpha1;g=config.k8s.io;as=${kind}`);
    assert.match(String(old.headers['warning']), /deprecated/);
    assert.equal((await page(`/${path}`, 'application/json')).status, 406);
    assert.equal((await page(`/${path}`, `application/json;v=v9;g=config.k8s.io;as=${kind}`)).status, 406);
  }
  const { json } = await page('/flagz', 'application/json;v=v1beta1;g=config.k8s.io;as=Flagz');
  assert.deepEqual(json.flags, { 'anonymous-auth': 'true', 'runtime-config': 'api/beta=false' });
  // They tell more than anybody need know.
  assert.equal((await bed.ask({ path: '/flagz' })).status, 403);
});
