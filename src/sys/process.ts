/**
 * Processes by identity: a pid together with its start time, so that a reused pid is never mistaken for the old process.
 * It refuses to signal a process whose identity does not match.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks after boot, field 22 of /proc/PID/stat. */
  readonly startTicks: number;
}

function stat(pid: number): readonly string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}

/** The identity of a live process (zombies count as dead), or undefined. */
export function identify(pid: number): ProcessIdentity | undefined {
  const fields = stat(pid);
  if (!fields || fields[0] === 'Z' || fields[0] === 'X') return undefined;
  return { pid, startTicks: Number(fields[19]) };
}

export function isAlive(process: ProcessIdentity): boolean {
  return identify(process.pid)?.startTicks === process.startTicks;
}

/** False when the process is gone already. */
export function sendSignal(target: ProcessIdentity, signal: NodeJS.Signals | number): boolean {
  if (!isAlive(target)) return false;
  try {
    return process.kill(target.pid, signal);
  } catch {
    return false;
  }
}

/** Children of a process and theirs, deepest last. */
export function descendants(pid: number): number[] {
  const found: number[] = [];
  const visit = (parent: number) => {
    let children: number[] = [];
    try {
      for (const task of readdirSync(`/proc/${parent}/task`)) {
        children = children.concat(
          readFileSync(`/proc/${parent}/task/${task}/children`, 'latin1').split(' ').filter(Boolean).map(Number),
        );
      }
    } catch {
      return;
    }
    for (const child of children) {
      found.push(child);
      visit(child);
    }
  };
  visit(pid);
  return found;
}

const CAP_SYS_RESOURCE = 24n;

let lowestOomScoreAdj: number | undefined;

/** The nearest value that this process may give to a child: without CAP_SYS_RESOURCE none below its own. */
export function clampOomScoreAdj(value: number): number {
  if (lowestOomScoreAdj === undefined) {
    const effective = BigInt(
      `0x${/^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'}`,
    );
    lowestOomScoreAdj =
      (effective >> CAP_SYS_RESOURCE) & 1n ? -1000 : Number(readFileSync('/proc/self/oom_score_adj', 'utf8'));
  }
  return Math.max(value, lowestOomScoreAdj);
}

/** Names this boot and this process namespace: containers recorded under another identity cannot be running. */
export function bootIdentity(): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return `${boot}:${readlinkSync('/proc/self/ns/pid')}:${identify(1)?.startTicks ?? 0}`;
}
