/** `cox dns`: our cluster DNS by itself, against any API server. */

import { isIP } from 'node:net';
import { runDns } from '../../app/standalone.ts';
import { CLUSTER_DOMAIN } from '../../base/cluster-defaults.ts';
import { type Command, usageError } from '../command.ts';

const DNS_PORT = 53;

/** `127.0.0.1`, `127.0.0.1:5353`, `[::1]:53`, several with commas; the port is the same for all. */
export function parseBind(text: string): { addresses: string[]; port: number } {
  let port = DNS_PORT;
  const addresses = text.split(',').map(part => {
    const [, address = part, number] = /^\[(.+)\](?::(\d+))?$/.exec(part) ?? /^([\d.]+)(?::(\d+))?$/.exec(part) ?? [];
    if (!isIP(address) || Number(number ?? 1) < 1 || Number(number ?? 1) > 65_535)
      usageError(`--bind: Invalid value: "${part}": must be an address, with a port if it is not 53`);
    if (number !== undefined) port = Number(number);
    return address;
  });
  return { addresses, port };
}

export const command: Command = {
  name: 'dns',
  summary: 'run the cluster DNS by itself, in place of CoreDNS, against any API server',
  usage: '--kubeconfig FILE [--bind ADDRESS[:PORT]]',
  options: {
    kubeconfig: { type: 'string', value: 'FILE', help: 'how to reach the API server' },
    context: { type: 'string', value: 'NAME', help: 'context in it (default the current one)' },
    bind: {
      type: 'string',
      value: 'ADDRESS',
      help: 'where to answer, with commas between several',
      default: '127.0.0.1:53',
    },
    'cluster-domain': { type: 'string', value: 'NAME', help: 'while no ConfigMap says it', default: CLUSTER_DOMAIN },
  },
  examples: ['cox dns --kubeconfig /etc/kubernetes/dns.conf --bind 169.254.20.10'],
  async run({ options }) {
    const text = (name: string) => options[name] as string | undefined;
    await runDns({
      kubeconfig: text('kubeconfig') ?? usageError('dns needs --kubeconfig FILE'),
      ...(text('context') ? { context: text('context')! } : {}),
      ...parseBind(text('bind')!),
      clusterDomain: text('cluster-domain')!,
    });
  },
};
