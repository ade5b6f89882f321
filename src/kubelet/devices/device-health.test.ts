import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtualClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { GRPC, GrpcError } from '../../csi/grpc.ts';
import type { DriverClient } from './claim-drivers.ts';
import { DeviceHealth } from './device-health.ts';

/** A driver that says what it is told to; `fail` ends its stream. */
function fakeDriver() {
  let say: (devices: object[]) => void = () => {};
  let fail: (error: Error) => void = () => {};
  let streams = 0;
  const client = {
    async *stream(_name: string, _request: object, signal: AbortSignal) {
      streams++;
      while (!signal.aborted) {
        const devices = await new Promise<object[]>((resolve, reject) => {
          say = resolve;
          fail = reject;
          signal.addEventListener('abort', () => resolve([]));
        });
        yield { devices };
      }
    },
  } as unknown as DriverClient;
  return { client, say: (devices: object[]) => say(devices), fail: (e: Error) => fail(e), streams: () => streams };
}
const turn = () => new Promise<void>(resolve => setImmediate(resolve));
const gpu = (health: number, more = {}) => ({ device: { poolName: 'p', deviceName: 'gpu' }, health, ...more });

test('health is what the driver said last, for as long as it holds', async () => {
  const clock = new VirtualClock();
  const changes: string[] = [];
  const health = new DeviceHealth({ clock, log: silentLogger, changed: name => void changes.push(name) });
  const stop = new AbortController();
  const driver = fakeDriver();
  const following = health.follow('d', driver.client, stop.signal);
  const of = () => health.of('d', 'p', 'gpu');
  await turn();
  assert.deepEqual(of(), { health: 'Unknown' });
  driver.say([gpu(1)]);
  await turn();
  assert.deepEqual(of(), { health: 'Healthy' });
  driver.say([gpu(1)]);
  await turn();
  assert.equal(changes.length, 1, 'the same again is no change');
  driver.say([gpu(2, { message: 'x'.repeat(2000), timeoutSeconds: 60 })]);
  await turn();
  assert.equal(of().health, 'Unhealthy');
  assert.equal(of().message, `${'x'.repeat(1021)}...`);
  // Left out of a list it stays as it was until its time is over.
  await clock.advance(59_000);
  driver.say([]);
  await turn();
  assert.equal(of().health, 'Unhealthy');
  await clock.advance(2000);
  assert.deepEqual(of(), { health: 'Unknown' });
  assert.equal(changes.length, 3, 'silence is told as well');

  driver.say([gpu(1, { timeoutSeconds: -1 })]);
  await turn();
  driver.fail(new GrpcError(GRPC.UNAVAILABLE, 'gone'));
  await turn();
  assert.deepEqual(of(), { health: 'Healthy' });
  await clock.advance(5000);
  assert.equal(driver.streams(), 2);
  stop.abort();
  await following;
  assert.deepEqual(of(), { health: 'Unknown' });
});

test('a driver without the service is not asked again', async () => {
  const clock = new VirtualClock();
  const health = new DeviceHealth({ clock, log: silentLogger, changed: () => assert.fail('nothing has changed') });
  const driver = fakeDriver();
  const following = health.follow('d', driver.client, new AbortController().signal);
  await turn();
  driver.fail(new GrpcError(GRPC.UNIMPLEMENTED, 'unknown service'));
  await following;
  assert.equal(driver.streams(), 1);
});
