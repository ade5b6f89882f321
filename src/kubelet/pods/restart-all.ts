/**
 * Restart rules with the action `RestartAllContainers` (KEP-5532): who asks for it, and the end of all containers of the pod so
 * that it begins anew in its sandbox. Invariant: containers that asked go last, so a new agent still sees that they did. No
 * grace, no preStop hook; sandbox, addresses, devices, volumes and ephemeral containers' records stay. It starts nothing.
 */

import type { ContainerStateTerminated, ContainerStatus, Pod } from '../../api/core/v1.gen.ts';
import { ruledAction } from '../../api/machinery/pod.ts';
import type { ContainerState, Runtime, RuntimeState } from '../runtime.ts';
import type { ContainerStops } from './container-stops.ts';
import { allContainers } from './resources.ts';

export const ALL_RESTARTING = 'AllContainersRestarting';
export const RESTARTING_REASON = 'RestartingAllContainers';
const RESTARTING_MESSAGE = 'The container is removed because RestartAllContainers in place';
const KILLED_EXIT_CODE = 137;

export function mayRestartAll(pod: Pod): boolean {
  return allContainers(pod).some(({ restartPolicyRules }) =>
    restartPolicyRules?.some(({ action }) => action === 'RestartAllContainers'),
  );
}

/** Whether the pod's containers are to go, because one ended in a way that asks for it. */
export function isRestartingAll(pod: Pod, containers: readonly ContainerState[]): boolean {
  return mayRestartAll(pod) && containers.some(one => asks(pod, one, containers));
}
/** Whether the status last told says that containers are being removed. */
export function hasBegun(pod: Pod): boolean {
  return pod.status?.conditions?.some(({ type, status }) => type === ALL_RESTARTING && status === 'True') ?? false;
}

function asks(pod: Pod, container: ContainerState, containers: readonly ContainerState[]): boolean {
  const spec = allContainers(pod).find(({ name }) => name === container.name);
  const isLatest = containers.every(({ name, attempt }) => name !== container.name || attempt <= container.attempt);
  if (!spec || !isLatest || container.state !== 'exited') return false;
  return ruledAction(spec, container.exitCode) === 'RestartAllContainers';
}

/** What is told of a container that was removed for it. */
export function removedStatus(known: ContainerStatus): Pick<ContainerStatus, 'state' | 'lastState' | 'restartCount'> {
  const terminated = { reason: RESTARTING_REASON, message: RESTARTING_MESSAGE, exitCode: KILLED_EXIT_CODE };
  return {
    state: { waiting: { reason: RESTARTING_REASON, message: RESTARTING_MESSAGE } },
    lastState: { terminated: terminated as ContainerStateTerminated },
    restartCount: known.restartCount + 1,
  };
}
/** That a container's last end was one of all. */
export function wasRemoved(status: ContainerStatus | undefined): boolean {
  return status?.lastState?.terminated?.reason === RESTARTING_REASON;
}

/** Ends and forgets all containers but ephemeral ones, which only end. Idempotent; those that asked go last. */
export async function removeAll(
  pod: Pod,
  { containers }: RuntimeState,
  { runtime, stops }: { readonly runtime: Runtime; readonly stops: ContainerStops },
): Promise<void> {
  const running = containers.filter(({ state }) => state !== 'exited');
  const specOf = (name: string) => allContainers(pod).find(spec => spec.name === name);
  await Promise.all(
    running.map(one => stops.stop(one, specOf(one.name), 0, `Container ${one.name} is killed: all containers restart`)),
  );
  const own = containers.filter(({ name }) => specOf(name));
  const last = own.filter(one => asks(pod, one, containers));
  for (const one of [...own.filter(one => !last.includes(one)), ...last]) await runtime.remove(one.id);
}
