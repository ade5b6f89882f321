/**
 * A cloud's load balancers behind a unix socket: the cloud-provider interface of Kubernetes (`cloudprovider.LoadBalancer`) as a gRPC
 * service that any language can serve. Objects travel as their JSON, so that a provider sees every field. The protocol
 * is docs/load-balancer-provider.proto; numbers here are the same.
 */

import type { LoadBalancerIngress, Node, Service } from '../../api/core/v1.gen.ts';
import { type Call, call } from '../../csi/calls.ts';
import { GrpcClient } from '../../csi/grpc.ts';
import { EMPTY } from '../../csi/messages.ts';
import { flag, integer, message, repeated, schema, text } from '../../csi/protobuf.ts';

const DEADLINE_MS = 60_000;

const PORT = schema({ port: integer(1), protocol: text(2), error: text(3) });
const INGRESS = schema({ ip: text(1), hostname: text(2), ipMode: text(3), ports: repeated(message(4, PORT)) });
const STATUS = schema({ ingress: repeated(message(1, INGRESS)) });
const OF_SERVICE = schema({ cluster: text(1), name: text(2), serviceJson: text(3) });
const WITH_NODES = schema({ cluster: text(1), name: text(2), serviceJson: text(3), nodesJson: repeated(text(4)) });
const FOUND = schema({ exists: flag(1), status: message(2, STATUS) });

const PATH = '/coxswain.cloudprovider.v1.LoadBalancer/';

export const PROVIDER_CALLS = {
  getLoadBalancer: call(`${PATH}GetLoadBalancer`, OF_SERVICE, FOUND),
  ensureLoadBalancer: call(`${PATH}EnsureLoadBalancer`, WITH_NODES, STATUS),
  updateLoadBalancer: call(`${PATH}UpdateLoadBalancer`, WITH_NODES, EMPTY),
  ensureLoadBalancerDeleted: call(`${PATH}EnsureLoadBalancerDeleted`, OF_SERVICE, EMPTY),
} satisfies Record<string, Call<object, object>>;

/** Upstream's default: what most clouds accept as a name. */
export function loadBalancerName({ metadata }: Service): string {
  return `a${metadata.uid ?? ''}`.replaceAll('-', '').slice(0, 32);
}

export class Provider {
  readonly socket: string;
  readonly #client: GrpcClient<typeof PROVIDER_CALLS>;
  readonly #cluster: string;
  readonly #signal: AbortSignal;

  constructor({ socket, cluster, signal }: { socket: string; cluster: string; signal: AbortSignal }) {
    this.socket = socket;
    this.#client = new GrpcClient(socket, PROVIDER_CALLS);
    this.#cluster = cluster;
    this.#signal = signal;
  }

  async exists(service: Service): Promise<boolean> {
    return (await this.#client.call('getLoadBalancer', this.#of(service), this.#limits)).exists;
  }
  async ensure(service: Service, nodes: readonly Node[]): Promise<LoadBalancerIngress[]> {
    const { ingress } = await this.#client.call('ensureLoadBalancer', this.#with(service, nodes), this.#limits);
    return ingress.map(({ ip, hostname, ipMode, ports = [] }) => {
      const told = ports.map(({ port = 0, protocol = '', error }) => ({ port, protocol, ...(error ? { error } : {}) }));
      return {
        ...(ip ? { ip, ipMode: ipMode || 'VIP' } : {}),
        ...(hostname ? { hostname } : {}),
        ...(told.length > 0 ? { ports: told } : {}),
      };
    });
  }
  async update(service: Service, nodes: readonly Node[]): Promise<void> {
    await this.#client.call('updateLoadBalancer', this.#with(service, nodes), this.#limits);
  }
  async ensureDeleted(service: Service): Promise<void> {
    await this.#client.call('ensureLoadBalancerDeleted', this.#of(service), this.#limits);
  }
  close(): void {
    this.#client.close();
  }

  get #limits() {
    return { signal: this.#signal, deadlineMs: DEADLINE_MS };
  }
  #of(service: Service) {
    return { cluster: this.#cluster, name: loadBalancerName(service), serviceJson: JSON.stringify(service) };
  }
  #with(service: Service, nodes: readonly Node[]) {
    return { ...this.#of(service), nodesJson: nodes.map(node => JSON.stringify(node)) };
  }
}
