import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../api/meta.ts';
import { VirtualClock } from '../../base/clock.ts';
import { PatientEvents } from './patient-events.ts';
import { StartGate } from './start-gate.ts';

test('slots are given in order of arrival, and taken back from who holds one too long', async () => {
  const clock = new VirtualClock();
  const gate = new StartGate({ clock, size: 2, holdMsMax: 1000 });
  const entered: string[] = [];
  const enter = (name: string) =>
    gate.enter({ isFirst: true }).then(leave => {
      entered.push(name);
      return leave;
    });
  const a = enter('a');
  const rest = [enter('b'), enter('c'), enter('d')];
  const leave = await a;
  await rest[0];
  assert.deepEqual(entered, ['a', 'b']);
  leave();
  leave();
  await rest[1];
  assert.deepEqual(entered, ['a', 'b', 'c']);
  await clock.advance(1000);
  await rest[2];
  assert.deepEqual(entered, ['a', 'b', 'c', 'd']);
  assert.equal(gate.isIdle, false);
  await clock.advance(1000);
  assert.equal(gate.isIdle, true);
});

test('events wait while pods start, in order, a second at most; a warning does not', async () => {
  const clock = new VirtualClock();
  const gate = new StartGate({ clock, size: 2, holdMsMax: 5000 });
  const told: string[] = [];
  const events = new PatientEvents({ clock, gate, recorder: { event: (_, __, reason) => told.push(reason) } });
  const tell = (reason: string, type: 'Normal' | 'Warning' = 'Normal') =>
    events.event({} as KubeObject, type, reason, 'text');
  const leave = await gate.enter({ isFirst: true });
  tell('a');
  await clock.advance(500);
  assert.deepEqual(told, []);
  leave();
  await clock.advance(50);
  assert.deepEqual(told, ['a']);
  await gate.enter({ isFirst: true });
  tell('b');
  await clock.advance(1000);
  assert.deepEqual(told, ['a', 'b']);
  tell('c');
  tell('d', 'Warning');
  assert.deepEqual(told, ['a', 'b', 'c', 'd']);
});
