/** The gateways' data plane of one node: what Gateways and routes come to there, and the HAProxy that serves it. */

import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { InformerFactory } from '../../client/informer.ts';
import type { Transport } from '../../client/transport.ts';
import { type DataPlaneSource, NodeDataPlane, type Plan } from '../haproxy/node-data-plane.ts';
import { anyAddress } from '../ingress-agent.ts';
import { ServiceEndpoints } from '../service-endpoints.ts';
import { backendsOf, gatewayDesired } from './gateway-desired.ts';
import { DATA_PLANE_ANNOTATION } from './gateway-service.ts';
import { GatewaySource } from './gateway-source.ts';

export interface GatewayAgentOptions {
  readonly nodeName: string;
  readonly nodeIps: readonly string[];
  /** HAProxy lives in `runDir/gateway`. */
  readonly runDir: string;
  /** A line of JSON for each request or connection; beside it `.1`, the one before. */
  readonly accessLog: string;
  /** Acts as system:coxswain:ingress: reads Gateways, routes and Secrets. */
  readonly transport: Transport;
  /** Of `transport`. */
  readonly gatewayInformers: InformerFactory;
  /** Services, slices and nodes, shared with the node's proxy. */
  readonly informers: InformerFactory;
  /** May patch this node. */
  readonly nodeTransport: Transport;
  readonly guard?: { keep(): void };
  /** Default: every address of the node. */
  readonly bindAddress?: string;
  readonly log: Logger;
  readonly clock: Clock;
}

export class GatewayAgent implements DataPlaneSource {
  readonly #source: GatewaySource;
  readonly #bindAddress: string;
  readonly #plane: NodeDataPlane;

  constructor(options: GatewayAgentOptions) {
    const { transport, gatewayInformers, informers, nodeIps, bindAddress, log } = options;
    this.#bindAddress = bindAddress ?? anyAddress(nodeIps);
    this.#source = new GatewaySource({
      transport,
      informers: gatewayInformers,
      serviceInformers: informers,
      log: log.with({ part: 'gateway' }),
    });
    this.#plane = new NodeDataPlane({
      ...options,
      name: 'gateway',
      source: this,
      endpoints: new ServiceEndpoints(informers),
      annotation: DATA_PLANE_ANNOTATION,
    });
  }

  /** Until the signal aborts. HAProxy goes on afterwards. */
  run(signal: AbortSignal): Promise<void> {
    return this.#plane.run(signal);
  }
  onChange(handler: () => void): void {
    this.#source.onChange(handler);
  }
  start(signal: AbortSignal): void {
    this.#source.start(signal);
  }

  plan(): Plan | 'nothing' | undefined {
    const state = this.#source.state();
    if (!state) return undefined;
    const { frontends, caFiles } = state;
    if (frontends.length === 0) return 'nothing';
    const backends = backendsOf(frontends);
    return {
      services: new Map([...backends].flatMap(([id, { service }]) => (service ? [[id, service] as const] : []))),
      announcement: frontends.map(({ targetPort }) => targetPort).join(','),
      desired: servers => gatewayDesired({ frontends, caFiles, bindAddress: this.#bindAddress }, servers),
      labels: id => {
        const backend = backends.get(id);
        if (!backend) return undefined;
        const [namespace, name] = backend.route.split('/') as [string, string];
        const { service } = backend;
        return { namespace, name, service: service ? `${service.name}:${service.port}` : '' };
      },
    };
  }
}
