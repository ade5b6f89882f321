/**
 * A gateways' data plane with everything real but the cluster: the agent's gateways and its HAProxy on 127.0.0.1, over an API in memory. What
 * the controller would do, the Service with its target ports, is put there by hand.
 */

import { once } from 'node:events';
import { createServer } from 'node:net';
import { type Gateway, GROUP, type Listener, type Route } from '../../src/api/gateway/v1.ts';
import type { KubeObject } from '../../src/api/meta.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { InformerFactory } from '../../src/client/informer.ts';
import {
  BACKEND_TLS_POLICIES,
  GATEWAY_CLASSES,
  GATEWAYS,
  GRPC_ROUTES,
  HTTP_ROUTES,
  NAMESPACES,
  REFERENCE_GRANTS,
  SERVICES,
  TCP_ROUTES,
  TLS_ROUTES,
} from '../../src/client/resources.ts';
import { GatewayAgent } from '../../src/ingress/gateway/gateway-agent.ts';
import { serviceName } from '../../src/ingress/gateway/gateway-service.ts';
import { IngressBed } from './ingress-bed.ts';

const log = createLogger('test', { level: process.env['COX_LOG'] ? 'debug' : 'error' });
const RESOURCES = {
  HTTPRoute: HTTP_ROUTES,
  GRPCRoute: GRPC_ROUTES,
  TLSRoute: TLS_ROUTES,
  TCPRoute: TCP_ROUTES,
  ReferenceGrant: REFERENCE_GRANTS,
  BackendTLSPolicy: BACKEND_TLS_POLICIES,
} as const;

const [FIRST, LAST] = [11_000, 11_999];

/** Ports of the range for gateways that nobody has: HAProxies of two runs on one machine would share a port, and its connections. */
export async function freePorts(count: number): Promise<number[]> {
  const free: number[] = [];
  const size = LAST - FIRST + 1;
  const first = (process.pid * 37) % size;
  for (let i = 0; i < size && free.length < count; i++) {
    const port = FIRST + ((first + i) % size);
    const server = createServer().listen(port, '127.0.0.1');
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    server.close();
    if (isFree) free.push(port);
  }
  return free;
}

export class GatewayBed extends IngressBed {
  override readonly folderName = 'gateway';
  #ages = 0;
  #generations = 0;

  override async start(): Promise<void> {
    this.api.put(GATEWAY_CLASSES, this.#object('GatewayClass', 'coxswain', { controllerName: 'coxswain.dev/gateway' }));
    for (const name of ['default', 'other'])
      this.api.put(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels: { name } } });
    await super.start();
  }
  override async run(signal: AbortSignal): Promise<void> {
    const informers = new InformerFactory({ transport: this.api, log });
    const agent = new GatewayAgent({
      nodeName: 'node-1',
      nodeIps: ['127.0.0.1'],
      runDir: this.folder,
      accessLog: this.accessLog,
      transport: this.api,
      informers,
      gatewayInformers: informers,
      nodeTransport: this.api,
      bindAddress: '127.0.0.1',
      log,
      clock: systemClock,
    });
    informers.start(signal);
    await agent.run(signal);
  }

  /** `target` ports must be of the range for gateways. */
  putGateway(
    name: string,
    listeners: readonly (Listener & { readonly target: number })[],
    more: Partial<Gateway['spec']> = {},
  ): void {
    const gateway = this.#object('Gateway', name, {
      ...more,
      gatewayClassName: 'coxswain',
      listeners: listeners.map(({ target: _, ...listener }) => listener),
    });
    const targets = new Map(listeners.map(({ port, target }) => [port, target]));
    this.api.put(SERVICES, {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: serviceName(gateway as never), namespace: 'default' },
      spec: {
        ports: [...targets].map(([port, targetPort]) => ({ name: `tcp-${port}`, port, targetPort, protocol: 'TCP' })),
      },
    } as KubeObject);
    this.api.put(GATEWAYS, gateway);
  }
  put(kind: keyof typeof RESOURCES, name: string, spec: object, namespace = 'default'): void {
    this.api.put(RESOURCES[kind], this.#object(kind, name, spec, namespace));
  }
  remove(kind: keyof typeof RESOURCES, name: string): void {
    this.api.remove(RESOURCES[kind], `default/${name}`);
  }
  #object(kind: string, name: string, spec: object, namespace = 'default'): KubeObject & Pick<Route, 'spec'> {
    return {
      apiVersion: `${GROUP}/v1`,
      kind,
      metadata: {
        name,
        namespace,
        uid: `${namespace}/${name}`,
        generation: ++this.#generations,
        creationTimestamp: new Date(Date.UTC(2026, 0, 1) + 1000 * ++this.#ages).toISOString(),
      },
      spec,
    };
  }
}
