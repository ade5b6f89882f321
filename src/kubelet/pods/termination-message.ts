/**
 * The last words of a container that ended: what it wrote to its file, what was told of it before, or the end of its log.
 * Invariant: never more than the file's first 4 KiB. Reads only; whoever shows the text decides where.
 */

import { readFileSync } from 'node:fs';
import type { ContainerState } from '../runtime.ts';
import { terminationPath } from './container-config.ts';
import { logTail } from './log-tail.ts';
import type { PodSubject } from './pod-subject.ts';
import { allContainers } from './resources.ts';
import { containerIdOf } from './status.ts';

const TERMINATION_MESSAGE_BYTES_MAX = 4096;

export function terminationMessage(subject: PodSubject, container: ContainerState): string | undefined {
  const spec = allContainers(subject.pod).find(one => one.name === container.name);
  const path = terminationPath(subject.context.paths.memory(subject.uid), container.name, container.attempt);
  try {
    const text = readFileSync(path).subarray(0, TERMINATION_MESSAGE_BYTES_MAX).toString('utf8');
    if (text) return text;
  } catch {
    // Gone with a restart of the machine; what was told of it stays.
    const told = subject.toldStatuses
      .flatMap(({ state, lastState }) => [state?.terminated, lastState?.terminated])
      .find(ended => ended?.containerID === containerIdOf(container));
    if (told) return told.message;
  }
  if (spec?.terminationMessagePolicy === 'FallbackToLogsOnError' && container.exitCode !== 0)
    return logTail(container.logPath) || undefined;
  return undefined;
}
