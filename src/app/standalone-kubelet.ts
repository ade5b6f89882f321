/**
 * Our kubelet by itself, in place of upstream's, against any Kubernetes API server: known by a kubeconfig and plain HTTPS only. The machine
 * it runs on is the node. It has the pod network of ours, or with a container runtime of one's own (CRI) that runtime's. When it is
 * told to end, pods run on, as with upstream's.
 */

import { mkdirSync, readFileSync } from 'node:fs';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { ensurePki } from '../apiserver/certificates/pki.ts';
import { systemClock } from '../base/clock.ts';
import { KUBELET_PORT } from '../base/cluster-defaults.ts';
import { failure, messageOf } from '../base/errors.ts';
import { createLogger, type Logger } from '../base/log.ts';
import { followProcess } from '../base/process-metrics.ts';
import { systemRandom } from '../base/random.ts';
import type { Tracer } from '../base/tracing/span.ts';
import type { HttpsTransport } from '../client/https-transport.ts';
import type { InformerFactory } from '../client/informer.ts';
import { readKubeconfig } from '../client/kubeconfig.ts';
import type { Transport } from '../client/transport.ts';
import { readConfigurationFile } from '../kubelet/configuration-file.ts';
import type { CredentialProviderPaths } from '../kubelet/images/credential-provider-config.ts';
import { Kubelet, type RuntimeParts } from '../kubelet/kubelet.ts';
import type { DeadContainerPolicy } from '../kubelet/pods/dead-containers.ts';
import { CriRuntime } from '../kubelet/runtime/cri/cri-runtime.ts';
import { RuntimeNetwork } from '../kubelet/runtime/cri/runtime-network.ts';
import type { PodNetwork } from '../kubelet/runtime.ts';
import { NodeNetwork } from '../network/node-network.ts';
import { kubeletPages } from './component-pages.ts';
import { bootstrapKubelet } from './kubelet-bootstrap.ts';
import { type NodeCertificateOptions, nodeCertificates, storedCertificate } from './node-certificate.ts';
import { ensurePrerequisites, requireRoot } from './prerequisites.ts';
import { ProcessPuller } from './process-puller.ts';
import { relayStart } from './relay-start.ts';
import { type StandaloneOptions, untilEnded } from './standalone.ts';
import { kubeletTracing } from './tracing/components.ts';

export interface StandaloneKubeletOptions extends StandaloneOptions {
  /** The Node's name; default this machine's host name. */
  readonly nodeName?: string;
  /** Default: the first address of the machine that is not a loopback one. */
  readonly nodeIps?: readonly string[];
  readonly rootDir: string;
  readonly runDir: string;
  readonly port?: number;
  /** File with the authority of clients of the kubelet's port; default: the kubeconfig's. */
  readonly clientCaFile?: string;
  /** Files, PEM; default: made, and signed by an authority of this kubelet's own. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string };
  /** The cluster's signer is asked for the serving certificate, and again before it ends. */
  readonly rotatesServerCertificate?: true;
  /** It is asked for another client certificate before the present one ends. */
  readonly rotatesClientCertificate?: true;
  /** With which the first client certificate is asked for, where `kubeconfig` is not there yet or serves no more. */
  readonly bootstrapKubeconfig?: string;
  readonly clusterDns: readonly string[];
  readonly clusterDomain: string;
  /** Ranges of all pods; default those of the Node. */
  readonly clusterCidrs?: readonly string[];
  /** A KubeletConfiguration file. */
  readonly configPath?: string;
  readonly deadContainers?: Partial<DeadContainerPolicy>;
  /** Programs that know passwords of registries. */
  readonly credentialProviders?: CredentialProviderPaths;
  /** Socket of a container runtime; absent: runc under conmon. */
  readonly runtimeSocket?: string;
}

export async function runKubelet(options: StandaloneKubeletOptions): Promise<void> {
  requireRoot('kubelet');
  ensurePrerequisites(line => void process.stderr.write(`${line}\n`), { ownMounts: false });
  const nodeName = (options.nodeName ?? hostname()).toLowerCase();
  const nodeIps = options.nodeIps ?? ownAddresses();
  if (nodeIps.length === 0)
    throw failure(400, 'BadRequest', 'this machine has no address but its own loopback; say which: --node-ip ADDRESS');
  const configuration = options.configPath
    ? readConfigurationFile(readText(options.configPath, '--config'), options.configPath)
    : {};
  const { rootDir, runDir, bootstrapKubeconfig, kubeconfig } = options;
  for (const folder of [rootDir, runDir]) mkdirSync(folder, { recursive: true, mode: 0o711 });
  const folder = join(rootDir, 'pki');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  followProcess();
  const certificates = { folder, nodeName, clock: systemClock, random: systemRandom };
  if (bootstrapKubeconfig !== undefined)
    await bootstrapKubelet({ ...certificates, bootstrapKubeconfig, kubeconfig, log: createLogger('kubelet') });
  const tracing = await kubeletTracing(configuration, nodeName, { ...certificates, log: createLogger('kubelet') });
  const shared = {
    ...options,
    part: 'kubelet',
    userAgent: 'kubelet/v1.36.0 cox',
    ...(tracing ? { tracer: tracing.tracer } : {}),
  };
  const running = untilEnded(shared, async ({ transport, informers, ca, log, signal }) => {
    if (options.rotatesClientCertificate || configuration.rotateCertificates)
      await rotateClient({ ...certificates, purpose: 'client', names: [], transport, log }, options, signal);
    const tls = {
      ...(await servingPair(options, { nodeName, nodeIps })),
      ca: options.clientCaFile ? readText(options.clientCaFile, '--client-ca-file') : (ca ?? ''),
    };
    if (!tls.ca)
      throw failure(
        400,
        'BadRequest',
        'the kubeconfig names no authority; who may call the kubelet? --client-ca-file FILE',
      );
    const network = podNetwork(
      { ...options, nodeName, nodeIps, rootDir },
      { transport, informers, tracer: tracing?.tracer, log },
    );
    const kubelet = new Kubelet({
      nodeName,
      nodeIps,
      rootDir,
      runDir,
      imageDir: join(rootDir, 'images'),
      cgroupRoot: `/coxswain/kubelet-${nodeName}`,
      transport,
      informers,
      network: network.of,
      clusterDns: options.clusterDns,
      clusterDomain: options.clusterDomain,
      tls,
      ...(options.rotatesServerCertificate || configuration.serverTLSBootstrap
        ? {
            servingPairs: nodeCertificates(
              { ...certificates, purpose: 'serving', names: [nodeName, ...nodeIps], transport, log },
              signal,
            ),
          }
        : {}),
      port: options.port ?? KUBELET_PORT,
      configuration,
      zPages: kubeletPages(
        {
          'bootstrap-kubeconfig': options.bootstrapKubeconfig,
          'client-ca-file': options.clientCaFile,
          'cluster-dns': options.clusterDns,
          'cluster-domain': options.clusterDomain,
          config: options.configPath,
          'container-runtime-endpoint': options.runtimeSocket,
          'hostname-override': options.nodeName,
          kubeconfig: options.kubeconfig,
          'node-ip': options.nodeIps,
          port: options.port,
          'root-dir': options.rootDir,
          'tls-cert-file': options.tls?.certFile,
          'tls-private-key-file': options.tls?.keyFile,
        },
        systemClock,
      ),
      ...(options.deadContainers ? { deadContainers: options.deadContainers } : {}),
      ...(options.credentialProviders ? { credentialProviders: options.credentialProviders } : {}),
      nodeLogs: { entries: {}, folder: '/var/log' },
      puller: new ProcessPuller({ imageDir: join(rootDir, 'images'), network: {} }),
      ...(options.runtimeSocket === undefined ? {} : { runtime: criRuntime(options.runtimeSocket) }),
      tracer: tracing?.tracer,
      log,
      clock: systemClock,
    });
    const parts = [kubelet.run(signal), network.run(signal)];
    informers.start(signal);
    await Promise.all(parts);
  });
  await running.finally(() => tracing?.close());
}

function criRuntime(socket: string): (parts: RuntimeParts) => Promise<CriRuntime> {
  return ({ rootDir, images, tracer, log, clock, signal }) =>
    CriRuntime.open({ socket, folder: join(rootDir, 'cri'), images, tracer, log, clock }, signal);
}

function podNetwork(
  options: StandaloneKubeletOptions & { readonly nodeName: string; readonly nodeIps: readonly string[] },
  connection: {
    readonly transport: Transport;
    readonly informers: InformerFactory;
    readonly tracer: Tracer | undefined;
    readonly log: Logger;
  },
): { readonly of: PodNetwork; run(signal: AbortSignal): Promise<void> } {
  const { nodeName, nodeIps, rootDir, runDir, runtimeSocket, clusterCidrs = [] } = options;
  if (runtimeSocket !== undefined) {
    const network = new RuntimeNetwork(runtimeSocket, connection.tracer);
    return { of: network, run: signal => network.run(signal, systemClock) };
  }
  const network = new NodeNetwork({
    nodeName,
    nodeIps,
    clusterCidrs,
    stateDir: join(rootDir, 'network'),
    relay: { start: relayStart(), folder: join(runDir, 'relay') },
    ...connection,
    clock: systemClock,
  });
  return { of: network, run: signal => network.run(signal) };
}

/** Follows the client certificate: that of the folder, which is newer than the kubeconfig's own, and each that comes after it. */
async function rotateClient(
  certificate: NodeCertificateOptions & { readonly transport: HttpsTransport },
  { kubeconfig, context }: StandaloneOptions,
  signal: AbortSignal,
): Promise<void> {
  const { transport, log } = certificate;
  const stored = storedCertificate(certificate);
  if (stored) transport.renew(stored);
  const { cert, key } = await readKubeconfig(kubeconfig, context);
  const first = cert && key ? { first: { cert, key } } : {};
  void (async () => {
    for await (const pair of nodeCertificates({ ...certificate, ...first }, signal)) transport.renew(pair);
  })().catch(error => log.error('the client certificate is not renewed any more', { error }));
}

async function servingPair(
  { tls, rootDir }: StandaloneKubeletOptions,
  { nodeName, nodeIps }: { readonly nodeName: string; readonly nodeIps: readonly string[] },
): Promise<{ key: string; cert: string }> {
  if (tls)
    return { cert: readText(tls.certFile, '--tls-cert-file'), key: readText(tls.keyFile, '--tls-private-key-file') };
  const names = [nodeName, ...nodeIps];
  const pki = await ensurePki(join(rootDir, 'pki'), { sans: names });
  const subject = { commonName: `system:node:${nodeName}`, organizations: ['system:nodes'] };
  const { certificate, key } = await pki.ensureServer('serving', subject, names);
  return { cert: certificate, key };
}

function readText(path: string, option: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw failure(400, 'BadRequest', `${option} ${path}: ${messageOf(error)}`);
  }
}

function ownAddresses(): string[] {
  const found = Object.values(networkInterfaces())
    .flatMap(list => list ?? [])
    .find(({ internal, family, address }) => !internal && (family === 'IPv4' || !address.startsWith('fe80:')));
  return found ? [found.address] : [];
}
