import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { ApiError } from '../../base/errors.ts';
import { NodeLogs } from './node-logs.ts';

const scratch = mkdtempSync(join(tmpdir(), 'cox-node-logs-'));
const folder = join(scratch, 'log');
const pods = join(scratch, 'pods');
const agent = join(scratch, 'node-1.log');
const logs = new NodeLogs({ folder, entries: { pods, 'kubelet.log': agent }, services: { kubelet: agent } });
const server = createServer((request, response) => {
  const url = new URL(request.url!, 'http://node');
  const segments = url.pathname.split('/').slice(2).map(decodeURIComponent).filter(Boolean);
  logs.serve(request, response, segments, url).catch(error => {
    response.writeHead(error instanceof ApiError ? error.code : 500);
    response.end(error.message);
  });
});

before(async () => {
  for (const path of [folder, pods, join(pods, 'ns_a_uid'), join(folder, 'deep')]) mkdirSync(path);
  writeFileSync(join(scratch, 'secret'), 'secret');
  writeFileSync(join(pods, 'ns_a_uid', '0.log'), 'of a pod');
  writeFileSync(join(folder, 'deep', 'deep.log'), 'deep words');
  writeFileSync(join(folder, 'a<b.log'), 'x');
  symlinkSync(join(scratch, 'secret'), join(folder, 'out'));
  symlinkSync(scratch, join(pods, 'up'));
  symlinkSync(join(pods, 'ns_a_uid', '0.log'), join(folder, 'inside'));
  const line = (second: number, words: string) => `2026-05-01T10:00:0${second}.000Z INFO  kubelet: ${words}\n`;
  writeFileSync(agent, line(1, 'one') + line(2, 'two'));
  renameSync(agent, `${agent}.1`);
  writeFileSync(agent, `${line(3, 'three')}    at a stack\n${line(4, 'four')}`);
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
});
after(() => {
  server.close();
  server.closeAllConnections();
  rmSync(scratch, { recursive: true });
});

/** The path goes as it is: `fetch` would clean it. */
function get(path: string): Promise<{ code: number; text: string; location?: string }> {
  const { port } = server.address() as { port: number };
  return new Promise((resolve, reject) => {
    const sent = request({ port, host: '127.0.0.1', path, agent: false }, response => {
      let text = '';
      response.setEncoding('utf8').on('data', chunk => (text += chunk));
      response.once('end', () =>
        resolve({
          code: response.statusCode!,
          text,
          ...(response.headers.location ? { location: response.headers.location } : {}),
        }),
      );
    });
    sent.once('error', reject).end();
  });
}
const lines = async (query: string) => (await get(`/logs/?${query}`)).text.split('\n').filter(Boolean);

it('folders are listed, files are sent', async () => {
  const root = (await get('/logs/')).text;
  for (const link of ['<a href="pods/">pods/</a>', '<a href="kubelet.log">', '<a href="a%3Cb.log">a&lt;b.log</a>'])
    assert.ok(root.includes(link), root);
  assert.deepEqual(await get('/logs/pods'), { code: 301, text: '', location: 'pods/' });
  assert.match((await get('/logs/pods/')).text, /ns_a_uid\//);
  assert.equal((await get('/logs/pods/ns_a_uid/0.log')).text, 'of a pod');
  assert.equal((await get('/logs/inside')).text, 'of a pod');
  assert.equal((await get('/logs/nothing')).code, 404);
});

it('nothing leads out of what is shown', async () => {
  for (const path of ['out', 'pods/up/secret', 'pods/up/', 'pods/..%2f..%2fsecret', '..%2fsecret']) {
    const { code, text } = await get(`/logs/${path}`);
    assert.ok(code >= 400, `${path}: ${code}`);
    assert.doesNotMatch(text, /^secret/);
  }
  assert.equal((await get('/logs/?query=/../secret')).code, 400);
  assert.equal((await get('/logs/?query=/out')).code, 404);
});

it("a service's lines are chosen by time, pattern and number, across a rotation", async () => {
  assert.equal((await lines('query=kubelet')).length, 5);
  assert.deepEqual(
    (await lines('query=kubelet&tailLines=2')).map(line => line.split(' ').at(-1)),
    ['stack', 'four'],
  );
  assert.deepEqual(await lines('query=kubelet&tailLines=0'), []);
  assert.deepEqual(
    (await lines('query=kubelet&sinceTime=2026-05-01T10:00:02Z&untilTime=2026-05-01T12:00:03%2B02:00')).map(line =>
      line.split(' ').at(-1),
    ),
    ['two', 'three', 'stack'],
  );
  assert.equal((await lines('query=kubelet&pattern=t(wo|hree)$')).length, 2);
  assert.deepEqual(await lines('query=deep'), ['deep words']);
  assert.deepEqual(await lines('query=none'), ['log not found for none']);
  assert.match((await lines('query=deep&tailLines=1')).join(), /options present and query resolved to log files/);
  assert.equal((await get('/logs/?query=/deep/deep.log')).text, 'deep words');
});

it('what may not be asked is refused in upstream’s words', async () => {
  const refusals: Record<string, [number, RegExp]> = {
    'query=%20': [400, /query cannot be empty/],
    'query=kubelet&sinceTime=yesterday': [400, /sinceTime: Invalid value: "yesterday": invalid time format/],
    'query=a;b': [406, /input contains unsupported characters/],
    'query=kubelet&query=/x': [406, /cannot specify a file and service/],
    'query=/x&tailLines=1': [406, /cannot specify file with options/],
    'tailLines=1': [406, /query: Required value: cannot be empty with options/],
    'query=kubelet&tailLines=100001': [406, /must be between 0 and 100000, inclusive/],
    'query=kubelet&boot=1': [406, /must be less than 1/],
    'query=kubelet&pattern=(': [406, /pattern: Invalid value/],
  };
  for (const [query, [code, message]] of Object.entries(refusals)) {
    const answer = await get(`/logs/?${query}`);
    assert.equal(answer.code, code, query);
    assert.match(answer.text, message);
  }
  assert.equal((await get('/logs/deep?query=kubelet')).code, 406);
});
