import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TYPE } from './message.ts';
import { NameServerFixture } from './name-server-fixture.ts';
import { exchange, formatUpstream, parseUpstream } from './upstream.ts';

const question = {
  name: 'www.example.com',
  type: TYPE.A,
  recursionDesired: true,
  checkingDisabled: false,
  dnssecOk: false,
};
const within = (timeoutMs: number) => ({ via: 'udp' as const, timeoutMs, signal: new AbortController().signal });

test('addresses of servers', () => {
  for (const [text, shown] of [
    ['10.0.0.1', '10.0.0.1:53'],
    ['10.0.0.1:5353', '10.0.0.1:5353'],
    ['fd00::1', '[fd00::1]:53'],
    ['[fd00::1]:54', '[fd00::1]:54'],
    ['dns://10.0.0.1', '10.0.0.1:53'],
    ['tls://9.9.9.9', 'tls://9.9.9.9:853'],
  ] as const)
    assert.equal(formatUpstream(parseUpstream(text)!), shown);
  for (const text of ['example.com', '', '10.0.0', '/etc/resolv.conf', 'https://10.0.0.1'])
    assert.equal(parseUpstream(text), undefined);
});

test('a silent server is given up in time, an abort ends the wait', async t => {
  const silent = await NameServerFixture.start(() => undefined, t);
  const to = parseUpstream(silent.address)!;
  await assert.rejects(exchange(to, question, within(50)), /did not answer in time/);
  const stop = new AbortController();
  const waiting = exchange(to, question, { ...within(60_000), signal: stop.signal });
  stop.abort();
  await assert.rejects(waiting, /stopped/);
});
