/** Lifecycle hooks: exec, httpGet, sleep (tcpSocket never worked upstream and is ignored there too). */

import type { Container, LifecycleHandler } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { httpGet } from '../probes/http.ts';
import type { ProbeTarget } from '../probes/prober.ts';

/** Rejects when the hook failed; resolves early, without error, when the signal aborts during a sleep. */
export async function runHook(
  hook: LifecycleHandler,
  options: {
    readonly container: Container;
    readonly target: ProbeTarget;
    readonly clock: Clock;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { container, target, clock, signal } = options;
  if (hook.exec) {
    const { exitCode, output } = await target.exec(hook.exec.command ?? [], signal);
    if (exitCode !== 0)
      throw new Error(`command '${(hook.exec.command ?? []).join(' ')}' exited with ${exitCode}: ${output}`);
  } else if (hook.httpGet) {
    const reply = await httpGet(
      hook.httpGet,
      { podIp: target.podIp, container },
      { signal, userAgent: 'kube-lifecycle/1.36' },
    );
    if (reply.status < 200 || reply.status >= 400)
      throw new Error(`HTTP lifecycle hook failed with statuscode: ${reply.status}`);
  } else if (hook.sleep) {
    await clock.sleep(hook.sleep.seconds * 1000, signal);
  }
}
