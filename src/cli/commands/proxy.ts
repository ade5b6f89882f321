/** `cox proxy`: our kube-proxy by itself, against any API server. */

import { runProxy } from '../../app/standalone.ts';
import { parsePrefix } from '../../sys/address.ts';
import { type Command, usageError } from '../command.ts';

function rangesOf(text: string | undefined, option: string): string[] | undefined {
  if (text === undefined) return undefined;
  return text.split(',').map(range => {
    try {
      if (range !== 'primary') parsePrefix(range);
      return range;
    } catch {
      return usageError(`${option}: Invalid value: "${range}": must be a range of addresses, such as 10.0.0.0/24`);
    }
  });
}

export const command: Command = {
  name: 'proxy',
  summary: 'run the Service proxy by itself, in place of kube-proxy, against any API server',
  usage: '--kubeconfig FILE [--hostname-override NODE] [--nodeport-addresses RANGES]',
  options: {
    kubeconfig: { type: 'string', value: 'FILE', help: 'how to reach the API server' },
    context: { type: 'string', value: 'NAME', help: 'context in it (default the current one)' },
    'hostname-override': { type: 'string', value: 'NODE', help: "this node's name (default the machine's host name)" },
    'nodeport-addresses': {
      type: 'string',
      value: 'RANGES',
      help: 'where node ports answer, or "primary" (the default)',
    },
    'cluster-cidr': { type: 'string', value: 'RANGES', help: "ranges of pods (default the node's podCIDRs)" },
  },
  examples: ['cox proxy --kubeconfig /etc/kubernetes/proxy.conf --hostname-override node-3'],
  async run({ options }) {
    const text = (name: string) => options[name] as string | undefined;
    const kubeconfig = text('kubeconfig') ?? usageError('proxy needs --kubeconfig FILE');
    const nodePortAddresses = rangesOf(text('nodeport-addresses'), '--nodeport-addresses');
    const clusterCidrs = rangesOf(text('cluster-cidr'), '--cluster-cidr');
    await runProxy({
      kubeconfig,
      ...(text('context') ? { context: text('context')! } : {}),
      ...(text('hostname-override') ? { nodeName: text('hostname-override')! } : {}),
      ...(nodePortAddresses ? { nodePortAddresses } : {}),
      ...(clusterCidrs ? { clusterCidrs } : {}),
    });
  },
};
