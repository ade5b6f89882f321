/** A container runtime whose calls are counted and timed, by the names that upstream gives to the calls of CRI. */

import { runtimeDurations, runtimeErrors, runtimeOperations } from '../metrics.ts';
import type { Runtime } from '../runtime.ts';

const OPERATIONS: Partial<Record<keyof Runtime, string>> = {
  runSandbox: 'run_podsandbox',
  stopSandbox: 'stop_podsandbox',
  removeSandbox: 'remove_podsandbox',
  createContainer: 'create_container',
  start: 'start_container',
  stop: 'stop_container',
  remove: 'remove_container',
  update: 'update_container',
  exec: 'exec',
  attach: 'attach',
  portForward: 'port_forward',
  reopenLog: 'reopen_container_log',
};

type Call = (...parameters: unknown[]) => unknown;

export function measured(runtime: Runtime): Runtime {
  const calls = new Map<PropertyKey, Call>();
  return new Proxy(runtime, {
    get(target, name) {
      const value = Reflect.get(target, name, target) as unknown;
      if (typeof value !== 'function') return value;
      let call = calls.get(name);
      if (!call) {
        const bound = (value as Call).bind(target);
        const operation = OPERATIONS[name as keyof Runtime];
        call = operation ? timed(operation, bound as (...parameters: unknown[]) => Promise<unknown>) : bound;
        calls.set(name, call);
      }
      return call;
    },
  });
}

function timed(operation: string, call: (...parameters: unknown[]) => Promise<unknown>): Call {
  const operations = runtimeOperations.series(operation);
  const durations = runtimeDurations.series(operation);
  return async (...parameters) => {
    const startMs = performance.now();
    operations.add(1);
    try {
      return await call(...parameters);
    } catch (error) {
      runtimeErrors.add(1, operation);
      throw error;
    } finally {
      durations.observe((performance.now() - startMs) / 1000);
    }
  };
}
