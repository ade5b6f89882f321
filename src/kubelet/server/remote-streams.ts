/**
 * The streams of one exec or attach session, whichever protocol carries them: WebSocket channels or SPDY streams.
 * Invariant: once the answer to the upgrade is sent, failures end the session and are never HTTP answers.
 */

import type { Duplex, Readable, Writable } from 'node:stream';
import type { Clock } from '../../base/clock.ts';
import { ChannelSocket } from './channel-socket.ts';
import { SpdyConnection, type SpdyStream } from './spdy-connection.ts';
import { acceptSpdy, acceptWebSocket, type Upgrade, wantsWebSocket } from './upgrade.ts';

/** The kubelet's streamingConnectionIdleTimeout and streamCreationTimeout. */
export const STREAM_IDLE_MS = 4 * 3_600_000;
export const STREAM_CREATION_MS = 30_000;

export interface RemoteOptions {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

export interface RemoteStreams {
  readonly stdin: Readable | undefined;
  readonly stdout: Writable | undefined;
  readonly stderr: Writable | undefined;
  /** Sizes of the client's terminal as JSON, one after another. */
  readonly resize: Readable | undefined;
  /** Takes the outcome: a Status from v4 on, before that a text and only when it failed. */
  readonly error: Writable;
  readonly outcomeForm: 'status' | 'text';
  /** Resolves when the client is gone; never rejects. */
  readonly closed: Promise<void>;
  /** After everything written has been flushed. */
  close(): void;
}

const CHANNEL = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4 } as const;

const WEBSOCKET_PROTOCOLS = [
  'v5.channel.k8s.io',
  'v4.channel.k8s.io',
  'v4.base64.channel.k8s.io',
  'channel.k8s.io',
  'base64.channel.k8s.io',
];
const SPDY_PROTOCOLS = ['v4.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io', 'channel.k8s.io'];

/** Undefined when the request was refused, or its client did not open its streams in time. */
export async function openRemoteStreams(
  upgrade: Upgrade,
  options: RemoteOptions,
  clock: Clock,
): Promise<RemoteStreams | undefined> {
  return wantsWebSocket(upgrade.request) ? overWebSocket(upgrade, options, clock) : overSpdy(upgrade, options, clock);
}

function overWebSocket(upgrade: Upgrade, options: RemoteOptions, clock: Clock): RemoteStreams | undefined {
  const accepted = acceptWebSocket(upgrade, WEBSOCKET_PROTOCOLS);
  if (!accepted) return undefined;
  const { protocol } = accepted;
  const channels = new ChannelSocket(accepted.socket, {
    base64: protocol.includes('base64'),
    halfClose: protocol.startsWith('v5.'),
    clock,
    idleMs: STREAM_IDLE_MS,
  });
  channels.greet(options.stdout ? CHANNEL.stdout : options.stderr ? CHANNEL.stderr : CHANNEL.error);
  return {
    stdin: options.stdin ? channels.readable(CHANNEL.stdin) : undefined,
    stdout: options.stdout ? channels.writable(CHANNEL.stdout) : undefined,
    stderr: options.stderr ? channels.writable(CHANNEL.stderr) : undefined,
    error: channels.writable(CHANNEL.error),
    resize: options.tty ? channels.readable(CHANNEL.resize) : undefined,
    outcomeForm: protocol.startsWith('v') ? 'status' : 'text',
    closed: channels.closed,
    close: () => channels.close(),
  };
}

async function overSpdy(upgrade: Upgrade, options: RemoteOptions, clock: Clock): Promise<RemoteStreams | undefined> {
  const protocol = acceptSpdy(upgrade, SPDY_PROTOCOLS);
  if (!protocol) return undefined;
  const wanted = new Set(['error']);
  for (const name of ['stdin', 'stdout', 'stderr'] as const) if (options[name]) wanted.add(name);
  if (options.tty && /^v[34]/.test(protocol)) wanted.add('resize');
  const streams = new Map<string, SpdyStream>();
  let complete = () => {};
  const ready = new Promise<void>(resolve => (complete = resolve));
  const connection = new SpdyConnection(upgrade.socket as Duplex, {
    clock,
    idleMs: STREAM_IDLE_MS,
    onStream(stream) {
      const type = stream.headers['streamtype'] ?? '';
      if (!wanted.has(type) || streams.has(type)) throw new Error(`unexpected stream type: "${type}"`);
      streams.set(type, stream);
      if (streams.size === wanted.size) complete();
    },
  });
  const late = clock.after(STREAM_CREATION_MS, complete, { background: true });
  await Promise.race([ready, connection.closed]);
  late.cancel();
  if (streams.size < wanted.size) {
    connection.close();
    return undefined;
  }
  // What the client says on streams meant for its ears is dropped.
  for (const type of ['stdout', 'stderr', 'error']) streams.get(type)?.resume();
  return {
    stdin: streams.get('stdin'),
    stdout: streams.get('stdout'),
    stderr: streams.get('stderr'),
    error: streams.get('error')!,
    resize: streams.get('resize'),
    outcomeForm: protocol.startsWith('v4') ? 'status' : 'text',
    closed: connection.closed,
    close: () => connection.close(),
  };
}
