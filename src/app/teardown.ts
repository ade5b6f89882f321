/**
 * Ends what runs of a cluster, whoever left it: processes by the record, by network namespace and by cgroup, then namespaces,
 * cgroups and the run directory. Idempotent; it never touches data unless told to forget the cluster.
 */

import { readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { systemClock } from '../base/clock.ts';
import { deleteNodeNamespace, deleteSwitch } from '../network/segment.ts';
import { detachLoopsBelow } from '../sys/block-device.ts';
import { listNetns } from '../sys/netns.ts';
import { cgroupMembers, removeCgroups } from './cgroup-sweep.ts';
import {
  type ClusterRecord,
  cgroupPath,
  defaultStateDir,
  deleteRecord,
  isAlive,
  loadRecord,
  netnsPath,
  type ProcessIdentity,
  runDir,
  saveRecord,
  startTicksOf,
  switchNamespace,
} from './cluster-record.ts';

/** Everything that runs ends; the record and the data stay. */
export async function tearDown(name: string): Promise<void> {
  const record = loadRecord(name);
  const namespaces = listNetns().filter(
    namespace =>
      namespace === switchNamespace(name) || new RegExp(`^${switchNamespace(name)}-node-\\d+$`).test(namespace),
  );
  const own = [record?.server, ...(record?.nodes ?? []).map(node => node.supervisor)].filter(isAlive);
  for (const identity of own) killTree(identity);
  for (const namespace of namespaces) for (const pid of pidsInNetns(namespace)) kill(pid);
  await until(() => !own.some(isAlive) && namespaces.every(namespace => pidsInNetns(namespace).length === 0));
  for (const pid of cgroupMembers(cgroupPath(name))) kill(pid);
  await until(() => removeCgroups(cgroupPath(name)));
  for (const namespace of namespaces)
    if (namespace !== switchNamespace(name)) deleteNodeNamespace({ switch: switchNamespace(name), name: namespace });
  deleteSwitch(switchNamespace(name));
  await detachLoopsBelow(record?.stateDir ?? defaultStateDir(name));
  rmSync(runDir(name), { recursive: true, force: true });
  if (record)
    saveRecord({
      ...record,
      server: undefined,
      nodes: record.nodes.map(({ name: node, addresses }) => ({ name: node, addresses })),
    } as ClusterRecord);
}

/** A supervisor and everything it started that shares no PID namespace with it: children first asked of the kernel, then ended. */
function killTree(identity: ProcessIdentity): void {
  if (startTicksOf(identity.pid) !== identity.startTicks) return;
  const children = childrenOf(identity.pid);
  kill(identity.pid);
  for (const child of children) killTree(child);
}

export function childrenOf(pid: number): ProcessIdentity[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
      .split(' ')
      .filter(Boolean)
      .map(Number)
      .flatMap(child => {
        const startTicks = startTicksOf(child);
        return startTicks === undefined ? [] : [{ pid: child, startTicks }];
      });
  } catch {
    return [];
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone already.
  }
}

/** Processes whose network namespace is the pinned one, found through /proc so that no tool is needed. */
function pidsInNetns(namespace: string): number[] {
  const inode = statSync(netnsPath(namespace), { throwIfNoEntry: false })?.ino;
  if (inode === undefined) return [];
  return readdirSync('/proc')
    .filter(entry => /^\d+$/.test(entry))
    .map(Number)
    .filter(pid => {
      try {
        return pid !== process.pid && readlinkSync(`/proc/${pid}/ns/net`) === `net:[${inode}]`;
      } catch {
        return false;
      }
    });
}

async function until(done: () => boolean): Promise<void> {
  for (let waitMs = 2; !done() && waitMs < 4000; waitMs *= 1.5) await systemClock.sleep(waitMs);
}

/** Deletes data and record of a cluster that does not run. */
export async function forget(name: string): Promise<void> {
  const record = loadRecord(name);
  const stateDir = record?.stateDir ?? defaultStateDir(name);
  rmSync(stateDir, { recursive: true, force: true, maxRetries: 5 });
  deleteRecord(name);
}
