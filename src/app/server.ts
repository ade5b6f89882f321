/**
 * The server process: API server, controllers and scheduler over one store, and the sockets that lead in from 127.0.0.1.
 * It runs inside the segment's network namespace and holds a descriptor of the machine's.
 */

import type { Socket } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { checkAuthorities } from '../apiserver/authn/request-header.ts';
import type { Pki } from '../apiserver/certificates/pki.ts';
import { loadServerSettings, type ServerSettings } from '../apiserver/configuration/server-settings.ts';
import { holdIdentity } from '../apiserver/identity-lease.ts';
import { LOOPBACK_USER } from '../apiserver/request.ts';
import { createSecurity } from '../apiserver/security.ts';
import { ApiServer } from '../apiserver/server.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { issuerOf } from '../base/cluster-defaults.ts';
import { messageOf } from '../base/errors.ts';
import { createLogger, type Logger } from '../base/log.ts';
import { followProcess } from '../base/process-metrics.ts';
import { systemRandom } from '../base/random.ts';
import { ApiEventRecorder } from '../client/event-recorder.ts';
import { HttpsTransport } from '../client/https-transport.ts';
import { InformerFactory } from '../client/informer.ts';
import type { Transport } from '../client/transport.ts';
import { startControllers } from '../controllers/start.ts';
import { GatewayController } from '../ingress/gateway/gateway-controller.ts';
import { IngressController } from '../ingress/ingress-controller.ts';
import { SegmentRoutes } from '../network/segment-routes.ts';
import { startScheduler } from '../scheduler/scheduler.ts';
import { LmdbStore } from '../store/lmdb.ts';
import type { Store } from '../store/store.ts';
import { connectTcp, listenTcp } from '../sys/socket.ts';
import { ensureAddons } from './addons.ts';
import { ensureApiVirtualAddress } from './api-virtual-address.ts';
import type { ClusterRanges } from './cluster-ranges.ts';
import { keepCompiledCode } from './compile-cache.ts';
import { componentPorts } from './component-ports.ts';
import { Gateway } from './gateway.ts';
import { adminCredentials, openPki } from './pki.ts';
import { ensureIngressPrerequisites } from './prerequisites.ts';
import { keepRelay } from './registry-relay.ts';
import { relayStart } from './relay-start.ts';
import { ensureStorageDefinitions } from './storage-definitions.ts';
import { apiServerTracing } from './tracing/components.ts';

export interface ServerConfig {
  readonly cluster: string;
  readonly stateDir: string;
  readonly runDir: string;
  readonly apiPort: number;
  /** Descriptor of the machine's network namespace, where the sockets on 127.0.0.1 are made. */
  readonly machineNetnsFd: number;
  /** Where nodes and pods reach the API server; the first is the one that the Service `kubernetes` leads to. */
  readonly addresses: readonly string[];
  readonly port: number;
  readonly ranges: ClusterRanges;
  readonly nodePortRange: { readonly first: number; readonly last: number };
  /** The first address pool of the cluster. */
  readonly loadBalancerAddresses: readonly string[];
  readonly clusterDomain: string;
  readonly clusterDns: string;
  /** Where nodes announce the API server too. */
  readonly virtualAddress?: string;
  /** Options of kube-apiserver, `NAME=VALUE`. */
  readonly arguments: readonly string[];
}

/** Without anybody who asks, as when a supervisor starts the server again. */
const TOLD_READY_MS_MAX = 100;

export async function runServer(config: ServerConfig): Promise<void> {
  const log = createLogger('server');
  log.info('starting', { cluster: config.cluster });
  const clock = systemClock;
  const random = systemRandom;
  const stop = new AbortController();
  process.once('SIGTERM', () => stop.abort()).once('SIGINT', () => stop.abort());
  process.on('unhandledRejection', error =>
    log.error('unhandled rejection', { error: error instanceof Error ? error : messageOf(error) }),
  );

  const { addresses, port, ranges } = config;
  const virtual = config.virtualAddress === undefined ? [] : [config.virtualAddress];
  const pki = await openPki(config.stateDir, { addresses: [...addresses, ...virtual], ranges });
  const settings = await loadServerSettings(config.arguments, issuerOf(config.clusterDomain));
  const [store, frontProxy] = await Promise.all([
    openStore(join(config.stateDir, 'store'), settings, { clock, log, signal: stop.signal }),
    pki.ensureFrontProxy(),
  ]);
  const frontProxyCa = settings.requestHeaderCa ?? frontProxy.ca;
  checkAuthorities(settings.requestHeader, { users: pki.ca, proxies: frontProxyCa });
  const late: { server?: ApiServer } = {};
  const security = createSecurity({
    reader: () => late.server!.reader,
    transport: () => late.server!.transport(LOOPBACK_USER),
    pki,
    serviceCidrs: ranges.serviceCidrs,
    nodePortRange: config.nodePortRange,
    clusterDomain: config.clusterDomain,
    advertise: { address: addresses[0]!, port },
    settings,
    // What listens on the machine's own loopback is not in the segment, where this process lives.
    dial: { controlplane: ({ host, port: at }) => dialMachine(config.machineNetnsFd, host, at) },
    clock,
    random,
    log,
  });
  const tracing = await apiServerTracing(settings.tracing, {
    dial: place => dialMachine(config.machineNetnsFd, place.host, place.port),
    clock,
    random,
    log,
  });
  const server = await ApiServer.open({ store, ...security, tracer: tracing?.tracer, log, clock, random });
  late.server = server;
  if (isEncrypted(store)) server.addCheck({ name: 'kms-providers', check: () => store.problem() });
  const transport = server.transport(LOOPBACK_USER);
  await security.bootstrap();
  await Promise.all([
    ensureAddons(transport, config),
    ensureApiVirtualAddress(transport, { address: config.virtualAddress, servers: addresses, port }),
  ]);

  const tls = {
    key: pki.server.key,
    cert: pki.server.certificate,
    ca: pki.ca,
    frontProxyCa,
  };
  const fd = listenTcp({ namespace: config.machineNetnsFd, address: '127.0.0.1', port: config.apiPort });
  await Promise.all([server.listen({ fd }, tls), ...addresses.map(host => server.listen({ host, port }, tls))]);
  log.info('serving', { port: config.apiPort, addresses: addresses.join(',') });
  // What starts now keeps this thread for a while: whoever has waited for the server hears first that it is there.
  await Promise.race([server.toldReady(), clock.sleep(TOLD_READY_MS_MAX, stop.signal)]);
  void security.follow(stop.signal);
  void security.settle().catch(error => log.error('APIServices could not be written', { error: messageOf(error) }));

  const informers = new InformerFactory({ transport, log });
  informers.start(stop.signal);
  const controllers = startControllers({
    transport: server.transport(LOOPBACK_USER, 'kube-controller-manager'),
    informers,
    log,
    clock,
    random,
    signal: stop.signal,
    caPem: pki.ca,
    clusterCidrs: ranges.podCidrs,
    nodeCidrMaskSizes: ranges.nodeMaskSizes,
    loadBalancerAddresses: config.loadBalancerAddresses,
    extensions: await ownExtensions(pki, { host: addresses[0]!, port }),
    extensionResources: () => security.aggregator.deletable(),
    serves: of => server.table.of(of) !== undefined,
    authority: {
      sign: grant => pki.sign(grant),
      // Of external signers nobody asks for tokens that never end.
      ...(settings.serviceAccounts?.signingEndpoint ? {} : { legacyToken: of => security.tokens.issueLegacy(of) }),
    },
  });
  const scheduler = startScheduler({
    transport: server.transport(LOOPBACK_USER, 'kube-scheduler'),
    informers,
    log,
    clock,
    random,
    signal: stop.signal,
  });
  const schedulerProblem = untilReady(scheduler.ready);
  const controllersProblem = untilReady(controllers.ready);
  server.addComponent({ name: 'scheduler', check: schedulerProblem });
  server.addComponent({ name: 'controller-manager', check: controllersProblem });
  const ports = componentPorts({
    scheduler: { problem: schedulerProblem, podResources: () => scheduler.podResources() },
    controllers: { problem: controllersProblem },
    ranges,
    clock,
  });
  for (const { port: own, pages } of ports)
    for (const host of addresses)
      void server
        .listenFor(pages, { host, port: own }, tls)
        .catch(error => log.error('port cannot be opened', { host, port: own, error: messageOf(error) }));
  const ingressTransport = server.transport(LOOPBACK_USER, 'ingress-controller');
  const ingress = new IngressController({
    transport: ingressTransport,
    informers,
    events: new ApiEventRecorder({ transport: ingressTransport, component: 'ingress-controller', log, clock }),
    prepare: () => ensureIngressPrerequisites({ machineNetnsFd: config.machineNetnsFd }),
    log,
    clock,
  }).run(stop.signal);
  const gatewayTransport = server.transport(LOOPBACK_USER, 'gateway-controller');
  const gateways = new GatewayController({
    transport: gatewayTransport,
    informers,
    events: new ApiEventRecorder({ transport: gatewayTransport, component: 'gateway-controller', log, clock }),
    prepare: () => ensureIngressPrerequisites({ machineNetnsFd: config.machineNetnsFd }),
    log,
    clock,
  }).run(stop.signal);
  followProcess();
  keepCompiledCode(clock);
  void ensureStorageDefinitions(transport, { clock, log, signal: stop.signal });
  const gateway = new Gateway({
    informers,
    relay: { start: relayStart(config.machineNetnsFd), folder: join(config.runDir, 'relay') },
    events: new ApiEventRecorder({ transport, component: 'coxswain-gateway', log, clock }),
    log,
  }).run(stop.signal);
  const relay = keepRelay({
    imageDir: join(config.stateDir, 'images'),
    runDir: config.runDir,
    machineNetnsFd: config.machineNetnsFd,
    log,
    clock,
    signal: stop.signal,
  });
  const routes = new SegmentRoutes({ informers, log, clock }).run(stop.signal);
  const identity = holdIdentity({ transport, hostname: hostname(), log, clock }, stop.signal);
  await new Promise<void>(resolve => stop.signal.addEventListener('abort', () => resolve(), { once: true }));
  await Promise.all([gateway, ingress, gateways, routes, relay, identity]);
  await server.close();
  await tracing?.close();
  await store.close();
}

const isEncrypted = (store: Store): store is Store & { problem(): string | undefined } => 'problem' in store;

/** The store on disk, behind encryption where the settings want it. */
async function openStore(
  path: string,
  { encryption }: ServerSettings,
  options: { readonly clock: Clock; readonly log: Logger; readonly signal: AbortSignal },
): Promise<Store> {
  const inner = await LmdbStore.open(path);
  if (!encryption) return inner;
  const { openEncrypted } = await import('../apiserver/encryption/encryption.ts');
  return openEncrypted(inner, encryption, options);
}

function untilReady(ready: Promise<unknown>): () => string | undefined {
  let problem: string | undefined = 'it has not read the cluster yet';
  void ready.then(() => {
    problem = undefined;
  });
  return () => problem;
}

/** Extension APIs, our own metrics among them, are only reached over HTTPS. Nothing is dialled before somebody asks. */
async function ownExtensions(pki: Pki, { host, port }: { host: string; port: number }): Promise<Transport> {
  const { key, certificate: cert } = await adminCredentials(pki);
  const server = `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
  return new HttpsTransport({ server, ca: pki.ca, key, cert, userAgent: 'kube-controller-manager' });
}

function dialMachine(namespace: number, host: string, port: number): Socket | undefined {
  const address = host === 'localhost' ? '127.0.0.1' : host;
  return /^127\.|^::1$/.test(address) ? connectTcp({ namespace, address, port }) : undefined;
}
