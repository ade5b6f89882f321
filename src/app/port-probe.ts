/**
 * Whether somebody listens at an address: the cheapest question there is, for waiting until a server that is being started
 * can be asked anything else. It says nothing about what answers.
 */

import { connect } from 'node:net';
import { type Clock, systemClock } from '../base/clock.ts';

/** A connection is made and dropped. Never rejects. */
export function accepts({ host, port }: { readonly host: string; readonly port: number }): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host, port });
    const settle = (accepted: boolean) => {
      socket.destroy();
      resolve(accepted);
    };
    socket.once('connect', () => settle(true)).once('error', () => settle(false));
    socket.setTimeout(1000, () => settle(false));
  });
}

const POLL_MS = 5;

/** Resolves when the URL's port accepts, at the latest after `atMostMs`, or when the signal aborts. */
export async function untilAccepting(
  url: string,
  options: { readonly atMostMs: number; readonly signal: AbortSignal; readonly clock?: Clock },
): Promise<void> {
  const { hostname, port } = new URL(url);
  const { atMostMs, signal, clock = systemClock } = options;
  const end = clock.monotonic() + atMostMs;
  while (!signal.aborted && clock.monotonic() < end) {
    if (await accepts({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 443) })) return;
    await clock.sleep(POLL_MS, signal);
  }
}
