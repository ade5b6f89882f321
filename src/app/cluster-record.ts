/**
 * What is known of a cluster outside its own store: where its data lies, how many nodes it has, which ports and which
 * processes are its own. One JSON file a cluster, replaced atomically; it exists from `up` until its data is deleted.
 */

import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { failure } from '../base/errors.ts';
import type { KubeletConfiguration } from '../kubelet/configuration.ts';
import type { ClusterRanges } from './cluster-ranges.ts';

export const DATA_ROOT = '/var/lib/coxswain';
export const RUN_ROOT = '/run/coxswain';
const RECORDS = join(DATA_ROOT, 'clusters');

/** A process by pid and start time, so that a reused pid is never mistaken for it. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot, field 22 of /proc/PID/stat. */
  readonly startTicks: string;
}

/** Container runtimes of nodes: `cox` is crun under conmon, ours. */
export const RUNTIMES = ['cox', 'containerd'] as const;
export type RuntimeName = (typeof RUNTIMES)[number];

export interface NodeRecord {
  readonly name: string;
  readonly addresses: readonly string[];
  /** First process of the node's PID namespace's parent; its end ends the node. */
  readonly supervisor?: ProcessIdentity;
}

export interface ClusterRecord {
  readonly name: string;
  readonly stateDir: string;
  readonly apiPort: number;
  readonly createdAt: string;
  readonly ranges: ClusterRanges;
  readonly nodes: readonly NodeRecord[];
  /** Options of kube-apiserver, `NAME=VALUE`, with absolute paths. */
  readonly serverArguments?: readonly string[];
  /** Of the API server, announced by the nodes. */
  readonly virtualAddress?: string;
  readonly server?: ProcessIdentity;
  /** Default container runtime of its nodes; absent, `cox`. */
  readonly runtime?: RuntimeName;
  /** What its kubelets do otherwise than by default. */
  readonly kubelet?: Partial<KubeletConfiguration>;
}

export const runDir = (name: string): string => join(RUN_ROOT, name);

/** Makes a folder in there that anybody can pass through, as root of a pod's own user namespace must; its files are root's alone. */
export function makePassable(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  for (let at = folder; at.startsWith(RUN_ROOT); at = dirname(at)) chmodSync(at, 0o711);
}
export const defaultStateDir = (name: string): string => join(DATA_ROOT, 'data', name);
export const kubeconfigPath = (record: ClusterRecord): string => join(record.stateDir, 'kubeconfig');
export const switchNamespace = (name: string): string => `cox-${name}`;
export const nodeNamespace = (name: string, node: string): string => `cox-${name}-${node}`;
export const netnsPath = (namespace: string): string => `/run/netns/${namespace}`;
/** Below every cgroup hierarchy. */
export const cgroupPath = (name: string): string => `/coxswain/${name}`;

const NAME = /^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$/;

/** Throws BadRequest naming the rule: the name becomes part of namespaces, cgroups, paths and the kubeconfig context. */
export function checkClusterName(name: string): string {
  if (!NAME.test(name))
    throw failure(
      400,
      'BadRequest',
      `--name: Invalid value: ${JSON.stringify(name)}: lower case letters, digits and '-', at most 32, starting and ending with a letter or digit`,
    );
  return name;
}

export function loadRecord(name: string): ClusterRecord | undefined {
  try {
    return JSON.parse(readFileSync(join(RECORDS, `${name}.json`), 'utf8')) as ClusterRecord;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

export function saveRecord(record: ClusterRecord): void {
  mkdirSync(RECORDS, { recursive: true });
  const path = join(RECORDS, `${record.name}.json`);
  writeFileSync(`${path}.new`, JSON.stringify(record, null, 2));
  renameSync(`${path}.new`, path);
}

export function deleteRecord(name: string): void {
  rmSync(join(RECORDS, `${name}.json`), { force: true });
}

export function listRecords(): ClusterRecord[] {
  let files: string[];
  try {
    files = readdirSync(RECORDS);
  } catch {
    return [];
  }
  return files
    .filter(file => file.endsWith('.json'))
    .sort()
    .flatMap(file => loadRecord(file.slice(0, -'.json'.length)) ?? []);
}

/** Field 22 of /proc/PID/stat, or undefined when there is no such process. */
export function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

export function identify(pid: number): ProcessIdentity {
  return { pid, startTicks: startTicksOf(pid) ?? '' };
}

export function isAlive(process: ProcessIdentity | undefined): process is ProcessIdentity {
  return process !== undefined && process.startTicks !== '' && startTicksOf(process.pid) === process.startTicks;
}

export type ClusterState = 'running' | 'degraded' | 'stopped';

export function stateOf(record: ClusterRecord): ClusterState {
  const parts = [record.server, ...record.nodes.map(node => node.supervisor)];
  const alive = parts.filter(isAlive).length;
  return alive === 0 ? 'stopped' : alive === parts.length ? 'running' : 'degraded';
}
