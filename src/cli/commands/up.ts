/** `cox up`: starts a cluster, or resumes a stopped one; a running one is left as it is. */

import { RUNTIMES, type RuntimeName } from '../../app/cluster-record.ts';
import { bringUp } from '../../app/dev-cluster.ts';
import { type Command, printJson, usageError } from '../command.ts';

const NODES_MAX = 64;

export function parseCount(text: string, option: string, range: { min: number; max: number }): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < range.min || value > range.max)
    usageError(`${option}: Invalid value: "${text}": must be a whole number between ${range.min} and ${range.max}`);
  return value;
}

function parseRuntime(text: string): RuntimeName {
  const name = RUNTIMES.find(one => one === text);
  return name ?? usageError(`--runtime: Invalid value: "${text}": must be one of ${RUNTIMES.join(', ')}`);
}

export const command: Command = {
  name: 'up',
  summary: 'start a cluster on this machine, or resume a stopped one',
  usage: '[--nodes N] [--api-port PORT] [--state-dir DIR] [--ip-family FAMILY] [--foreground]',
  options: {
    nodes: {
      type: 'string',
      value: 'N',
      help: 'how many nodes, each a network namespace of its own (default 1, or as before)',
    },
    'api-port': {
      type: 'string',
      value: 'PORT',
      help: 'port of the API on 127.0.0.1; 0 picks a free one (default 6443, or as before)',
    },
    'state-dir': {
      type: 'string',
      value: 'DIR',
      help: 'where the cluster keeps its data (default /var/lib/coxswain/data/NAME)',
    },
    'ip-family': {
      type: 'string',
      value: 'FAMILY',
      help: 'addresses of nodes, pods and Services: ipv4, ipv6 or dual (default ipv4, or as before)',
    },
    'pod-cidr': {
      type: 'string',
      value: 'CIDRS',
      help: 'range of pods; with a comma one of each family, the primary one first',
    },
    'service-cidr': { type: 'string', value: 'CIDRS', help: 'range of Services, likewise' },
    'node-cidr-mask-size': {
      type: 'string',
      value: 'N',
      help: "prefix length of a node's share of --pod-cidr, likewise (default 24, IPv6 64)",
    },
    runtime: {
      type: 'string',
      value: 'NAME',
      help: `what runs containers on the nodes: ${RUNTIMES.join(' or ')} (default cox, or as before)`,
    },
    'api-vip': {
      type: 'string',
      value: 'ADDRESS',
      help: "an address of the cluster's load balancers at which nodes announce the API too; '' for none any more",
    },
    'kubelet-config': {
      type: 'string',
      value: 'FILE',
      help: 'a KubeletConfiguration for all nodes (default none, or as before)',
    },
    'kube-apiserver-arg': {
      type: 'string',
      value: 'NAME=VALUE',
      multiple: true,
      help: "an option of kube-apiserver, such as audit-log-path=/tmp/audit.log; again for more; '' for none any more",
    },
    foreground: { type: 'boolean', help: 'stay attached; Ctrl-C stops the cluster and keeps its data' },
  },
  examples: [
    'cox up --nodes 2',
    'cox up --name ci --api-port 0',
    'cox up --ip-family dual',
    'cox up --runtime containerd',
    'cox up --kube-apiserver-arg authentication-config=./authentication.yaml',
    'export KUBECONFIG=$(cox kubeconfig --path)',
  ],
  async run({ options, cluster, json }) {
    const text = (name: string) => options[name] as string | undefined;
    const option = (key: string, name: string) => (text(name) === undefined ? {} : { [key]: text(name)! });
    const nodes = text('nodes');
    const apiPort = text('api-port');
    const result = await bringUp({
      name: cluster,
      ...(nodes === undefined ? {} : { nodes: parseCount(nodes, '--nodes', { min: 1, max: NODES_MAX }) }),
      ...(apiPort === undefined ? {} : { apiPort: parseCount(apiPort, '--api-port', { min: 0, max: 65535 }) }),
      ...(text('state-dir') === undefined ? {} : { stateDir: text('state-dir')! }),
      ranges: {
        ...option('ipFamily', 'ip-family'),
        ...option('podCidr', 'pod-cidr'),
        ...option('serviceCidr', 'service-cidr'),
        ...option('nodeMaskSize', 'node-cidr-mask-size'),
      },
      ...(text('runtime') === undefined ? {} : { runtime: parseRuntime(text('runtime')!) }),
      ...option('kubeletConfigPath', 'kubelet-config'),
      ...option('virtualAddress', 'api-vip'),
      ...(options['kube-apiserver-arg'] === undefined
        ? {}
        : { serverArguments: options['kube-apiserver-arg'] as readonly string[] }),
      foreground: options['foreground'] === true,
      say: line => void (json ? process.stderr : process.stdout).write(`${line}\n`),
    });
    if (json) printJson(result);
  },
};
