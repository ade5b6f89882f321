/**
 * The pod network where it is the container runtime's own affair: the runtime calls the CNI plugins that it is configured with, and tells
 * the addresses. What is left for the kubelet is to say whether it is ready. Ports of the node go to the runtime with the pod's sandbox, and
 * its plugin `portmap` opens them; nothing of it is done here.
 */

import type { Clock } from '../../../base/clock.ts';
import { failure, messageOf } from '../../../base/errors.ts';
import type { Tracer } from '../../../base/tracing/span.ts';
import { GrpcClient } from '../../../csi/grpc.ts';
import type { PodNetwork } from '../../runtime.ts';
import { CRI_CALLS } from './messages.ts';

const LOOK_MS = 5000;

export class RuntimeNetwork implements PodNetwork {
  readonly #client: GrpcClient<typeof CRI_CALLS>;
  #problem: string | undefined = 'the container runtime has not been asked yet';

  constructor(socket: string, tracer?: Tracer) {
    this.#client = new GrpcClient(socket, CRI_CALLS, tracer);
  }

  /** Looks until the signal aborts. */
  async run(signal: AbortSignal, clock: Clock): Promise<void> {
    while (!signal.aborted) {
      try {
        const { status } = await this.#client.call('status', {}, { signal });
        const bad = (status?.conditions ?? []).find(({ status: isGood }) => !isGood);
        this.#problem = bad && `container runtime ${bad.type}: ${bad.reason} ${bad.message}`.trim();
      } catch (error) {
        this.#problem = `container runtime is down: ${messageOf(error)}`;
      }
      await clock.sleep(LOOK_MS, signal);
    }
    this.#client.close();
  }

  async attach(): Promise<never> {
    throw failure(500, 'InternalError', 'the pod network is the container runtime’s own');
  }
  async detach(): Promise<void> {}
  async retain(): Promise<void> {}
  async publish(): Promise<void> {}
  notReadyReason(): string | undefined {
    return this.#problem;
  }
}
