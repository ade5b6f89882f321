/** Programs on nodes of the cluster, in their namespaces of mounts, network and processes, as a driver there would be. */

import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { childrenOf } from '../../src/app/teardown.ts';
import type { Cluster } from './cluster.ts';

/** Where the API server is for a node, with all rights. */
export function accessFrom(cluster: Cluster, node: string) {
  const agent = JSON.parse(readFileSync(`/run/coxswain/${cluster.name}/${node}.json`, 'utf8'));
  const { users } = parse(readFileSync(cluster.kubeconfig, 'utf8'));
  const decode = (text: string) => Buffer.from(text, 'base64').toString('utf8');
  return {
    server: agent.server as string,
    ca: agent.credentials.ca as string,
    cert: decode(users[0].user['client-certificate-data']),
    key: decode(users[0].user['client-key-data']),
  };
}

// biome-ignore lint/suspicious/noExplicitAny: as printed
export function agentPid(status: any, node: string): number {
  const found = status.processes.find(
    (one: { role: string; node?: string }) => one.role === 'agent' && one.node === node,
  );
  if (!found?.pid) throw new Error(`no agent of ${node} in ${JSON.stringify(status)}`);
  return found.pid;
}

/** A file of TypeScript, whose streams are pipes but for its errors. */
export async function startOnNode(
  cluster: Cluster,
  node: string,
  file: string,
  options: object,
): Promise<ChildProcess> {
  const pid = agentPid(JSON.parse(await cluster.cox(['status', '-o', 'json'])), node);
  const program = [process.execPath, file, JSON.stringify(options)];
  return spawn('nsenter', ['-t', String(pid), '-m', '-n', '-p', '--', ...program], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

/** As a crash would. */
export async function killOnNode(child: ChildProcess): Promise<void> {
  const ended = new Promise(resolve => child.once('exit', resolve));
  // Entering a PID namespace takes a process in between.
  for (const { pid } of childrenOf(child.pid!)) process.kill(pid, 'SIGKILL');
  await ended;
}
