/** How long operations on volumes and calls of CSI drivers take, by upstream's names. */

import type { Clock } from '../../base/clock.ts';
import { metrics } from '../../base/metrics.ts';
import type { CALLS, Reply, Request } from '../../csi/calls.ts';
import { type CallOptions, codeName, GrpcClient, GrpcError } from '../../csi/grpc.ts';
import { countOperation, STORAGE_SECONDS, type StorageOperation } from '../../csi/storage-metrics.ts';

const calls = metrics.histogram(
  'csi_operations_seconds',
  'Container Storage Interface operation duration with gRPC error code status total',
  STORAGE_SECONDS,
  ['driver_name', 'method_name', 'grpc_status_code', 'migrated'],
);

export async function timeOperation<T>(
  operation: StorageOperation,
  clock: Clock,
  work: () => Promise<T> | T,
): Promise<T> {
  const startMs = clock.monotonic();
  let isSuccess = false;
  try {
    const result = await work();
    isSuccess = true;
    return result;
  } finally {
    countOperation(operation, { isSuccess, ms: clock.monotonic() - startMs });
  }
}

/** The name of a plugin whose folder is `kubernetes.io~csi`. */
export const pluginName = (folder: string): string => folder.replace('~', '/');

/** The client of a CSI driver, whose calls are timed. Which volumes are of in-tree sources the calls do not tell. */
export class DriverClient extends GrpcClient {
  readonly #driver: string;
  readonly #clock: Clock;

  constructor(driver: string, socket: string, clock: Clock) {
    super(socket);
    this.#driver = driver;
    this.#clock = clock;
  }
  override async call<N extends keyof typeof CALLS & string>(
    name: N,
    request: Partial<Request<(typeof CALLS)[N]>>,
    options?: CallOptions,
  ): Promise<Reply<(typeof CALLS)[N]>> {
    const startMs = this.#clock.monotonic();
    let code = 'unknown-non-grpc';
    try {
      const reply = await super.call(name, request, options);
      code = 'OK';
      return reply;
    } catch (error) {
      if (error instanceof GrpcError) code = codeName(error.code);
      throw error;
    } finally {
      calls.observe((this.#clock.monotonic() - startMs) / 1000, this.#driver, this.path(name), code, 'false');
    }
  }
}
