/** The relay as the process that it is: it carries on without who started it, is found again, and goes when it is to go. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { silentLogger } from '../base/log.ts';
import { RelayDoor, type RelayStart } from './relay-door.ts';
import { RELAY_VERSION, type RelayAnswer, type RelayEntry, relaySocket } from './relay-process.ts';

const START: RelayStart = {
  command: [process.execPath, join(import.meta.dirname, '../cli/main.ts'), 'relay'],
};
let folder: string;
let servers: Server[];
let doors: RelayDoor[];
let clients: Socket[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cox-relay-'));
  [servers, doors, clients] = [[], [], []];
});
afterEach(async () => {
  for (const door of doors) door.close();
  const pids = relays();
  rmSync(folder, { recursive: true, force: true });
  for (const socket of clients) socket.destroy();
  for (const server of servers) server.close();
  await until(() => pids.every(isOver));
});

async function until(condition: () => unknown, what = 'condition'): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`${what} not met in time`);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}

/** Processes with this folder in their command. */
function relays(): number[] {
  const words = ['\0relay\0', folder];
  return processes().filter(pid => {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return words.every(word => command.includes(word));
    } catch {
      return false;
    }
  });
}

function processes(): number[] {
  const children = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8');
  return children.split(' ').filter(Boolean).map(Number);
}

function isOver(pid: number): boolean {
  try {
    return / [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\)/, ''));
  } catch {
    return true;
  }
}

/** Answers each chunk with its name before it; gives its port. */
async function serve(name: string, address = '127.0.0.1'): Promise<number> {
  const server = createServer(socket => {
    clients.push(socket);
    socket.on('error', () => {}).on('data', bytes => socket.write(`${name}:${bytes}`));
  });
  servers.push(server);
  server.listen(0, address);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

function door(onRefused?: (refused: RelayAnswer['refused']) => void): RelayDoor {
  const made = new RelayDoor({ start: START, folder, log: silentLogger, ...(onRefused ? { onRefused } : {}) });
  doors.push(made);
  return made;
}

const tcp = (port: number, ...targets: number[]): RelayEntry => ({
  protocol: 'TCP',
  port,
  targets: targets.map(target => ({ address: '127.0.0.1', port: target })),
});

async function open(port: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port });
  clients.push(socket);
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

async function say(socket: Socket, text: string): Promise<string> {
  socket.write(text);
  const [answer] = await Promise.race([once(socket, 'data'), once(socket, 'close').then(() => ['closed'])]);
  return String(answer);
}

async function ask(port: number): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port });
  try {
    socket.on('error', () => {});
    return await say(socket, 'x');
  } catch {
    return 'refused';
  } finally {
    socket.destroy();
  }
}

test('streams outlive who asked for the port; the next finds the relay and changes where new ones go', async () => {
  const [a, b, port] = [await serve('a'), await serve('b'), await freePort()];
  const first = door();
  first.apply([tcp(port, a)]);
  await until(async () => (await ask(port)) === 'a:x');
  const [pid, ...others] = relays();
  assert.deepEqual(others, []);
  const stream = await open(port);
  assert.equal(await say(stream, '1'), 'a:1');
  // Started twice: the second sees that it is not needed.
  const [program, ...args] = START.command;
  const [code] = await once(spawn(program!, [...args, folder], { stdio: 'ignore' }), 'exit');
  assert.equal(code, 0);
  assert.deepEqual(relays(), [pid]);
  first.close();
  assert.equal(await say(stream, '2'), 'a:2');
  assert.equal(await ask(port), 'a:x', 'new ones too while nobody is there');

  const second = door();
  second.apply([tcp(port, b)]);
  await until(async () => (await ask(port)) === 'b:x');
  assert.equal(await say(stream, '3'), 'a:3');
  assert.deepEqual(relays(), [pid]);
  // With several targets in turn.
  second.apply([tcp(port, a, b)]);
  await until(async () => new Set([await ask(port), await ask(port)]).size === 2);
  // Closed: no new ones, those that are open go on; the relay ends with the last.
  second.apply([]);
  await until(async () => !/^[ab]/.test(await ask(port)));
  assert.equal(await say(stream, '4'), 'a:4');
  assert.equal(isOver(pid!), false);
  // Meanwhile another serves what comes.
  second.apply([tcp(port, b)]);
  await until(async () => (await ask(port)) === 'b:x');
  assert.equal(await say(stream, '5'), 'a:5');
  stream.destroy();
  await until(() => isOver(pid!));
  assert.equal(await ask(port), 'b:x');
});

test('killed, it is started again with the same ports', async () => {
  const [a, port] = [await serve('a'), await freePort()];
  door().apply([tcp(port, a)]);
  await until(async () => (await ask(port)) === 'a:x');
  const [pid] = relays();
  process.kill(pid!, 'SIGKILL');
  await until(async () => (await ask(port)) === 'a:x' && relays().some(other => other !== pid));
});

test('a port that is taken is told, and opened with a later table; UDP flows follow their target', async () => {
  const port = await freePort();
  const blocker = createServer().listen(port, '127.0.0.1');
  await once(blocker, 'listening');
  servers.push(blocker);
  const refusals: RelayAnswer['refused'][] = [];
  const the = door(refused => refusals.push(refused));
  const udp = await Promise.all(
    ['a', 'b'].map(async name => {
      const socket = createSocket('udp4');
      socket.on('message', (bytes, from) => socket.send(`${name}:${bytes}`, from.port, from.address));
      socket.bind(0, '127.0.0.1');
      await once(socket, 'listening');
      return socket;
    }),
  );
  const front = await freePort();
  const to = (socket: (typeof udp)[number]): RelayEntry => ({
    protocol: 'UDP',
    port: front,
    targets: [{ address: '127.0.0.1', port: socket.address().port }],
  });
  const client = createSocket('udp4');
  let last = '';
  client.on('message', bytes => {
    last = String(bytes);
  });
  const until_ = (expected: string) =>
    until(() => {
      client.send('x', front, '127.0.0.1');
      return last === expected;
    }, expected);
  try {
    const target = await serve('a');
    the.apply([tcp(port, target), to(udp[0]!)]);
    await until(() => refusals.length > 0);
    assert.deepEqual(
      refusals[0]!.map(({ protocol, port: of }) => [protocol, of]),
      [['TCP', port]],
    );
    assert.match(refusals[0]![0]!.message, /EADDRINUSE/);
    await until_('a:x');
    blocker.close();
    await once(blocker, 'close');
    the.apply([tcp(port, target), to(udp[1]!)]);
    await until(async () => (await ask(port)) === 'a:x');
    await until_('b:x');
    assert.deepEqual(refusals.at(-1), []);
  } finally {
    for (const socket of [client, ...udp]) socket.close();
  }
});

test('a table of another version takes its ports away, and its folder taken away ends it', async () => {
  const [a, port] = [await serve('a'), await freePort()];
  const first = door();
  first.apply([tcp(port, a)]);
  await until(async () => (await ask(port)) === 'a:x');
  const stream = await open(port);
  assert.equal(await say(stream, '1'), 'a:1');
  first.close();
  const newer = connect(relaySocket(folder));
  newer.write(`${JSON.stringify({ version: RELAY_VERSION + 1, entries: [] })}\n`);
  const [answer] = await once(newer, 'data');
  assert.equal((JSON.parse(String(answer)) as RelayAnswer).version, RELAY_VERSION);
  await until(async () => (await ask(port)) !== 'a:x');
  assert.equal(await say(stream, '2'), 'a:2');
  const [old] = relays();
  const second = door();
  second.apply([tcp(port, a)]);
  await until(async () => (await ask(port)) === 'a:x');
  assert.equal(relays().length, 2);
  second.close();
  rmSync(folder, { recursive: true, force: true });
  await until(async () => (await ask(port)) !== 'a:x');
  await until(() => isOver(old!));
});

test('nothing is started for no port', async () => {
  const the = door();
  the.apply([]);
  await new Promise(resolve => setImmediate(resolve));
  assert.deepEqual(relays(), []);
});
