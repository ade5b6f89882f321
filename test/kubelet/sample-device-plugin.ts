/**
 * A device plugin for tests, and an example of how one is written: it offers widgets, which are the machine's /dev/null under
 * another name. It makes its socket, registers with the kubelet, and registers again when the kubelet's socket is made anew.
 */

import { rmSync, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import { GrpcClient, type GrpcServer, serveGrpc } from '../../src/csi/grpc.ts';
import { PLUGIN_CALLS, REGISTRATION_CALLS } from '../../src/kubelet/devices/messages.ts';

export class SampleDevicePlugin {
  readonly #folder: string;
  readonly resource: string;
  #devices: ReadonlyMap<string, boolean>;
  #server: GrpcServer | undefined;
  #turn: Promise<void> = Promise.resolve();
  #watcher: ReturnType<typeof watch> | undefined;
  readonly #changed = new Set<() => void>();
  /** Devices of every Allocate and PreStartContainer. */
  readonly allocated: string[][] = [];
  readonly preStarted: string[][] = [];

  constructor(folder: string, resource: string, devices: readonly string[]) {
    this.#folder = folder;
    this.resource = resource;
    this.#devices = new Map(devices.map(id => [id, true]));
  }
  get #endpoint(): string {
    return `${this.resource.replace('/', '-')}.sock`;
  }

  async start(): Promise<void> {
    await this.#serve();
    this.#watcher = watch(this.#folder, { persistent: false }, (_, name) => {
      if (name === 'kubelet.sock' && exists(join(this.#folder, 'kubelet.sock')))
        void this.#again().catch(error => console.error('sample device plugin', error));
    });
  }
  // One after the other: a socket that is made anew is told of more than once.
  #again(): Promise<void> {
    this.#turn = this.#turn.then(() => this.#serve());
    return this.#turn;
  }
  async stop(): Promise<void> {
    this.#watcher?.close();
    await this.#turn.catch(() => {});
    await this.#server?.close();
    rmSync(join(this.#folder, this.#endpoint), { force: true });
  }
  /** Tells the kubelet that a device is well or not. */
  setHealth(id: string, isHealthy: boolean): void {
    this.#devices = new Map([...this.#devices, [id, isHealthy]]);
    for (const wake of this.#changed) wake();
  }

  async #serve(): Promise<void> {
    await this.#server?.close();
    this.#server = await serveGrpc<typeof PLUGIN_CALLS>(
      join(this.#folder, this.#endpoint),
      {
        getDevicePluginOptions: () => OPTIONS,
        listAndWatch: () => this.#list(),
        // The highest numbers first.
        getPreferredAllocation: ({ containerRequests }) => ({
          containerResponses: containerRequests.map(({ availableDeviceIds = [], allocationSize = 0 }) => ({
            deviceIds: [...availableDeviceIds].sort().reverse().slice(0, allocationSize),
          })),
        }),
        allocate: ({ containerRequests }) => ({
          containerResponses: containerRequests.map(({ deviceIds = [] }) => {
            this.allocated.push([...deviceIds]);
            return {
              envs: { WIDGETS: deviceIds.join(',') },
              mounts: [{ hostPath: '/etc/hostname', containerPath: '/etc/widgets', readOnly: true }],
              devices: deviceIds.map(id => ({
                hostPath: '/dev/null',
                containerPath: `/dev/${id}`,
                permissions: 'rw',
              })),
            };
          }),
        }),
        preStartContainer: ({ deviceIds }) => {
          this.preStarted.push([...deviceIds]);
          return {};
        },
      },
      PLUGIN_CALLS,
    );
    const registration = new GrpcClient(join(this.#folder, 'kubelet.sock'), REGISTRATION_CALLS);
    try {
      await registration.call('register', {
        version: 'v1beta1',
        endpoint: this.#endpoint,
        resourceName: this.resource,
        options: OPTIONS,
      });
    } finally {
      registration.close();
    }
  }
  async *#list() {
    for (;;) {
      yield {
        devices: [...this.#devices].map(([id, isHealthy]) => ({ id, health: isHealthy ? 'Healthy' : 'Unhealthy' })),
      };
      await new Promise<void>(resolve => {
        const wake = () => {
          this.#changed.delete(wake);
          resolve();
        };
        this.#changed.add(wake);
      });
    }
  }
}

const OPTIONS = { preStartRequired: true, getPreferredAllocationAvailable: true };

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
