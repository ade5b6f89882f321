/** `cox kubelet`: our kubelet by itself, against any API server. */

import { isIP } from 'node:net';
import { parseDuration } from '../../api/cel/values.ts';
import { runKubelet } from '../../app/standalone-kubelet.ts';
import { CLUSTER_DOMAIN } from '../../base/cluster-defaults.ts';
import { type Command, usageError } from '../command.ts';
import { parseCount } from './up.ts';

function parseAddresses(text: string, option: string): string[] {
  const addresses = text.split(',');
  const odd = addresses.find(address => !isIP(address));
  if (odd !== undefined) usageError(`${option}: Invalid value: "${odd}": must be an IP address`);
  return addresses;
}

/** `unix:///run/containerd/containerd.sock`, or the path alone. */
export function parseEndpoint(text: string): string {
  const path = text.replace(/^unix:\/\//, '');
  if (!path.startsWith('/'))
    usageError(
      `--container-runtime-endpoint: Invalid value: "${text}": must be a unix socket, such as unix:///run/containerd/containerd.sock`,
    );
  return path;
}

/** In milliseconds, from Go's way to write a time. */
function parseTime(text: string, option: string): number {
  const time = parseDuration(text);
  if (time === undefined || time.ns < 0n)
    usageError(`${option}: Invalid value: "${text}": must be a time, such as 30s, 10m or 2h`);
  return Number(time.ns / 1_000_000n);
}
function parseLimit(text: string, option: string): number {
  if (!/^-?\d{1,9}$/.test(text))
    usageError(`${option}: Invalid value: "${text}": must be a whole number; below 0 there is no limit`);
  return Number(text);
}

export const command: Command = {
  name: 'kubelet',
  summary: "run the kubelet by itself, in place of upstream's, against any API server",
  usage: '--kubeconfig FILE [--hostname-override NODE] [--container-runtime-endpoint SOCKET]',
  options: {
    kubeconfig: { type: 'string', value: 'FILE', help: 'how to reach the API server' },
    'bootstrap-kubeconfig': {
      type: 'string',
      value: 'FILE',
      help: 'what to ask for a client certificate with where --kubeconfig is not there yet; that one is written then',
    },
    'rotate-certificates': {
      type: 'boolean',
      help: "ask the cluster's signer for another client certificate before the present one ends",
    },
    context: { type: 'string', value: 'NAME', help: 'context in it (default the current one)' },
    'hostname-override': { type: 'string', value: 'NODE', help: "this node's name (default the machine's host name)" },
    'node-ip': {
      type: 'string',
      value: 'ADDRESS',
      help: 'this node, with a comma one of each family (default: found)',
    },
    port: { type: 'string', value: 'PORT', help: 'where the API server reaches the kubelet', default: '10250' },
    config: { type: 'string', value: 'FILE', help: 'a KubeletConfiguration' },
    'minimum-container-ttl-duration': {
      type: 'string',
      value: 'TIME',
      help: 'dead containers younger than this are not collected, such as 10m',
      default: '0s',
    },
    'maximum-dead-containers-per-container': {
      type: 'string',
      value: 'N',
      help: 'of each container; its last one stays while its pod goes on',
      default: '1',
    },
    'maximum-dead-containers': {
      type: 'string',
      value: 'N',
      help: 'dead containers of the whole node, -1 for as many as there are',
      default: '-1',
    },
    'image-credential-provider-config': {
      type: 'string',
      value: 'FILE',
      help: 'a CredentialProviderConfig, or a folder of them: programs that know passwords of registries',
    },
    'image-credential-provider-bin-dir': { type: 'string', value: 'DIR', help: 'where these programs are' },
    'root-dir': { type: 'string', value: 'DIR', help: 'where pods keep their data', default: '/var/lib/cox-kubelet' },
    'run-dir': { type: 'string', value: 'DIR', help: 'for what ends with the machine', default: '/run/cox-kubelet' },
    'client-ca-file': {
      type: 'string',
      value: 'FILE',
      help: "authority of those who may call the kubelet (default the kubeconfig's)",
    },
    'tls-cert-file': { type: 'string', value: 'FILE', help: "the kubelet's serving certificate (default: made)" },
    'tls-private-key-file': { type: 'string', value: 'FILE', help: 'its key' },
    'rotate-server-certificates': {
      type: 'boolean',
      help: "ask the cluster's signer for the serving certificate, and again before it ends",
    },
    'cluster-dns': { type: 'string', value: 'ADDRESS', help: "pods' name server, with commas between several" },
    'cluster-domain': { type: 'string', value: 'NAME', help: 'what pods search', default: CLUSTER_DOMAIN },
    'cluster-cidr': { type: 'string', value: 'RANGES', help: 'of all pods: what goes elsewhere is masqueraded' },
    'container-runtime-endpoint': {
      type: 'string',
      value: 'SOCKET',
      help: 'a container runtime with its own pod network (CRI v1; default: runc under conmon, and ours)',
    },
  },
  examples: [
    'cox kubelet --kubeconfig /etc/kubernetes/kubelet.conf --cluster-dns 10.96.0.10',
    'cox kubelet --bootstrap-kubeconfig bootstrap.conf --kubeconfig kubelet.conf --rotate-certificates',
    'cox kubelet --kubeconfig kubelet.conf --container-runtime-endpoint unix:///run/containerd/containerd.sock',
  ],
  async run({ options }) {
    const text = (name: string) => options[name] as string | undefined;
    const option = (key: string, name: string) => (text(name) === undefined ? {} : { [key]: text(name)! });
    const [certFile, keyFile] = [text('tls-cert-file'), text('tls-private-key-file')];
    if ((certFile === undefined) !== (keyFile === undefined))
      usageError('--tls-cert-file and --tls-private-key-file go together');
    if (certFile !== undefined && options['rotate-server-certificates'])
      usageError('--rotate-server-certificates asks for the certificate that --tls-cert-file names: give one of them');
    const [config, binDir] = [text('image-credential-provider-config'), text('image-credential-provider-bin-dir')];
    if ((config === undefined) !== (binDir === undefined))
      usageError('--image-credential-provider-config and --image-credential-provider-bin-dir go together');
    await runKubelet({
      kubeconfig: text('kubeconfig') ?? usageError('kubelet needs --kubeconfig FILE'),
      ...option('context', 'context'),
      ...option('nodeName', 'hostname-override'),
      ...(text('node-ip') ? { nodeIps: parseAddresses(text('node-ip')!, '--node-ip') } : {}),
      port: parseCount(text('port')!, '--port', { min: 1, max: 65535 }),
      rootDir: text('root-dir')!,
      runDir: text('run-dir')!,
      ...option('configPath', 'config'),
      deadContainers: {
        ageMsMin: parseTime(text('minimum-container-ttl-duration')!, '--minimum-container-ttl-duration'),
        perContainerMax: parseLimit(
          text('maximum-dead-containers-per-container')!,
          '--maximum-dead-containers-per-container',
        ),
        max: parseLimit(text('maximum-dead-containers')!, '--maximum-dead-containers'),
      },
      ...(config && binDir ? { credentialProviders: { config, binDir } } : {}),
      ...option('clientCaFile', 'client-ca-file'),
      ...(certFile && keyFile ? { tls: { certFile, keyFile } } : {}),
      ...option('bootstrapKubeconfig', 'bootstrap-kubeconfig'),
      ...(options['rotate-certificates'] ? { rotatesClientCertificate: true as const } : {}),
      ...(options['rotate-server-certificates'] ? { rotatesServerCertificate: true as const } : {}),
      clusterDns: text('cluster-dns') ? parseAddresses(text('cluster-dns')!, '--cluster-dns') : [],
      clusterDomain: text('cluster-domain')!,
      ...(text('cluster-cidr') ? { clusterCidrs: text('cluster-cidr')!.split(',') } : {}),
      ...(text('container-runtime-endpoint')
        ? { runtimeSocket: parseEndpoint(text('container-runtime-endpoint')!) }
        : {}),
    });
  },
};
