/**
 * The way of a development cluster's nodes to registries outside: a process in the machine's network namespace that listens on a socket
 * file. A line `CONNECT host port` opens a connection there; bytes then pass as they are, TLS goes from node to registry. It runs only
 * when `images.yaml` says `outside: true`. Invariant: it connects to no address that belongs to this machine alone (loopback,
 * link-local), and ends with the server that started it.
 */

import { spawn } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { rmSync } from 'node:fs';
import { connect, createServer, isIP, type Socket } from 'node:net';
import { join } from 'node:path';
import { type Clock, systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { readImageSettings } from '../kubelet/images/image-settings.ts';
import { isLocalAddress } from '../kubelet/images/registry-connection.ts';

const CONNECT_MS_MAX = 15_000;
const LINE_BYTES_MAX = 512;
const CONNECTIONS_MAX = 256;
const RESTART_MS = 1000;

export const relayPath = (runDir: string): string => join(runDir, 'registries.sock');

/** Keeps the relay running while the settings ask for it; they are read once, at the start. */
export async function keepRelay(options: {
  readonly imageDir: string;
  readonly runDir: string;
  readonly machineNetnsFd: number;
  readonly log: Logger;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { imageDir, runDir, machineNetnsFd, log, clock, signal } = options;
  const path = relayPath(runDir);
  rmSync(path, { force: true });
  try {
    if (!(await readImageSettings(imageDir)).outside) return;
  } catch (error) {
    return log.error('images.yaml is refused', { error: messageOf(error) });
  }
  while (!signal.aborted) {
    await new Promise<void>(resolve => {
      const child = spawn(
        'nsenter',
        [`--net=/proc/${process.pid}/fd/${machineNetnsFd}`, process.execPath, process.argv[1]!, 'image-relay', path],
        { stdio: ['pipe', 'inherit', 'inherit'] },
      );
      const kill = () => child.kill('SIGTERM');
      signal.addEventListener('abort', kill, { once: true });
      child.once('error', error => log.warn('registry relay does not start', { error: messageOf(error) }));
      child.once('close', () => {
        signal.removeEventListener('abort', kill);
        resolve();
      });
      child.once('error', () => resolve());
    });
    await clock.sleep(RESTART_MS, signal);
  }
}

/** The process itself: serves until its standard input ends. */
export function runRelay(path: string): Promise<void> {
  rmSync(path, { force: true });
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, client => {
    open.add(client);
    client.on('close', () => open.delete(client));
    client.on('error', () => client.destroy());
    void serve(client);
  });
  server.maxConnections = CONNECTIONS_MAX;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path);
    process.stdin.resume().once('close', () => {
      server.close(() => resolve());
      for (const socket of open) socket.destroy();
      rmSync(path, { force: true });
    });
  });
}

async function serve(client: Socket): Promise<void> {
  const refuse = (why: string) => client.end(`${why}\n`);
  const line = await firstLine(client);
  const [, host, port] = /^CONNECT (\S+) (\d{1,5})$/.exec(line ?? '') ?? [];
  if (!host || !port || Number(port) > 65_535) return void refuse('not understood');
  let address = host;
  try {
    if (!isIP(host)) ({ address } = await lookup(host));
  } catch (error) {
    return void refuse(`lookup ${host}: ${(error as NodeJS.ErrnoException).code ?? 'failed'}`);
  }
  if (isLocalAddress(address)) return void refuse(`${host} (${address}) is an address of this machine only`);
  const upstream = connect({ host: address, port: Number(port), allowHalfOpen: true, noDelay: true });
  const timer = systemClock.after(CONNECT_MS_MAX, () => upstream.destroy(new Error('i/o timeout')));
  let isConnected = false;
  upstream.on('error', error => {
    timer.cancel();
    if (isConnected) client.destroy();
    else refuse((error as NodeJS.ErrnoException).code ?? messageOf(error));
  });
  client.on('close', () => upstream.destroy());
  upstream.once('connect', () => {
    timer.cancel();
    isConnected = true;
    client.write('OK\n');
    client.pipe(upstream).pipe(client);
  });
}

function firstLine(client: Socket): Promise<string | undefined> {
  return new Promise(resolve => {
    let text = Buffer.alloc(0);
    const end = (line: string | undefined) => {
      client.removeListener('readable', read).removeListener('close', gone);
      resolve(line);
    };
    const gone = () => end(undefined);
    const read = () => {
      for (let part = client.read() as Buffer | null; part; part = client.read() as Buffer | null) {
        text = Buffer.concat([text, part]);
        const at = text.indexOf(10);
        if (at < 0 && text.length < LINE_BYTES_MAX) continue;
        if (at >= 0 && text.length > at + 1) client.unshift(text.subarray(at + 1));
        return end(at < 0 ? undefined : text.toString('utf8', 0, at));
      }
    };
    client.on('readable', read).once('close', gone);
  });
}
