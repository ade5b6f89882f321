/** How long operations on volumes and calls of CSI drivers take, by upstream's names. */

import type { Clock } from '../../base/clock.ts';
import { metrics } from '../../base/metrics.ts';
import type { CALLS, Reply, Request } from '../../csi/calls.ts';
import { type CallOptions, codeName, GrpcClient, GrpcError } from '../../csi/grpc.ts';

const SECONDS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600];
const operations = metrics.histogram('storage_operation_duration_seconds', 'Storage operation duration', SECONDS, [
  'volume_plugin',
  'operation_name',
  'status',
  'migrated',
]);
const calls = metrics.histogram(
  'csi_operations_seconds',
  'Container Storage Interface operation duration with gRPC error code status total',
  SECONDS,
  ['driver_name', 'method_name', 'grpc_status_code', 'migrated'],
);

export interface StorageOperation {
  readonly name: 'volume_mount' | 'volume_unmount' | 'map_volume' | 'unmap_volume';
  /** The plugin's folder, `kubernetes.io~csi`. */
  readonly folder: string;
  /** Of a CSI volume. */
  readonly driver?: string | undefined;
  /** An in-tree source that a CSI driver serves. */
  readonly isMigrated?: boolean;
}

export async function timeOperation<T>(
  operation: StorageOperation,
  clock: Clock,
  work: () => Promise<T> | T,
): Promise<T> {
  const { name, folder, driver, isMigrated = false } = operation;
  const plugin = `${folder.replace('~', '/')}${driver ? `:${driver}` : ''}`;
  const startMs = clock.monotonic();
  let status = 'fail-unknown';
  try {
    const result = await work();
    status = 'success';
    return result;
  } finally {
    operations.observe((clock.monotonic() - startMs) / 1000, plugin, name, status, String(isMigrated));
  }
}

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
