/**
 * Parts of a node run by themselves against any Kubernetes API server, in place of kube-proxy or CoreDNS: they know it by a
 * kubeconfig and plain HTTPS only. They end in good order on SIGTERM; what the proxy has programmed stays, as kube-proxy's does.
 */

import { hostname } from 'node:os';
import type { Node } from '../api/core/v1.gen.ts';
import { systemClock } from '../base/clock.ts';
import { failure, isReason, messageOf } from '../base/errors.ts';
import { createLogger, type Logger } from '../base/log.ts';
import type { Tracer } from '../base/tracing/span.ts';
import { transportOfSlices } from '../client/endpoint-slices.ts';
import { ApiEventRecorder } from '../client/event-recorder.ts';
import type { HttpsTransport } from '../client/https-transport.ts';
import { InformerFactory } from '../client/informer.ts';
import { NODES } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { ClusterDns } from '../dns/cluster-dns.ts';
import { HealthServer } from '../proxy/health-server.ts';
import { NftablesBackend } from '../proxy/nftables/nftables-backend.ts';
import { familyName } from '../proxy/proxy-metrics.ts';
import { ServiceProxy } from '../proxy/service-proxy.ts';
import { proxyPages } from './component-pages.ts';
import { connectByKubeconfig } from './kubeconfig-transport.ts';
import { untilAccepting } from './port-probe.ts';

const SERVER_WAIT_MS_MAX = 10_000;
const RETRY_MS = 2000;

export interface StandaloneOptions {
  readonly kubeconfig: string;
  readonly context?: string;
}

/** Runs the work until SIGTERM or SIGINT; whatever way it ends, nothing it started goes on. */
export async function untilEnded(
  options: StandaloneOptions & {
    readonly userAgent: string;
    readonly part: string;
    readonly readsSlices?: true;
    readonly tracer?: Tracer;
  },
  work: (context: {
    readonly transport: HttpsTransport;
    readonly informers: InformerFactory;
    /** PEM of the server's authority, where the kubeconfig names one. */
    readonly ca: string | undefined;
    readonly log: Logger;
    readonly signal: AbortSignal;
  }) => Promise<void>,
): Promise<void> {
  const log = createLogger(options.part);
  const { transport, server, ca } = await connectByKubeconfig(options.kubeconfig, options);
  const stop = new AbortController();
  process.once('SIGTERM', () => stop.abort()).once('SIGINT', () => stop.abort());
  log.info('starting', { server });
  try {
    let read: Transport = transport;
    // A kubelet does not wait: pods of the node's own start without a server.
    if (options.readsSlices) {
      await untilAccepting(server, { atMostMs: SERVER_WAIT_MS_MAX, signal: stop.signal });
      read = await transportOfSlices(transport);
    }
    await work({ transport, informers: new InformerFactory({ transport: read, log }), ca, log, signal: stop.signal });
  } finally {
    stop.abort();
    transport.close();
  }
}

export interface StandaloneProxyOptions extends StandaloneOptions {
  /** The Node's name; default this machine's host name. */
  readonly nodeName?: string;
  /** Ranges in which node ports answer, or `primary`. */
  readonly nodePortAddresses?: readonly string[];
  /** Ranges of pods; default those of the Node. */
  readonly clusterCidrs?: readonly string[];
}

export function runProxy(options: StandaloneProxyOptions): Promise<void> {
  const shared = { ...options, part: 'proxy', userAgent: 'kube-proxy/v1.36.0 cox', readsSlices: true } as const;
  return untilEnded(shared, async ({ transport, informers, log, signal }) => {
    const clock = systemClock;
    const nodeName = (options.nodeName ?? hostname()).toLowerCase();
    const node = await nodeNamed(transport, nodeName, log, signal);
    if (!node) return;
    const nodeIps = (node.status?.addresses ?? [])
      .filter(({ type }) => type === 'InternalIP')
      .map(({ address }) => address);
    if (nodeIps.length === 0)
      throw failure(400, 'BadRequest', `node "${nodeName}" has no InternalIP address yet; start its kubelet first`);
    const clusterCidrs = options.clusterCidrs ?? node.spec?.podCIDRs ?? (node.spec?.podCIDR ? [node.spec.podCIDR] : []);
    const families = [...new Set(nodeIps.map(familyName))];
    const proxy = new ServiceProxy({
      informers,
      families,
      nodeName,
      backend: new NftablesBackend({
        nodeIps,
        clusterCidrs,
        ...(options.nodePortAddresses ? { nodePortAddresses: options.nodePortAddresses } : {}),
        log,
      }),
      podRanges: clusterCidrs,
      events: new ApiEventRecorder({ transport, component: 'kube-proxy', host: nodeName, log, clock }),
      log,
      clock,
    });
    const zPages = proxyPages(
      {
        'cluster-cidr': options.clusterCidrs,
        'hostname-override': options.nodeName,
        kubeconfig: options.kubeconfig,
        'nodeport-addresses': options.nodePortAddresses,
      },
      clock,
    );
    const health = new HealthServer({ proxy, families, zPages, log, clock });
    const parts = [proxy.run(signal), health.run(signal)];
    informers.start(signal);
    void proxy.synced.then(() => log.info('services are programmed', { node: nodeName }));
    await Promise.all(parts);
  });
}

/** Waits while the server cannot be asked; undefined when told to end meanwhile. Throws when there is no such node. */
async function nodeNamed(
  transport: Transport,
  name: string,
  log: Logger,
  signal: AbortSignal,
): Promise<Node | undefined> {
  while (!signal.aborted) {
    try {
      return (await transport.get({ of: NODES, name })) as Node;
    } catch (error) {
      if (isReason(error, 'NotFound'))
        throw failure(
          400,
          'BadRequest',
          `node "${name}" not found in the cluster; say which node this is: --hostname-override NODE`,
        );
      if (isReason(error, 'Forbidden', 'Unauthorized')) throw error;
      log.warn('API server cannot be asked, trying again', { error: messageOf(error) });
      await systemClock.sleep(RETRY_MS, signal);
    }
  }
  return undefined;
}

export interface StandaloneDnsOptions extends StandaloneOptions {
  readonly addresses: readonly string[];
  readonly port: number;
  readonly clusterDomain: string;
}

export function runDns(options: StandaloneDnsOptions): Promise<void> {
  const { addresses, port, clusterDomain } = options;
  const shared = { ...options, part: 'dns', userAgent: 'CoreDNS/cox', readsSlices: true } as const;
  return untilEnded(shared, async ({ transport, informers, log, signal }) => {
    const clock = systemClock;
    const dns = new ClusterDns({
      informers,
      events: new ApiEventRecorder({ transport, component: 'coredns', host: hostname(), log, clock }),
      clusterDomain,
      listen: { addresses, port },
      drains: true,
      log,
      clock,
    });
    const running = dns.run(signal).catch(error => {
      throw refusalOf(error, addresses.join(','), port);
    });
    informers.start(signal);
    void dns.server
      .synced()
      .then(() => log.info('the cluster is known', { listening: `${addresses.join(',')}:${port}` }));
    await running;
  });
}

function refusalOf(error: unknown, address: string, port: number): Error {
  const text = messageOf(error);
  if (text.includes('EADDRNOTAVAIL'))
    return failure(
      400,
      'BadRequest',
      `--bind: ${address} is not an address of this machine; give it one: ip address add ${address}/32 dev lo`,
    );
  if (text.includes('EADDRINUSE'))
    return failure(
      400,
      'BadRequest',
      `--bind: port ${port} of ${address} is taken by another program; choose another, such as --bind ${address}:5353`,
    );
  return failure(400, 'BadRequest', `--bind: cannot listen on ${address}:${port}: ${text}`);
}
