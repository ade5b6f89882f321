/** How a cluster is: its processes with memory, its nodes as the API server sees them, and what is wrong if something is. */

import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import type { Node } from '../api/core/v1.gen.ts';
import { failure, messageOf } from '../base/errors.ts';
import { HttpsTransport } from '../client/https-transport.ts';
import { NODES } from '../client/resources.ts';
import {
  type ClusterRecord,
  type ClusterState,
  checkClusterName,
  isAlive,
  kubeconfigPath,
  loadRecord,
  type ProcessIdentity,
  stateOf,
} from './cluster-record.ts';
import { logPath } from './process-configs.ts';
import { childrenOf } from './teardown.ts';

export interface ProcessStatus {
  readonly role: 'server' | 'agent';
  readonly node?: string;
  /** As the machine sees it; undefined while the supervisor starts it again. */
  readonly pid?: number;
  readonly supervisorPid?: number;
  readonly residentBytes?: number;
  readonly log: string;
}

export interface ClusterStatus {
  readonly name: string;
  readonly state: ClusterState;
  readonly problem?: string;
  readonly server: string;
  readonly kubeconfig: string;
  readonly stateDir: string;
  readonly processes: readonly ProcessStatus[];
  readonly nodes: readonly {
    readonly name: string;
    readonly ready: string;
    readonly address: string;
    readonly podCidr?: string;
  }[];
}

/** Throws NotFound with the next step. */
export function requireRecord(name: string): ClusterRecord {
  checkClusterName(name);
  const record = loadRecord(name);
  if (!record)
    throw failure(
      404,
      'NotFound',
      `cluster "${name}" not found; start it with: cox up${name === 'dev' ? '' : ` --name ${name}`}`,
    );
  return record;
}

/** Containers of a full node, and some. */
const PROCESSES_MAX = 10_000;

/** The Node process below a supervisor: the descendant whose program is the runtime. */
function workerOf(supervisor: ProcessIdentity | undefined): number | undefined {
  if (!isAlive(supervisor)) return undefined;
  const pending = [supervisor];
  // Level by level: an agent that was started again comes after all monitors of containers, and before what they watch.
  for (let i = 0; i < pending.length && i < PROCESSES_MAX; i++) {
    const { pid } = pending[i]!;
    try {
      const [program = '', , command] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      if (program === process.execPath && command !== undefined) return pid;
    } catch {
      // It ended between the two looks.
    }
    pending.push(...childrenOf(pid));
  }
  return undefined;
}

function residentBytes(pid: number): number | undefined {
  try {
    const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return match ? Number(match[1]) * 1024 : undefined;
  } catch {
    return undefined;
  }
}

function processStatus(
  record: ClusterRecord,
  role: 'server' | 'agent',
  supervisor: ProcessIdentity | undefined,
  node?: string,
): ProcessStatus {
  const pid = workerOf(supervisor);
  const memory = pid === undefined ? undefined : residentBytes(pid);
  return {
    role,
    ...(node ? { node } : {}),
    ...(pid === undefined ? {} : { pid }),
    ...(isAlive(supervisor) ? { supervisorPid: supervisor.pid } : {}),
    ...(memory === undefined ? {} : { residentBytes: memory }),
    log: logPath(record.name, node ?? 'server'),
  };
}

export async function clusterStatus(name: string): Promise<ClusterStatus> {
  const record = requireRecord(name);
  const state = stateOf(record);
  const base = {
    name,
    server: `https://127.0.0.1:${record.apiPort}`,
    kubeconfig: kubeconfigPath(record),
    stateDir: record.stateDir,
  };
  const processes = [
    processStatus(record, 'server', record.server),
    ...record.nodes.map(node => processStatus(record, 'agent', node.supervisor, node.name)),
  ];
  if (state === 'stopped') return { ...base, state, processes, nodes: [] };
  try {
    return { ...base, state, processes, nodes: await nodesOf(record) };
  } catch (error) {
    return {
      ...base,
      state: 'degraded',
      problem: `the API does not answer: ${messageOf(error)}`,
      processes,
      nodes: [],
    };
  }
}

/** A connection as the cluster's administrator, from its kubeconfig. */
export function adminTransport(record: ClusterRecord): HttpsTransport {
  const config = parse(readFileSync(kubeconfigPath(record), 'utf8'), { version: '1.1' });
  const decode = (text: string) => Buffer.from(text, 'base64').toString('utf8');
  return new HttpsTransport({
    server: config.clusters[0].cluster.server,
    ca: decode(config.clusters[0].cluster['certificate-authority-data']),
    cert: decode(config.users[0].user['client-certificate-data']),
    key: decode(config.users[0].user['client-key-data']),
    timeoutMs: 3000,
  });
}

async function nodesOf(record: ClusterRecord): Promise<ClusterStatus['nodes']> {
  const transport = adminTransport(record);
  try {
    const { items } = await transport.list({ of: NODES });
    return (items as Node[]).map(node => ({
      name: node.metadata.name,
      ready: node.status?.conditions?.find(condition => condition.type === 'Ready')?.status ?? 'Unknown',
      address: (node.status?.addresses ?? [])
        .flatMap(({ type, address }) => (type === 'InternalIP' ? address : []))
        .join(','),
      ...(node.spec.podCIDRs?.length ? { podCidr: node.spec.podCIDRs.join(',') } : {}),
    }));
  } finally {
    transport.close();
  }
}
