import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { accepts, untilAccepting } from './port-probe.ts';

test('a port is seen as soon as somebody listens, and not waited for for ever', async () => {
  const server = createServer(socket => socket.destroy());
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const signal = new AbortController().signal;
  assert.equal(await accepts({ host: '127.0.0.1', port }), true);
  await new Promise(resolve => server.close(resolve));
  assert.equal(await accepts({ host: '127.0.0.1', port }), false);
  const url = `https://127.0.0.1:${port}`;
  await untilAccepting(url, { atMostMs: 20, signal });
  const waiting = untilAccepting(url, { atMostMs: 10_000, signal });
  server.listen(port, '127.0.0.1');
  await waiting;
  await untilAccepting(url, { atMostMs: 10_000, signal: AbortSignal.abort() });
  await new Promise(resolve => server.close(resolve));
});
