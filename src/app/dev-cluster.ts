/**
 * Clusters on this machine: brings one up, resumes it, takes it down. Owns the order of steps, the sweep of what an earlier
 * crash left, and the promise that a failed or interrupted `up` leaves nothing behind that was not there before.
 */

import { closeSync, mkdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { resolve } from 'node:path';
import { PATH_OPTIONS } from '../apiserver/configuration/given.ts';
import { loadServerSettings } from '../apiserver/configuration/server-settings.ts';
import { systemClock } from '../base/clock.ts';
import { issuerOf } from '../base/cluster-defaults.ts';
import { failure, messageOf } from '../base/errors.ts';
import { readConfigurationFile } from '../kubelet/configuration-file.ts';
import { createNodeNamespace, createSwitch } from '../network/segment.ts';
import { checkVirtualAddress } from './api-virtual-address.ts';
import { withLock } from './cluster-lock.ts';
import {
  apiAddresses,
  type ClusterRanges,
  checkCapacity,
  chooseRanges,
  dnsAddress,
  ipFamilyOf,
  loadBalancerRanges,
  nodeAddresses,
  type RangeChoice,
  segmentsOf,
} from './cluster-ranges.ts';
import {
  type ClusterRecord,
  checkClusterName,
  defaultStateDir,
  isAlive,
  kubeconfigPath,
  loadRecord,
  type NodeRecord,
  nodeNamespace,
  type RuntimeName,
  runDir,
  saveRecord,
  stateOf,
  switchNamespace,
} from './cluster-record.ts';
import { openDnsSocket } from './dns-address.ts';
import { unmergeKubeconfig, writeKubeconfig } from './kubeconfig.ts';
import { adminCredentials, agentCredentials, openPki } from './pki.ts';
import { ensurePrerequisites, requireRoot } from './prerequisites.ts';
import { agentConfig, logTail, serverConfig, supervised } from './process-configs.ts';
import { waitForApi, waitForDns, waitForNodes } from './readiness.ts';
import { makeStateFolder } from './state-folder.ts';
import { superviseNode, superviseServer } from './supervisor.ts';
import { forget, tearDown } from './teardown.ts';

export type Say = (line: string) => void;

export interface UpOptions {
  readonly name: string;
  readonly nodes?: number;
  readonly apiPort?: number;
  readonly stateDir?: string;
  readonly ranges: RangeChoice;
  /** Default container runtime of the nodes; a cluster keeps it for life. */
  readonly runtime?: RuntimeName;
  /** Of a KubeletConfiguration for all nodes. */
  readonly kubeletConfigPath?: string;
  /** Options of kube-apiserver, `NAME=VALUE`; default: as before. */
  readonly serverArguments?: readonly string[];
  /** Of the API server, announced by the nodes; '' for none any more. Default: as before. */
  readonly virtualAddress?: string;
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
  ensurePrerequisites(say, { runtime: options.runtime ?? loadRecord(name)?.runtime, ownMounts: true });
  return withLock(name, async () => {
    const before = loadRecord(name);
    if (before && stateOf(before) === 'running') return alreadyRunning(before, options);
    const { serverArguments } = options;
    const checked = serverArguments
      ? { ...options, serverArguments: await checkedArguments(serverArguments) }
      : options;
    const started = systemClock.monotonic();
    const interrupt = new AbortController();
    const onSignal = () => interrupt.abort(failure(500, 'InternalError', 'interrupted'));
    process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
    try {
      const record = await start(before, checked, interrupt.signal);
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

function alreadyRunning(
  record: ClusterRecord,
  { nodes, apiPort, stateDir, ranges, runtime, kubeletConfigPath, serverArguments, virtualAddress, say }: UpOptions,
): UpResult {
  keepRanges(record, ranges);
  const differs = [
    nodes !== undefined && nodes !== record.nodes.length && `--nodes ${nodes} (it has ${record.nodes.length})`,
    apiPort !== undefined &&
      apiPort !== 0 &&
      apiPort !== record.apiPort &&
      `--api-port ${apiPort} (it has ${record.apiPort})`,
    stateDir !== undefined &&
      resolve(stateDir) !== record.stateDir &&
      `--state-dir ${stateDir} (it has ${record.stateDir})`,
    runtime !== undefined &&
      runtime !== (record.runtime ?? 'cox') &&
      `--runtime ${runtime} (it has ${record.runtime ?? 'cox'})`,
    serverArguments !== undefined && '--kube-apiserver-arg',
    virtualAddress !== undefined && virtualAddress !== (record.virtualAddress ?? '') && `--api-vip ${virtualAddress}`,
    kubeletConfigPath !== undefined && `--kubelet-config ${kubeletConfigPath}`,
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

function readKubeletConfiguration(path: string): NonNullable<ClusterRecord['kubelet']> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw failure(400, 'BadRequest', `--kubelet-config: cannot read ${path}: ${messageOf(error)}`);
  }
  const read = readConfigurationFile(text, path);
  for (const field of ['rotateCertificates', 'serverTLSBootstrap'] as const)
    if (read[field])
      throw failure(
        422,
        'Invalid',
        `${path}: ${field}: cannot be true here: the cluster issues certificates; see cox kubelet`,
      );
  return read;
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
  const runtime = options.runtime ?? before?.runtime;
  if (before && (runtime ?? 'cox') !== (before.runtime ?? 'cox'))
    throw failure(
      409,
      'Conflict',
      `--runtime ${runtime}: cluster "${name}" was made with ${before.runtime ?? 'cox'} and keeps it; delete it first: cox down --name ${name}`,
    );
  const nodeCount = Math.max(options.nodes ?? before?.nodes.length ?? 1, 1);
  if (before && nodeCount < before.nodes.length)
    throw failure(
      409,
      'Conflict',
      `cluster "${name}" has ${before.nodes.length} nodes and its data knows them; resume it with --nodes ${before.nodes.length} or more, or delete it first: cox down --name ${name}`,
    );
  const serverArguments = options.serverArguments ?? before?.serverArguments ?? [];
  const ranges = before ? keepRanges(before, options.ranges) : chooseRanges(options.ranges);
  checkCapacity(ranges, nodeCount);
  const virtualAddress = options.virtualAddress
    ? checkVirtualAddress(options.virtualAddress, loadBalancerRanges(ranges))
    : options.virtualAddress === undefined
      ? before?.virtualAddress
      : undefined;
  const kubelet = options.kubeletConfigPath ? readKubeletConfiguration(options.kubeletConfigPath) : before?.kubelet;
  await tearDown(name);

  const apiPort = await chooseApiPort(options.apiPort ?? before?.apiPort ?? DEFAULT_API_PORT);
  const stateDir = before?.stateDir ?? resolve(options.stateDir ?? defaultStateDir(name));
  makeStateFolder(stateDir);
  mkdirSync(runDir(name), { recursive: true, mode: 0o700 });
  const nodes: NodeRecord[] = Array.from({ length: nodeCount }, (_, i) => ({
    name: `node-${i + 1}`,
    addresses: nodeAddresses(ranges, i + 1),
  }));
  let record: ClusterRecord = {
    name,
    stateDir,
    apiPort,
    createdAt: before?.createdAt ?? new Date(systemClock.now()).toISOString(),
    ranges,
    nodes,
    ...(runtime === undefined ? {} : { runtime }),
    ...(kubelet === undefined ? {} : { kubelet }),
    ...(serverArguments.length > 0 ? { serverArguments } : {}),
    ...(virtualAddress === undefined ? {} : { virtualAddress }),
  };
  saveRecord(record);

  const segments = segmentsOf(ranges);
  const listening = [...apiAddresses(ranges), ...(virtualAddress === undefined ? [] : [virtualAddress])];
  const pki = await openPki(stateDir, { addresses: listening, ranges });
  signal.throwIfAborted();
  createSwitch({ name: switchNamespace(name), segments });
  // It takes longest: the rest is made while it starts.
  const server = superviseServer(supervised(name, 'server', serverConfig(record), switchNamespace(name)));
  record = { ...record, server };
  saveRecord(record);

  const issuing = Promise.all([
    adminCredentials(pki),
    Promise.all(nodes.map(node => agentCredentials(pki, node))),
  ] as const);
  issuing.catch(() => {});
  // Keys wait for the disk: links are made meanwhile.
  for (const node of nodes)
    createNodeNamespace({
      switch: switchNamespace(name),
      name: nodeNamespace(name, node.name),
      ips: node.addresses,
      segments,
    });
  const [admin, credentials] = await issuing;
  writeKubeconfig(kubeconfigPath(record), {
    name,
    server: `https://127.0.0.1:${apiPort}`,
    ca: pki.ca,
    credentials: admin,
  });
  step('network, certificates and kubeconfig');
  signal.throwIfAborted();

  const startedNodes = nodes.map((node, at) => {
    const namespace = nodeNamespace(name, node.name);
    const descriptor = openDnsSocket({ namespace, address: dnsAddress(record.ranges) });
    try {
      const config = agentConfig(record, node, credentials[at]!);
      return {
        ...node,
        supervisor: superviseNode(node.name, { ...supervised(name, node.name, config, namespace), descriptor }),
      };
    } finally {
      closeSync(descriptor);
    }
  });
  record = { ...record, nodes: startedNodes };
  saveRecord(record);
  step(`${nodeCount} node${nodeCount === 1 ? '' : 's'} started`);

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
  const dns = dnsAddress(ranges);
  await waitForDns(context, { address: dns, namespaces: nodes.map(node => nodeNamespace(name, node.name)) });
  step(`DNS answers at ${dns}`);
  return record;
}

/** With absolute paths. Rejects with what is wrong with one of them or with the file that it names, before anything is started. */
async function checkedArguments(given: readonly string[]): Promise<readonly string[]> {
  const absolute = given
    .filter(arg => arg !== '')
    .map(arg => {
      const [name = '', ...rest] = arg.split('=');
      const value = rest.join('=');
      const isPath = PATH_OPTIONS.has(name.replace(/^--/, '')) && value !== '' && value !== '-';
      return isPath ? `${name}=${resolve(value)}` : arg;
    });
  await loadServerSettings(absolute, issuerOf());
  return absolute;
}

/** Its ranges, which it keeps for life; refuses options that ask for others. */
function keepRanges({ name, ranges }: ClusterRecord, choice: RangeChoice): ClusterRanges {
  for (const [key, option, kept] of [
    ['ipFamily', '--ip-family', ipFamilyOf(ranges)],
    ['podCidr', '--pod-cidr', ranges.podCidrs.join()],
    ['serviceCidr', '--service-cidr', ranges.serviceCidrs.join()],
    ['nodeMaskSize', '--node-cidr-mask-size', ranges.nodeMaskSizes.join()],
  ] as const)
    if (choice[key] !== undefined && choice[key] !== kept)
      throw failure(
        409,
        'Conflict',
        `${option} ${choice[key]}: cluster "${name}" was made with ${kept} and keeps it; delete it first: cox down --name ${name}`,
      );
  return ranges;
}

function stepper(say: Say): (what: string) => void {
  let last = systemClock.monotonic();
  return what => {
    const now = systemClock.monotonic();
    say(`  ✓ ${what.padEnd(52)} ${((now - last) / 1000).toFixed(2)} s`);
    last = now;
  };
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
