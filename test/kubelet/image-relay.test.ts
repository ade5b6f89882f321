/**
 * The relay: a puller in one network namespace reaches a registry in another, which plays the machine's network, through a socket file,
 * and nothing of that machine's own.
 */

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LocalPuller } from '../../src/kubelet/images/local-puller.ts';
import { buildImage, hasRegistry, push, Registry, tarOf } from './registry.ts';

const work = mkdtempSync(join(tmpdir(), 'cox-relay-'));
const machine = `cox-relay-${process.pid}`;
const socket = join(work, 'registries.sock');
const ADDRESS = '10.99.0.1';
const main = resolve(import.meta.dirname, '../../src/cli/main.ts');
const inside = ['nsenter', `--net=/run/netns/${machine}`];
let relay: ChildProcess | undefined;
let open: Registry | undefined;
let far: Registry | undefined;

before(async () => {
  if (!hasRegistry) return;
  execFileSync('ip', ['netns', 'add', machine]);
  for (const command of [`addr add ${ADDRESS}/32 dev lo`, 'link set lo up'])
    execFileSync('nsenter', [...inside.slice(1), 'ip', ...command.split(' ')]);
  open = await Registry.start({ folder: join(work, 'content') });
  await push(open.host, 'app', ['1'], buildImage([tarOf({ a: 'through the relay' })]));
  far = await Registry.start({ folder: join(work, 'content'), address: ADDRESS, port: 5000, inside });
  relay = spawn('nsenter', [...inside.slice(1), process.execPath, main, 'image-relay', socket], {
    stdio: ['pipe', 'inherit', 'inherit'],
  });
  for (let i = 0; !existsSync(socket); i++) {
    assert.ok(i < 400 && relay.exitCode === null, 'the relay does not listen');
    await sleep(50);
  }
});
after(async () => {
  relay?.stdin?.destroy();
  await open?.stop();
  await far?.stop();
  if (hasRegistry) execFileSync('ip', ['netns', 'del', machine]);
  rmSync(work, { recursive: true, force: true });
});
const needs = { skip: hasRegistry ? false : 'needs docker-registry' };

function puller(network: { relay?: string; inside?: string[] }): LocalPuller {
  const imageDir = mkdtempSync(join(work, 'store-'));
  writeFileSync(join(imageDir, 'images.yaml'), `registries: {"${ADDRESS}:5000": {http: true}}`);
  return new LocalPuller({ imageDir, network });
}
const pull = (from: LocalPuller, name: string) =>
  from.pull({ reference: name, credentials: [] }, { signal: AbortSignal.timeout(20_000) });

function ask(line: string): Promise<string> {
  return new Promise((answer, reject) => {
    let text = '';
    const client = connect(socket, () => client.write(line));
    client.on('data', part => {
      text += part;
    });
    client.on('close', () => answer(text)).on('error', reject);
  });
}

test('a registry of the machine’s network is reached through the relay only', needs, async () => {
  for (let i = 0; ; i++) {
    try {
      const { image } = await pull(puller({ relay: socket, inside: ['10.244.0.0/16'] }), `${ADDRESS}:5000/app:1`);
      assert.equal(image.layers.length, 1);
      break;
    } catch (error) {
      // The registry has just been started.
      if (i > 100) throw error;
      await sleep(100);
    }
  }
  await assert.rejects(
    pull(puller({ relay: join(work, 'absent.sock') }), `${ADDRESS}:5000/app:1`),
    /not inside the cluster.*cox image pull/,
  );
  await assert.rejects(pull(puller({ relay: socket }), `${ADDRESS}:1/app:1`), /ECONNREFUSED|TLS/);
});

test('the relay leads to nothing of the machine itself, and understands one line only', needs, async () => {
  for (const host of [
    '127.0.0.1',
    '127.9.9.9',
    '::1',
    '0.0.0.0',
    '169.254.169.254',
    'fe80::1',
    'localhost',
    '::ffff:127.0.0.1',
  ])
    assert.match(await ask(`CONNECT ${host} 5000\n`), /address of this machine only/, host);
  assert.equal(await ask('GET / HTTP/1.1\r\n\r\n'), 'not understood\n');
  assert.equal(await ask('CONNECT a 99999\n'), 'not understood\n');
  assert.equal(await ask(`${'x'.repeat(600)}`), 'not understood\n');
});

test('it ends with whoever started it', needs, async () => {
  const gone = new Promise(done => relay!.once('close', done));
  relay!.stdin!.destroy();
  await gone;
  assert.equal(existsSync(socket), false);
});
