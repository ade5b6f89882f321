/**
 * Who serves one part of the cloud-provider interface: follows LoadBalancerProviders and asks, by name of the object, the first that does
 * not answer Unimplemented (upstream's "implemented elsewhere"). Invariant: with no such provider nothing is asked and nothing waits.
 */

import { type CloudPart, cloudPartsOf, type LoadBalancerProvider } from '../../api/loadbalancer/v1beta1.ts';
import { LOAD_BALANCER_PROVIDERS } from '../../client/resources.ts';
import type { Reply, Request } from '../../csi/calls.ts';
import { type CallTable, GRPC, GrpcClient, GrpcError } from '../../csi/grpc.ts';
import type { ReconcileContext } from './controller.ts';

const DEADLINE_MS = 60_000;
/** As the protocol has it: the name that a cluster has to its cloud. */
export const CLOUD_CLUSTER = 'kubernetes';

/** The provider leaves this to somebody else. */
export const isElsewhere = (error: unknown): boolean => error instanceof GrpcError && error.code === GRPC.UNIMPLEMENTED;

export class CloudClients<T extends CallTable> {
  readonly #part: CloudPart;
  readonly #calls: T;
  #clients: readonly GrpcClient<T>[] = [];
  #signal: AbortSignal | undefined;

  constructor(part: CloudPart, calls: T) {
    this.#part = part;
    this.#calls = calls;
  }
  get areAny(): boolean {
    return this.#clients.length > 0;
  }

  /** `changed` is called whenever others are to be asked than before. */
  follow({ informers, signal }: ReconcileContext, changed: () => void): void {
    this.#signal = signal;
    const objects = informers.get<LoadBalancerProvider>(LOAD_BALANCER_PROVIDERS);
    const read = () => {
      const sockets = [...objects.values()]
        .filter(object => cloudPartsOf(object).includes(this.#part))
        .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))
        .map(({ spec }) => spec.socket);
      const wanted = [...new Set(sockets)];
      const before = this.#clients;
      if (wanted.join('\n') === before.map(({ socket }) => socket).join('\n')) return;
      this.#clients = wanted.map(
        path => before.find(({ socket }) => socket === path) ?? new GrpcClient(path, this.#calls),
      );
      for (const old of before) if (!this.#clients.includes(old)) old.close();
      changed();
    };
    void objects.synced.then(() => {
      read();
      objects.onChange(read);
    });
  }

  /** Undefined when there is nobody, or nobody serves it. */
  async ask<N extends keyof T & string>(name: N, request: Partial<Request<T[N]>>): Promise<Reply<T[N]> | undefined> {
    for (const client of this.#clients)
      try {
        return await client.call(name, request, { signal: this.#signal!, deadlineMs: DEADLINE_MS });
      } catch (error) {
        if (!isElsewhere(error)) throw error;
      }
    return undefined;
  }
}
