/** The ingress data plane of one node: what Ingresses come to there, and the HAProxy that serves it. */

import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { InformerFactory } from '../client/informer.ts';
import type { Transport } from '../client/transport.ts';
import { type IngressFront, ingressDesired } from './haproxy/desired-state.ts';
import { type DataPlaneSource, NodeDataPlane, type Plan } from './haproxy/node-data-plane.ts';
import { DATA_PLANE_ANNOTATION, HTTP_PORT, HTTPS_PORT } from './ingress-service.ts';
import { IngressSource } from './ingress-source.ts';
import { ServiceEndpoints } from './service-endpoints.ts';

export interface IngressAgentOptions {
  readonly nodeName: string;
  readonly nodeIps: readonly string[];
  /** HAProxy lives in `runDir/ingress`. */
  readonly runDir: string;
  /** A line of JSON for each request; beside it `.1`, the one before. */
  readonly accessLog: string;
  /** Acts as system:coxswain:ingress: reads Ingresses and Secrets. */
  readonly transport: Transport;
  /** Services, slices and nodes, shared with the node's proxy. */
  readonly informers: InformerFactory;
  /** Of `transport`. */
  readonly ingressInformers: InformerFactory;
  /** May patch this node. */
  readonly nodeTransport: Transport;
  readonly guard?: { keep(): void };
  readonly nameservers: readonly string[];
  readonly defaultCertificate: string;
  /** Default: every address of the node. */
  readonly bindAddress?: string;
  readonly httpPort?: number;
  readonly httpsPort?: number;
  readonly log: Logger;
  readonly clock: Clock;
}

export class IngressAgent implements DataPlaneSource {
  readonly #source: IngressSource;
  readonly #front: IngressFront;
  readonly #endpoints: ServiceEndpoints;
  readonly #plane: NodeDataPlane;

  constructor(options: IngressAgentOptions) {
    const { transport, ingressInformers, informers, nodeIps, bindAddress, nameservers, defaultCertificate } = options;
    const { httpPort = HTTP_PORT, httpsPort = HTTPS_PORT, log } = options;
    this.#source = new IngressSource({ transport, informers: ingressInformers, log: log.with({ part: 'ingress' }) });
    this.#front = {
      httpPort,
      httpsPort,
      bindAddress: bindAddress ?? anyAddress(nodeIps),
      nameservers,
      defaultCertificate,
      features: new Set(),
    };
    const endpoints = new ServiceEndpoints(informers);
    this.#endpoints = endpoints;
    this.#plane = new NodeDataPlane({
      ...options,
      name: 'ingress',
      source: this,
      endpoints,
      annotation: DATA_PLANE_ANNOTATION,
    });
  }

  /** Until the signal aborts. HAProxy goes on afterwards. */
  run(signal: AbortSignal): Promise<void> {
    return this.#plane.run(signal);
  }
  onChange(handler: () => void): void {
    this.#source.onChange(handler);
    // Where an ExternalName leads is part of the configuration.
    this.#endpoints.onExternal(handler);
  }
  start(signal: AbortSignal): void {
    this.#source.start(signal);
  }

  plan(): Plan | 'nothing' | undefined {
    const ours = this.#source.ours();
    if (!ours) return undefined;
    if (ours.length === 0) return 'nothing';
    const state = this.#source.state();
    if (!state) return undefined;
    const { routes } = state.table;
    const services = new Map(
      [...routes.values()].flatMap(({ id, service, settings }) =>
        service && !settings.isClosed ? [[id, service] as const] : [],
      ),
    );
    return {
      services,
      announcement: `${this.#front.httpPort}/${this.#front.httpsPort}`,
      desired: servers =>
        ingressDesired({ ...state, externalOf: service => this.#endpoints.of(service).external }, this.#front, servers),
      labels: id => {
        const route = routes.get(id);
        if (!route) return undefined;
        const [namespace, name] = route.ingress.split('/') as [string, string];
        const { service, content } = route;
        const to = service ? `${service.name}:${service.port ?? ''}` : (content?.name ?? '');
        return { namespace, name, service: to };
      },
    };
  }
}

export function anyAddress(nodeIps: readonly string[]): string {
  return nodeIps.some(address => address.includes(':')) ? '::' : '';
}
