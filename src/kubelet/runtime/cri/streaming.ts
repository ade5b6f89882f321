/**
 * Sessions over a container runtime's own streaming server, to which its Exec, Attach and PortForward replies point: SPDY/3.1 as
 * client-go speaks it. Invariant: every session ends with its connection, and whoever began it gives the streams their ends.
 * It refuses a server that is not on this node's loopback in plain HTTP: what such a reply says is not a place to send data to.
 */

import { connect, type Socket } from 'node:net';
import { Duplex, type Readable, type Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { Clock } from '../../../base/clock.ts';
import type { ExecOptions } from '../../runtime.ts';
import { STREAM_IDLE_MS } from '../../server/remote-streams.ts';
import { SpdyConnection, type SpdyStream } from '../../server/spdy-connection.ts';

const COMMAND_PROTOCOL = 'v4.channel.k8s.io';
const FORWARD_PROTOCOL = 'portforward.k8s.io';
const HEAD_BYTES_MAX = 16 * 1024;
const OUTCOME_BYTES_MAX = 64 * 1024;
const LOOPBACK = ['127.0.0.1', '[::1]', 'localhost'];

export type SessionOptions = Omit<ExecOptions, 'command'>;

interface Outcome {
  readonly status?: string;
  readonly message?: string;
  readonly reason?: string;
  readonly details?: { readonly causes?: readonly { readonly reason?: string; readonly message?: string }[] };
}

/** Until the process has ended and all its output is written, or the signal aborts, which ends the session but not the process. */
export async function runSession(url: string, options: SessionOptions, clock: Clock): Promise<{ exitCode: number }> {
  const { stdin, stdout, stderr, tty, resize, signal } = options;
  const connection = await openSpdy(url, COMMAND_PROTOCOL, clock);
  const abort = () => connection.close();
  signal?.addEventListener('abort', abort, { once: true });
  if (signal?.aborted) abort();
  try {
    const open = (streamtype: string) => connection.open({ streamtype });
    const error = open('error');
    error.end();
    const outcome = textOf(error);
    if (stdin) send(stdin, open('stdin'), { tty });
    const outputs = [
      ...(stdout ? [receive(open('stdout'), stdout)] : []),
      ...(stderr && !tty ? [receive(open('stderr'), stderr)] : []),
    ];
    // Where there is a terminal the server waits for this one too.
    if (tty) void sendSizes(resize, open('resize'));
    const text = await outcome;
    await Promise.all(outputs);
    if (signal?.aborted) return { exitCode: 137 };
    return { exitCode: exitCodeOf(text) };
  } finally {
    signal?.removeEventListener('abort', abort);
    stdin?.unpipe();
    connection.close();
  }
}

/** A byte stream to the port; when the runtime cannot connect, reading it fails with what the runtime says. */
export async function openForward(url: string, port: number, clock: Clock): Promise<Duplex> {
  const connection = await openSpdy(url, FORWARD_PROTOCOL, clock);
  const headers = { port: String(port), requestid: '0' };
  const error = connection.open({ ...headers, streamtype: 'error' });
  const data = connection.open({ ...headers, streamtype: 'data' });
  error.end();
  const stream = new ForwardStream(data, textOf(error));
  stream.once('close', () => connection.close());
  return stream;
}

class ForwardStream extends Duplex {
  readonly #data: SpdyStream;
  constructor(data: SpdyStream, outcome: Promise<string>) {
    super({ allowHalfOpen: true });
    this.#data = data;
    let isConnected = false;
    data.on('data', (part: Buffer) => {
      isConnected = true;
      if (!this.push(part)) data.pause();
    });
    data.on('end', () => {
      if (isConnected) this.push(null);
      // An end before anything came may be a connection that there never was.
      else void outcome.then(text => (text ? this.destroy(new Error(text)) : this.push(null)));
    });
    data.on('error', failed => void outcome.then(text => this.destroy(new Error(text || failed.message))));
  }
  override _read(): void {
    this.#data.resume();
  }
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#data.write(chunk, done);
  }
  override _final(done: (error?: Error | null) => void): void {
    this.#data.end(done);
  }
  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#data.destroy();
    done(error);
  }
}

function exitCodeOf(text: string): number {
  let outcome: Outcome;
  try {
    outcome = JSON.parse(text) as Outcome;
  } catch {
    throw new Error(text || 'the container runtime ended the session without an outcome');
  }
  if (outcome.status === 'Success') return 0;
  const cause = outcome.details?.causes?.find(({ reason }) => reason === 'ExitCode');
  if (outcome.reason === 'NonZeroExitCode' && cause) return Number(cause.message);
  throw new Error(outcome.message ?? 'the container runtime gave no reason');
}

async function textOf(stream: Readable): Promise<string> {
  let text = '';
  stream.on('data', (part: Buffer) => {
    if (text.length < OUTCOME_BYTES_MAX) text += part.toString('utf8');
  });
  await finished(stream, { writable: false }).catch(() => {});
  return text;
}

function send(from: Readable, to: SpdyStream, { tty }: { readonly tty: boolean }): void {
  to.resume();
  // As a terminal does, the end of input is control-D; the runtime would take its input's end for the terminal's.
  const end = () => void (tty ? to.writable && to.write('\x04') : to.end());
  from.on('error', end).on('end', end);
  from.pipe(to, { end: false });
}

/** A reader that went away must not stop the process: its output is then read and dropped. */
async function receive(from: SpdyStream, to: Writable): Promise<void> {
  from.end();
  const drop = () => {
    from.unpipe(to);
    from.resume();
  };
  to.on('error', drop);
  to.on('close', drop);
  from.pipe(to, { end: false });
  await finished(from, { writable: false }).catch(() => {});
}

async function sendSizes(sizes: ExecOptions['resize'], to: SpdyStream): Promise<void> {
  to.resume();
  try {
    for await (const { width, height } of sizes ?? []) {
      if (to.destroyed) return;
      to.write(`${JSON.stringify({ Width: width, Height: height })}\n`);
    }
    to.end();
  } catch {
    to.destroy();
  }
}

async function openSpdy(text: string, protocol: string, clock: Clock): Promise<SpdyConnection> {
  const url = new URL(text);
  if (url.protocol !== 'http:' || !LOOPBACK.includes(url.hostname))
    throw new Error(`the container runtime's streaming server is at ${url.origin}, not at http://127.0.0.1`);
  const socket = connect({ host: url.hostname.replace(/[[\]]/g, ''), port: Number(url.port || 80) });
  socket.setNoDelay(true);
  socket.write(
    [
      `POST ${url.pathname}${url.search} HTTP/1.1`,
      `Host: ${url.host}`,
      'Connection: Upgrade',
      'Upgrade: SPDY/3.1',
      `X-Stream-Protocol-Version: ${protocol}`,
      'Content-Length: 0',
      '\r\n',
    ].join('\r\n'),
  );
  const head = await readHead(socket);
  if (!head.startsWith('HTTP/1.1 101 ')) {
    socket.destroy();
    throw new Error(`the container runtime's streaming server says: ${head.split('\r\n')[0]}`);
  }
  return new SpdyConnection(socket, { clock, idleMs: STREAM_IDLE_MS });
}

/** Up to the empty line; what follows stays in the socket. */
function readHead(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let have = Buffer.alloc(0);
    const end = (act: () => void) => {
      socket.off('readable', look).off('error', failed).off('close', closed);
      act();
    };
    const failed = (error: Error) => end(() => reject(error));
    const closed = () => failed(new Error("the container runtime's streaming server hung up"));
    const look = () => {
      for (let part = socket.read() as Buffer | null; part; part = socket.read() as Buffer | null)
        have = Buffer.concat([have, part]);
      const at = have.indexOf('\r\n\r\n');
      if (at < 0 && have.length > HEAD_BYTES_MAX) return failed(new Error('answer to the upgrade is too long'));
      if (at < 0) return;
      end(() => {
        if (have.length > at + 4) socket.unshift(have.subarray(at + 4));
        resolve(have.toString('latin1', 0, at));
      });
    };
    socket.on('readable', look).on('error', failed).on('close', closed);
  });
}
