import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { systemRandom } from '../../base/random.ts';
import { Tracer } from '../../base/tracing/span.ts';
import { endAnswered, requestSpan } from './request-span.ts';

const tracer = new Tracer({
  samplingRatePerMillion: 1_000_000,
  sink: { take: () => {} },
  clock: systemClock,
  random: systemRandom,
});
const spanOf = (path: string, headers: Record<string, string> = {}) => {
  const request = { method: 'GET', headers, httpVersion: '1.1', socket: { remoteAddress: '10.0.0.1' } };
  return requestSpan(tracer, request as unknown as IncomingMessage, new URL(path, 'https://kubelet'));
};

test('requests to the port are named by their route', () => {
  for (const [path, route] of [
    ['/pods', '/pods'],
    ['/metrics/cadvisor', '/metrics/cadvisor'],
    ['/exec/ns/pod/app?command=ls', '/exec/{podNamespace}/{podID}/{containerName}'],
    ['/attach/ns/pod/1-2/app', '/attach/{podNamespace}/{podID}/{uid}/{containerName}'],
    ['/portForward/ns/pod', '/portForward/{podNamespace}/{podID}'],
    ['/portForward/ns/pod/1-2', '/portForward/{podNamespace}/{podID}/{uid}'],
    ['/containerLogs/ns/pod/app', '/containerLogs/{podNamespace}/{podID}/{containerName}'],
    ['/logs/pods/a/b.log', '/logs/{logpath:*}'],
    ['/toString/x', '/toString/x'],
  ] as const)
    assert.equal(spanOf(path).name, route);
});

test('whoever asks begins a new trace, which names theirs', () => {
  const traceparent = `00-${'1'.repeat(32)}-${'2'.repeat(16)}-00`;
  const span = spanOf('/pods', { traceparent, 'user-agent': 'curl' });
  assert.deepEqual([span.parentId, span.link?.spanId, span.context.isSampled], [undefined, '2'.repeat(16), true]);
  endAnswered(span, 503);
  assert.equal(span.failure, '');
  assert.deepEqual(span.attributes, {
    'http.request.method': 'GET',
    'http.route': '/pods',
    'network.protocol.version': '1.1',
    'server.address': 'kubelet',
    'url.path': '/pods',
    'url.scheme': 'https',
    'client.address': '10.0.0.1',
    'network.peer.address': '10.0.0.1',
    'user_agent.original': 'curl',
    'http.response.status_code': 503,
  });
});
