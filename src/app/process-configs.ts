/** What each process of a dev cluster is told, written where its supervisor finds it; and where its log is. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CLUSTER_DOMAIN, KUBELET_PORT, NODE_PORT_RANGE, SEGMENT_API_PORT } from '../base/cluster-defaults.ts';
import type { AgentConfig } from './agent.ts';
import { apiAddresses, dnsAddress, loadBalancerRanges } from './cluster-ranges.ts';
import { type ClusterRecord, cgroupPath, type NodeRecord, netnsPath, runDir } from './cluster-record.ts';
import type { AgentCredentials } from './pki.ts';
import { relayPath } from './registry-relay.ts';
import type { ServerConfig } from './server.ts';
import { INHERITED_DESCRIPTOR, type SupervisorOptions } from './supervisor.ts';

export function supervised(
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

export function serverConfig(record: ClusterRecord): ServerConfig {
  return {
    cluster: record.name,
    stateDir: record.stateDir,
    runDir: runDir(record.name),
    apiPort: record.apiPort,
    machineNetnsFd: 9,
    addresses: apiAddresses(record.ranges),
    port: SEGMENT_API_PORT,
    ranges: record.ranges,
    nodePortRange: NODE_PORT_RANGE,
    loadBalancerAddresses: loadBalancerRanges(record.ranges),
    clusterDomain: CLUSTER_DOMAIN,
    clusterDns: dnsAddress(record.ranges),
    arguments: record.serverArguments ?? [],
    ...(record.virtualAddress === undefined ? {} : { virtualAddress: record.virtualAddress }),
  };
}

/** The disk is the developer's and its filling not the pods' doing: a cluster must come up on one that is nine tenths full. */
const DEV_KUBELET: NonNullable<AgentConfig['kubelet']> = {
  evictionHard: {
    'memory.available': '100Mi',
    'nodefs.available': '1%',
    'nodefs.inodesFree': '1%',
    'imagefs.available': '1%',
    'imagefs.inodesFree': '1%',
  },
};

export function agentConfig(record: ClusterRecord, node: NodeRecord, credentials: AgentCredentials): AgentConfig {
  return {
    cluster: record.name,
    node: node.name,
    nodeAddresses: node.addresses,
    server: `https://${inUrl(apiAddresses(record.ranges)[0]!)}:${SEGMENT_API_PORT}`,
    rootDir: join(record.stateDir, node.name),
    ownMounts: true,
    runDir: join(runDir(record.name), node.name),
    imageDir: join(record.stateDir, 'images'),
    credentials,
    kubeletPort: KUBELET_PORT,
    ranges: record.ranges,
    clusterDomain: CLUSTER_DOMAIN,
    clusterDns: dnsAddress(record.ranges),
    dnsSocket: INHERITED_DESCRIPTOR,
    cgroupRoot: `${cgroupPath(record.name)}/${node.name}`,
    registryRelay: relayPath(runDir(record.name)),
    ...(record.runtime === undefined ? {} : { runtime: record.runtime }),
    kubelet: { ...DEV_KUBELET, ...record.kubelet },
  };
}

const inUrl = (address: string): string => (address.includes(':') ? `[${address}]` : address);

export function logTail(name: string, part: string): string {
  try {
    return `${logPath(name, part)}:\n${readFileSync(logPath(name, part), 'utf8').split('\n').slice(-15).join('\n')}`;
  } catch {
    return logPath(name, part);
  }
}
