/**
 * The agent process of one node: pod network, kube-proxy, cluster DNS and kubelet. It talks to the API server only, and
 * runs inside the node's namespaces.
 */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { createLogger } from '../base/log.ts';
import { followProcess } from '../base/process-metrics.ts';
import { systemRandom } from '../base/random.ts';
import type { Tracer } from '../base/tracing/span.ts';
import { ApiEventRecorder } from '../client/event-recorder.ts';
import { HttpsTransport } from '../client/https-transport.ts';
import { InformerFactory } from '../client/informer.ts';
import { ClusterDns } from '../dns/cluster-dns.ts';
import { GatewayAgent } from '../ingress/gateway/gateway-agent.ts';
import { ReachGuard } from '../ingress/haproxy/reach-guard.ts';
import { IngressAgent } from '../ingress/ingress-agent.ts';
import type { KubeletConfiguration } from '../kubelet/configuration.ts';
import { Kubelet } from '../kubelet/kubelet.ts';
import { Announcer } from '../loadbalancer/announcer.ts';
import { LocalStorage } from '../localdriver/local-storage.ts';
import { NodeNetwork } from '../network/node-network.ts';
import { HealthServer } from '../proxy/health-server.ts';
import { NftablesBackend } from '../proxy/nftables/nftables-backend.ts';
import { familyName } from '../proxy/proxy-metrics.ts';
import { ServiceProxy } from '../proxy/service-proxy.ts';
import { leaveMixedHierarchies } from '../sys/cgroup.ts';
import { closeOnExec } from '../sys/file-descriptor.ts';
import { keepNullDevice } from '../sys/null-device.ts';
import { type ClusterRanges, segmentsOf } from './cluster-ranges.ts';
import { makePassable, type RuntimeName } from './cluster-record.ts';
import { keepCompiledCode } from './compile-cache.ts';
import { kubeletPages, proxyPages } from './component-pages.ts';
import { DNS_PORT, ensureDnsAddress } from './dns-address.ts';
import { bindKubeletFolder } from './kubelet-folder.ts';
import { containerdNode } from './node-runtimes.ts';
import type { AgentCredentials } from './pki.ts';
import { untilAccepting } from './port-probe.ts';
import { ProcessPuller } from './process-puller.ts';
import { relayStart } from './relay-start.ts';
import { kubeletTracing } from './tracing/components.ts';

/** Without a server for that long the agent goes on: its informers retry for ever. */
const SERVER_WAIT_MS_MAX = 3000;

/** A node alone answers what it can. */
const DNS_WAIT_MS_MAX = 2000;

export interface AgentConfig {
  readonly cluster: string;
  readonly node: string;
  /** One of each family, the primary one first. */
  readonly nodeAddresses: readonly string[];
  readonly server: string;
  readonly rootDir: string;
  /** The node has a mount namespace of its own. */
  readonly ownMounts?: boolean;
  readonly runDir: string;
  readonly imageDir: string;
  readonly credentials: AgentCredentials;
  readonly kubeletPort: number;
  readonly ranges: ClusterRanges;
  /** Ranges in which node ports answer, or `primary` (the default): the node's own addresses. */
  readonly nodePortAddresses?: readonly string[];
  /** Ranges that `externalIPs` may take although they are the cluster's: an administrator's word. */
  readonly allowedExternalRanges?: readonly string[];
  readonly clusterDomain: string;
  readonly clusterDns: string;
  /** Number of an inherited UDP socket that is bound to the cluster's DNS address. */
  readonly dnsSocket?: number;
  readonly cgroupRoot: string;
  /** Socket of the relay to registries outside the node's networks; absent where the node reaches them itself. */
  readonly registryRelay?: string;
  /** The default runtime; absent, `cox`. */
  readonly runtime?: RuntimeName;
  /** What differs from upstream's defaults. */
  readonly kubelet?: Partial<KubeletConfiguration>;
}

export async function runAgent(config: AgentConfig): Promise<void> {
  const log = createLogger('agent').with({ node: config.node });
  log.info('starting');
  const clock = systemClock;
  const random = systemRandom;
  const stop = new AbortController();
  const { signal } = stop;
  process.once('SIGTERM', () => stop.abort()).once('SIGINT', () => stop.abort());
  process.on('unhandledRejection', error =>
    log.error('unhandled rejection', { error: error instanceof Error ? error : messageOf(error) }),
  );
  if (config.dnsSocket !== undefined) closeOnExec(config.dnsSocket);
  mkdirSync(config.rootDir, { recursive: true, mode: 0o700 });
  // crun would not run beside it, and nothing here uses what it has.
  if (config.ownMounts) leaveMixedHierarchies();
  if (config.ownMounts) keepNullDevice();
  const kubeletDir = config.ownMounts ? bindKubeletFolder(config.rootDir) : config.rootDir;
  makePassable(config.runDir);

  const { credentials, server } = config;
  const connect = (pair: { certificate: string; key: string }, userAgent: string, tracer?: Tracer) =>
    new HttpsTransport({
      server,
      ca: credentials.ca,
      cert: pair.certificate,
      key: pair.key,
      userAgent,
      ...(tracer ? { tracer } : {}),
    });
  const tracing = await kubeletTracing(config.kubelet, config.node, { clock, random, log });
  const nodeTransport = connect(credentials.kubelet, 'kubelet/v1.36.0', tracing?.tracer);
  const networkTransport = connect(credentials.network, 'cox-network');
  const ingressTransport = connect(credentials.ingress, 'cox-ingress');
  const storageTransport = connect(credentials.storage, 'cox-local');
  const storageInformers = new InformerFactory({ transport: storageTransport, log });
  const nodeInformers = new InformerFactory({ transport: nodeTransport, log });
  const networkInformers = new InformerFactory({ transport: networkTransport, log });
  const ingressInformers = new InformerFactory({ transport: ingressTransport, log });

  const network = new NodeNetwork({
    nodeName: config.node,
    nodeIps: config.nodeAddresses,
    clusterCidrs: config.ranges.podCidrs,
    stateDir: join(config.rootDir, 'network'),
    relay: { start: relayStart(), folder: join(config.runDir, 'relay') },
    transport: networkTransport,
    informers: networkInformers,
    log,
    clock,
  });
  ensureDnsAddress(config.clusterDns);
  const dns = new ClusterDns({
    informers: networkInformers,
    events: new ApiEventRecorder({ transport: networkTransport, component: 'coredns', host: config.node, log, clock }),
    clusterDomain: config.clusterDomain,
    listener: network.names,
    listen: {
      addresses: [config.clusterDns],
      port: DNS_PORT,
      ...(config.dnsSocket === undefined ? {} : { socket: config.dnsSocket }),
    },
    log,
    clock,
  });
  const proxy = new ServiceProxy({
    informers: networkInformers,
    nodeName: config.node,
    backend: new NftablesBackend({
      nodeIps: config.nodeAddresses,
      clusterCidrs: config.ranges.podCidrs,
      ...(config.nodePortAddresses ? { nodePortAddresses: config.nodePortAddresses } : {}),
      log,
    }),
    families: config.nodeAddresses.map(familyName),
    localVips: [config.clusterDns],
    podRanges: config.ranges.podCidrs,
    serviceRanges: config.ranges.serviceCidrs,
    ...(config.allowedExternalRanges ? { allowedExternalRanges: config.allowedExternalRanges } : {}),
    events: new ApiEventRecorder({
      transport: networkTransport,
      component: 'kube-proxy',
      host: config.node,
      log,
      clock,
    }),
    log,
    clock,
  });
  const proxyHealth = new HealthServer({
    proxy,
    families: config.nodeAddresses.map(familyName),
    zPages: proxyPages(
      {
        'cluster-cidr': config.ranges.podCidrs,
        'hostname-override': config.node,
        'nodeport-addresses': config.nodePortAddresses,
      },
      clock,
    ),
    log,
    clock,
  });
  const guard = new ReachGuard({ log });
  const ingress = new IngressAgent({
    nodeName: config.node,
    nodeIps: config.nodeAddresses,
    runDir: config.runDir,
    accessLog: `${config.runDir}-ingress.log`,
    transport: ingressTransport,
    ingressInformers,
    informers: networkInformers,
    nodeTransport: networkTransport,
    guard,
    nameservers: [config.clusterDns],
    defaultCertificate: `${credentials.ingressServing.certificate}\n${credentials.ingressServing.key}`,
    log,
    clock,
  });
  const gateways = new GatewayAgent({
    nodeName: config.node,
    nodeIps: config.nodeAddresses,
    runDir: config.runDir,
    accessLog: `${config.runDir}-gateway.log`,
    transport: ingressTransport,
    gatewayInformers: ingressInformers,
    informers: networkInformers,
    nodeTransport: networkTransport,
    guard,
    log,
    clock,
  });
  const logOf = (part: string): string => `${config.runDir}${part === 'kubelet' ? '' : `-${part}`}.log`;
  const kubelet = new Kubelet({
    nodeName: config.node,
    nodeIps: config.nodeAddresses,
    rootDir: kubeletDir,
    runDir: config.runDir,
    imageDir: config.imageDir,
    puller: new ProcessPuller({
      imageDir: config.imageDir,
      network:
        config.registryRelay === undefined
          ? {}
          : {
              relay: config.registryRelay,
              inside: [...segmentsOf(config.ranges), ...config.ranges.podCidrs, ...config.ranges.serviceCidrs],
            },
    }),
    transport: nodeTransport,
    informers: nodeInformers,
    network,
    clusterDns: [config.clusterDns],
    clusterDomain: config.clusterDomain,
    tls: { key: credentials.serving.key, cert: credentials.serving.certificate, ca: credentials.ca },
    port: config.kubeletPort,
    cgroupRoot: config.cgroupRoot,
    configuration: config.kubelet ?? {},
    nodeLogs: {
      entries: Object.fromEntries(
        ['kubelet', 'ingress', 'gateway', 'containerd'].map(name => [`${name}.log`, logOf(name)]),
      ),
      services: { kubelet: logOf('kubelet') },
    },
    ...(config.runtime === 'containerd' ? { runtime: containerdNode } : {}),
    tracer: tracing?.tracer,
    zPages: kubeletPages(
      {
        'cluster-dns': [config.clusterDns],
        'cluster-domain': config.clusterDomain,
        'hostname-override': config.node,
        'node-ip': config.nodeAddresses,
        port: config.kubeletPort,
        'root-dir': kubeletDir,
      },
      clock,
    ),
    log,
    clock,
    random,
  });
  const announcer = new Announcer({
    nodeName: config.node,
    nodeAddress: config.nodeAddresses[0]!,
    probePort: config.kubeletPort,
    runDir: join(config.runDir, 'bgp'),
    informers: networkInformers,
    transport: networkTransport,
    secrets: ingressTransport,
    log,
    clock,
  });
  const volumes = new LocalStorage({
    nodeName: config.node,
    rootDir: kubeletDir,
    folder: join(config.rootDir, 'local-volumes'),
    transport: storageTransport,
    informers: storageInformers,
    log,
    clock,
  });
  // Questions wait in the socket meanwhile: an answer made of half a cluster would be a wrong one.
  const resolving = {
    run: async (signal: AbortSignal) => {
      await Promise.race([networkInformers.allSynced(), clock.sleep(DNS_WAIT_MS_MAX, signal)]);
      await dns.run(signal);
    },
  };
  const parts = [network, proxy, proxyHealth, resolving, announcer, ingress, gateways, volumes, kubelet].map(part =>
    part.run(signal),
  );
  // A new cluster's server starts beside this agent: lists that fail meanwhile would come back late.
  await untilAccepting(server, { atMostMs: SERVER_WAIT_MS_MAX, signal, clock });
  networkInformers.start(signal);
  ingressInformers.start(signal);
  nodeInformers.start(signal);
  storageInformers.start(signal);
  followProcess();
  keepCompiledCode(clock);
  await Promise.all(parts);
  guard.close();
  await tracing?.close();
  nodeTransport.close();
  storageTransport.close();
  networkTransport.close();
  ingressTransport.close();
}
