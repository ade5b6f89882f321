/**
 * Clusters on this machine: brings one up, resumes it, takes it down. Owns the order of steps, the sweep of what an earlier
 * crash left, and the promise that a failed or interrupted `up` leaves nothing behind that was not there before.
 */

import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { systemClock } from '../base/clock.ts';
import {
  CLUSTER_CIDR,
  CLUSTER_DNS,
  CLUSTER_DOMAIN,
  KUBELET_PORT,
  NODE_CIDR_MASK_SIZE,
  NODE_PORT_RANGE,
  SEGMENT_API_PORT,
  SERVICE_CIDR,
} from '../base/cluster-defaults.ts';
import { failure } from '../base/errors.ts';
import {
  createNodeNamespace,
  createSwitch,
  deleteNodeNamespace,
  deleteSwitch,
  nodeAddress,
  switchAddress,
} from '../network/segment.ts';
import { listNetns } from '../sys/netns.ts';
import type { AgentConfig } from './agent.ts';
import { cgroupMembers, removeCgroups } from './cgroup-sweep.ts';
import {
  type ClusterRecord,
  cgroupPath,
  checkClusterName,
  defaultStateDir,
  deleteRecord,
  isAlive,
  kubeconfigPath,
  loadRecord,
  type NodeRecord,
  netnsPath,
  nodeNamespace,
  type ProcessIdentity,
  runDir,
  saveRecord,
  startTicksOf,
  stateOf,
  switchNamespace,
} from './cluster-record.ts';
import { unmergeKubeconfig, writeKubeconfig } from './kubeconfig.ts';
import { type AgentCredentials, adminCredentials, agentCredentials, openPki } from './pki.ts';
import { ensurePrerequisites, requireRoot } from './prerequisites.ts';
import { waitForApi, waitForDns, waitForNodes } from './readiness.ts';
import type { ServerConfig } from './server.ts';
import { type SupervisorOptions, superviseNode, superviseServer } from './supervisor.ts';

export type Say = (line: string) => void;

export interface UpOptions {
  readonly name: string;
  readonly nodes?: number;
  readonly apiPort?: number;
  readonly stateDir?: string;
  readonly foreground: boolean;
  readonly say: Say;
}

export interface UpResult {
  readonly name: string;
  readonly server: string;
  readonly kubeconfig: string;
  readonly nodes: readonly string[];
  readonly seconds: number;
  readonly alreadyRunning: boolean;
}

const DEFAULT_API_PORT = 6443;

export async function bringUp(options: UpOptions): Promise<UpResult> {
  const { name, say } = options;
  checkClusterName(name);
  requireRoot('up');
  ensurePrerequisites(say);
  return withLock(name, async () => {
    const before = loadRecord(name);
    if (before && stateOf(before) === 'running') return alreadyRunning(before, options);
    const started = systemClock.monotonic();
    const interrupt = new AbortController();
    const onSignal = () => interrupt.abort(failure(500, 'InternalError', 'interrupted'));
    process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
    try {
      const record = await start(before, options, interrupt.signal);
      const seconds = (systemClock.monotonic() - started) / 1000;
      say(`Cluster "${name}" is up in ${seconds.toFixed(2)} s.  export KUBECONFIG=${kubeconfigPath(record)}`);
      if (options.foreground) await stayAttached(record, options, interrupt.signal);
      return describe(record, seconds, false);
    } catch (error) {
      say('cleaning up what was started');
      await tearDown(name);
      if (!before) await forget(name);
      throw error;
    } finally {
      process.removeListener('SIGINT', onSignal).removeListener('SIGTERM', onSignal);
    }
  });
}

function describe(record: ClusterRecord, seconds: number, alreadyRunning: boolean): UpResult {
  return {
    name: record.name,
    server: `https://127.0.0.1:${record.apiPort}`,
    kubeconfig: kubeconfigPath(record),
    nodes: record.nodes.map(node => node.name),
    seconds,
    alreadyRunning,
  };
}

function alreadyRunning(record: ClusterRecord, { nodes, apiPort, stateDir, say }: UpOptions): UpResult {
  const differs = [
    nodes !== undefined && nodes !== record.nodes.length && `--nodes ${nodes} (it has ${record.nodes.length})`,
    apiPort !== undefined &&
      apiPort !== 0 &&
      apiPort !== record.apiPort &&
      `--api-port ${apiPort} (it has ${record.apiPort})`,
    stateDir !== undefined &&
      resolve(stateDir) !== record.stateDir &&
      `--state-dir ${stateDir} (it has ${record.stateDir})`,
  ].filter(Boolean);
  say(
    `Cluster "${record.name}" is already running at https://127.0.0.1:${record.apiPort} with ${record.nodes.length} node${record.nodes.length === 1 ? '' : 's'}.`,
  );
  if (differs.length)
    say(
      `Not applied to a running cluster: ${differs.join(', ')}. Stop it first: cox down --name ${record.name} --keep-data`,
    );
  return describe(record, 0, true);
}

async function start(
  before: ClusterRecord | undefined,
  options: UpOptions,
  signal: AbortSignal,
): Promise<ClusterRecord> {
  const { name } = options;
  const step = stepper(options.say);
  if (before && options.stateDir && resolve(options.stateDir) !== before.stateDir)
    throw failure(
      409,
      'Conflict',
      `cluster "${name}" keeps its data in ${before.stateDir}; resume it without --state-dir, or delete it first: cox down --name ${name}`,
    );
  const nodeCount = Math.max(options.nodes ?? before?.nodes.length ?? 1, 1);
  if (before && nodeCount < before.nodes.length)
    throw failure(
      409,
      'Conflict',
      `cluster "${name}" has ${before.nodes.length} nodes and its data knows them; resume it with --nodes ${before.nodes.length} or more, or delete it first: cox down --name ${name}`,
    );
  await tearDown(name);

  const apiPort = await chooseApiPort(options.apiPort ?? before?.apiPort ?? DEFAULT_API_PORT);
  const stateDir = before?.stateDir ?? resolve(options.stateDir ?? defaultStateDir(name));
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  mkdirSync(runDir(name), { recursive: true, mode: 0o700 });
  const nodes: NodeRecord[] = Array.from({ length: nodeCount }, (_, i) => ({
    name: `node-${i + 1}`,
    address: nodeAddress(i + 1),
  }));
  let record: ClusterRecord = {
    name,
    stateDir,
    apiPort,
    createdAt: before?.createdAt ?? new Date(systemClock.now()).toISOString(),
    nodes,
  };
  saveRecord(record);

  const pki = await openPki(stateDir);
  const admin = await adminCredentials(pki);
  const credentials = await Promise.all(nodes.map(node => agentCredentials(pki, node)));
  writeKubeconfig(kubeconfigPath(record), {
    name,
    server: `https://127.0.0.1:${apiPort}`,
    ca: pki.ca,
    credentials: admin,
  });
  step('certificates and kubeconfig');
  signal.throwIfAborted();

  createSwitch({ name: switchNamespace(name) });
  const server = superviseServer(supervised(name, 'server', serverConfig(record), switchNamespace(name)));
  record = { ...record, server };
  saveRecord(record);
  const startedNodes = nodes.map((node, at) => {
    createNodeNamespace({ switch: switchNamespace(name), name: nodeNamespace(name, node.name), ip: node.address });
    return {
      ...node,
      supervisor: superviseNode(
        node.name,
        supervised(name, node.name, agentConfig(record, node, credentials[at]!), nodeNamespace(name, node.name)),
      ),
    };
  });
  record = { ...record, nodes: startedNodes };
  saveRecord(record);
  step(`network and ${nodeCount} node namespace${nodeCount === 1 ? '' : 's'}`);

  const api = { server: `https://127.0.0.1:${apiPort}`, ca: pki.ca, cert: admin.certificate, key: admin.key };
  const alive = () => {
    signal.throwIfAborted();
    if (!isAlive(server))
      throw failure(500, 'InternalError', `the server's supervisor ended; its log: ${logTail(name, 'server')}`);
  };
  const context = { api, alive, logTail: (part: string) => logTail(name, part) };
  await waitForApi(context);
  step(`API server ready at https://127.0.0.1:${apiPort}`);
  await waitForNodes(
    context,
    nodes.map(node => node.name),
  );
  step(`${nodes.map(node => node.name).join(', ')} Ready`);
  await waitForDns(
    context,
    nodes.map(node => nodeNamespace(name, node.name)),
  );
  step(`DNS answers at ${CLUSTER_DNS}`);
  return record;
}

function stepper(say: Say): (what: string) => void {
  let last = systemClock.monotonic();
  return what => {
    const now = systemClock.monotonic();
    say(`  ✓ ${what.padEnd(52)} ${((now - last) / 1000).toFixed(2)} s`);
    last = now;
  };
}

function supervised(
  name: string,
  part: string,
  config: ServerConfig | AgentConfig,
  namespace: string,
): SupervisorOptions {
  const path = join(runDir(name), `${part}.json`);
  writeFileSync(path, JSON.stringify(config, null, 2), { mode: 0o600 });
  return {
    runtime: process.execPath,
    entry: process.argv[1]!,
    config: path,
    logFile: logPath(name, part),
    netnsPath: netnsPath(namespace),
  };
}

export const logPath = (name: string, part: string): string => join(runDir(name), `${part}.log`);

function serverConfig(record: ClusterRecord): ServerConfig {
  return {
    cluster: record.name,
    stateDir: record.stateDir,
    runDir: runDir(record.name),
    apiPort: record.apiPort,
    machineNetnsFd: 9,
    advertise: { address: switchAddress(), port: SEGMENT_API_PORT },
    serviceCidr: SERVICE_CIDR,
    clusterCidr: CLUSTER_CIDR,
    nodeCidrMaskSize: NODE_CIDR_MASK_SIZE,
    nodePortRange: NODE_PORT_RANGE,
    clusterDomain: CLUSTER_DOMAIN,
    clusterDns: CLUSTER_DNS,
  };
}

function agentConfig(record: ClusterRecord, node: NodeRecord, credentials: AgentCredentials): AgentConfig {
  return {
    cluster: record.name,
    node: node.name,
    nodeAddress: node.address,
    server: `https://${switchAddress()}:${SEGMENT_API_PORT}`,
    rootDir: join(record.stateDir, node.name),
    runDir: join(runDir(record.name), node.name),
    imageDir: join(record.stateDir, 'images'),
    credentials,
    kubeletPort: KUBELET_PORT,
    clusterCidr: CLUSTER_CIDR,
    serviceCidr: SERVICE_CIDR,
    clusterDomain: CLUSTER_DOMAIN,
    clusterDns: CLUSTER_DNS,
    cgroupRoot: `${cgroupPath(record.name)}/${node.name}`,
  };
}

function logTail(name: string, part: string): string {
  try {
    return `${logPath(name, part)}:\n${readFileSync(logPath(name, part), 'utf8').split('\n').slice(-15).join('\n')}`;
  } catch {
    return logPath(name, part);
  }
}

/** 0 picks a free port; a taken one is refused with the way out. */
function chooseApiPort(asked: number): Promise<number> {
  return new Promise((resolvePort, reject) => {
    const probe = createServer();
    probe.once('error', error => {
      const code = (error as NodeJS.ErrnoException).code;
      reject(
        failure(
          409,
          'Conflict',
          `--api-port: Invalid value: ${asked}: 127.0.0.1:${asked} cannot be used (${code}); choose another, or 0 for a free one: cox up --api-port 0`,
        ),
      );
    });
    probe.listen(asked, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolvePort(port));
    });
  });
}

async function stayAttached(record: ClusterRecord, { name, say }: UpOptions, signal: AbortSignal): Promise<void> {
  say('In the foreground; Ctrl-C stops the cluster and keeps its data.');
  while (!signal.aborted && isAlive(record.server)) await systemClock.sleep(500, signal);
  say('stopping');
  await tearDown(name);
}

export interface DownOptions {
  readonly name: string;
  readonly keepData: boolean;
  readonly say: Say;
}

export async function bringDown({
  name,
  keepData,
  say,
}: DownOptions): Promise<{ name: string; existed: boolean; dataKept: boolean }> {
  checkClusterName(name);
  requireRoot('down');
  return withLock(name, async () => {
    const record = loadRecord(name);
    await tearDown(name);
    if (!keepData) {
      await forget(name);
      unmergeKubeconfig(name);
    }
    if (!record) say(`There is no cluster "${name}"; nothing to do.`);
    else
      say(
        keepData
          ? `Cluster "${name}" is stopped; its data is kept in ${record.stateDir}. Resume it with: cox up --name ${name}`
          : `Cluster "${name}" is gone.`,
      );
    return { name, existed: record !== undefined, dataKept: keepData && record !== undefined };
  });
}

/**
 * Ends everything of the cluster that runs, whoever left it: processes by the record and by cgroup, then namespaces, cgroups
 * and the run directory. Idempotent; data stays.
 */
async function tearDown(name: string): Promise<void> {
  const record = loadRecord(name);
  const namespaces = listNetns().filter(
    namespace =>
      namespace === switchNamespace(name) || new RegExp(`^${switchNamespace(name)}-node-\\d+$`).test(namespace),
  );
  const own = [record?.server, ...(record?.nodes ?? []).map(node => node.supervisor)].filter(isAlive);
  for (const identity of own) killTree(identity);
  for (const namespace of namespaces) for (const pid of pidsInNetns(namespace)) kill(pid);
  await until(() => !own.some(isAlive) && namespaces.every(namespace => pidsInNetns(namespace).length === 0));
  for (const pid of cgroupMembers(cgroupPath(name), file => readFileSync(file, 'utf8'))) kill(pid);
  await until(() => removeCgroups(cgroupPath(name)));
  for (const namespace of namespaces)
    if (namespace !== switchNamespace(name)) deleteNodeNamespace({ switch: switchNamespace(name), name: namespace });
  deleteSwitch(switchNamespace(name));
  rmSync(runDir(name), { recursive: true, force: true });
  if (record)
    saveRecord({
      ...record,
      server: undefined,
      nodes: record.nodes.map(({ name: node, address }) => ({ name: node, address })),
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

async function forget(name: string): Promise<void> {
  const record = loadRecord(name);
  const stateDir = record?.stateDir ?? defaultStateDir(name);
  rmSync(stateDir, { recursive: true, force: true, maxRetries: 5 });
  deleteRecord(name);
}

/** One `up` or `down` of a cluster at a time; a lock left by a dead process is taken over. */
async function withLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  const folder = join(runDir(''), '.locks');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, name);
  for (let attempt = 0; ; attempt++) {
    try {
      const fd = openSync(path, 'wx', 0o600);
      writeFileSync(fd, JSON.stringify({ pid: process.pid, startTicks: startTicksOf(process.pid) }));
      closeSync(fd);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const holder = readLock(path);
      if (holder && isAlive(holder))
        throw failure(
          409,
          'Conflict',
          `another cox command (pid ${holder.pid}) is working on cluster "${name}"; wait for it to end`,
        );
      if (attempt > 3) throw failure(409, 'Conflict', `cannot take the lock ${path}; remove it if no cox command runs`);
      rmSync(path, { force: true });
    }
  }
  try {
    return await work();
  } finally {
    rmSync(path, { force: true });
  }
}

function readLock(path: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity;
  } catch {
    return undefined;
  }
}
