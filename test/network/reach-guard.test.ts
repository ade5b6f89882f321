/** What HAProxy may not reach, by the kernel's own word: in a namespace of its own, by processes of the group that HAProxys have. */

import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { createLogger } from '../../src/base/log.ts';
import { REACH_GROUP, ReachGuard } from '../../src/ingress/haproxy/reach-guard.ts';
import { loopbackUp } from '../../src/sys/netlink.ts';
import { createNetns, deleteNetns, netnsPath } from '../../src/sys/netns.ts';
import { Nftables } from '../../src/sys/nftables.ts';
import { root, until } from './bed.ts';

const options = { skip: !root };
const name = `cox-reach-${process.pid}`;
const OTHER_GROUP = 65_534;
const PORT = 8080;
const OWN = ['127.0.0.1', '127.9.9.9', '0.0.0.0', '::1', '::ffff:127.0.0.1', '169.254.169.254'];
const ELSEWHERE = ['192.0.2.1', '2001:db8::1'];
let guard: ReachGuard;
let server: ChildProcess;

const as = (group: number, script: string): string[] => [
  ...[`--net=${netnsPath(name)}`, 'setpriv', '--regid', String(group), '--clear-groups'],
  ...[process.execPath, '-e', script],
];

/** What a process of that group gets from each: `hello`, or the code of an error. */
async function reached(group: number, hosts: readonly string[] = [...OWN, ...ELSEWHERE]): Promise<string[]> {
  const script = `
    const ask = host => new Promise(done => {
      const socket = require('node:net').connect({ host, port: ${PORT} });
      socket.on('data', data => { done(String(data)); socket.destroy(); }).on('error', error => done(error.code));
    });
    Promise.all(${JSON.stringify(hosts)}.map(ask)).then(all => console.log(JSON.stringify(all)));`;
  const { stdout } = await promisify(execFile)('nsenter', as(group, script), { timeout: 60_000 });
  return JSON.parse(stdout) as string[];
}

before(async () => {
  if (!root) return;
  createNetns(name);
  loopbackUp(netnsPath(name));
  for (const address of ['169.254.169.254/32', '192.0.2.1/32', '2001:db8::1/128'])
    await promisify(execFile)('ip', ['-n', name, 'address', 'add', address, 'dev', 'lo']);
  // The server is of the group itself: what it answers to the node's own clients is not for the rule to refuse.
  const script = `require('node:net').createServer(socket => socket.end('hello')).listen(${PORT}, '::', () => console.log('listens'));`;
  server = spawn('nsenter', as(REACH_GROUP, script), { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(server.stdout!, 'data');
  guard = new ReachGuard({ namespace: netnsPath(name), log: createLogger('test', { level: 'error' }) });
});
after(() => {
  guard?.close();
  server?.kill();
  if (root) deleteNetns(name);
});

const hello = (hosts: readonly string[]) => hosts.map(() => 'hello');
const refused = OWN.map(() => 'ECONNREFUSED');

test("HAProxy's group does not reach the node's own addresses; others do, and it answers there", options, async () => {
  assert.deepEqual(await reached(REACH_GROUP), hello([...OWN, ...ELSEWHERE]), 'without the rule');
  guard.keep();
  assert.deepEqual(await reached(REACH_GROUP), [...refused, ...hello(ELSEWHERE)]);
  assert.deepEqual(await reached(OTHER_GROUP), hello([...OWN, ...ELSEWHERE]));
});

test('said again it is one rule; taken away by somebody else it comes back', options, async () => {
  const text = new Nftables(netnsPath(name));
  const listed = () => text.run('list table inet coxswain-reach');
  guard.keep();
  const before = listed();
  guard.keep();
  assert.equal(listed(), before);
  text.run('flush ruleset');
  await until(() => text.run('list ruleset') === before, 30_000);
  assert.deepEqual(await reached(REACH_GROUP, OWN), refused);
});
