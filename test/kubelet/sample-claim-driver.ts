/**
 * A driver of dynamic resource allocation for tests, and an example of how one is written: it publishes its devices in a
 * ResourceSlice, registers with the kubelet by a socket in `plugins_registry`, and describes prepared claims as CDI devices.
 */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { KubeObject } from '../../src/api/meta.ts';
import type { ResourceClaim } from '../../src/api/resource/v1.gen.ts';
import { RESOURCE_CLAIMS, RESOURCE_SLICES } from '../../src/client/resources.ts';
import type { Transport } from '../../src/client/transport.ts';
import { CALLS } from '../../src/csi/calls.ts';
import { type GrpcServer, serveGrpc } from '../../src/csi/grpc.ts';
import { DRIVER_CALLS, type DriverCalls } from '../../src/kubelet/devices/claim-messages.ts';

export interface SampleDriverOptions {
  readonly name: string;
  readonly node: string;
  /** The kubelet's. */
  readonly rootDir: string;
  readonly cdiFolder: string;
  /** Of its devices' descriptions. */
  readonly hooks?: readonly object[];
  readonly api: Transport;
  readonly devices: readonly object[];
}

export class SampleClaimDriver {
  readonly #options: SampleDriverOptions;
  #servers: GrpcServer[] = [];
  /** Uids of claims that are prepared. */
  readonly prepared = new Set<string>();
  /** What the next call to prepare fails with. */
  failure: string | undefined;

  /** How its devices are: Healthy (1), Unhealthy (2), with a message; a change is told. */
  readonly #health = new Map<string, { readonly health: number; readonly message: string }>();
  #tell: () => void = () => {};

  constructor(options: SampleDriverOptions) {
    this.#options = options;
  }

  /** By name of a device; what was not said stays as it is. */
  say(device: string, health: 1 | 2, message = ''): void {
    this.#health.set(device, { health, message });
    this.#tell();
  }
  async *#watchHealth() {
    const { node } = this.#options;
    for (;;) {
      const told = new Promise<void>(resolve => {
        this.#tell = resolve;
      });
      yield {
        devices: [...this.#health].map(([deviceName, said]) => ({ device: { poolName: node, deviceName }, ...said })),
      };
      await told;
    }
  }

  async publish(): Promise<void> {
    const { api, name, node, devices } = this.#options;
    await api.create({ of: RESOURCE_SLICES }, {
      apiVersion: 'resource.k8s.io/v1',
      kind: 'ResourceSlice',
      metadata: { name: `${node}-${name}` },
      spec: {
        driver: name,
        nodeName: node,
        pool: { name: node, generation: 1, resourceSliceCount: 1 },
        devices,
      },
    } as KubeObject);
  }

  async start(): Promise<void> {
    const { rootDir, name, api, cdiFolder, hooks = [] } = this.#options;
    const folder = join(rootDir, 'plugins', name);
    mkdirSync(folder, { recursive: true });
    mkdirSync(join(rootDir, 'plugins_registry'), { recursive: true });
    mkdirSync(cdiFolder, { recursive: true });
    const endpoint = join(folder, 'dra.sock');
    const description = (uid: string) => join(cdiFolder, `${name}-${uid}.json`);
    const driver = await serveGrpc<DriverCalls>(
      endpoint,
      {
        prepare: async ({ claims }) => ({
          claims: await Promise.all(
            claims.map(async ({ namespace = '', uid = '', name: claimName = '' }) => {
              if (this.failure) return { key: uid, value: { devices: [], error: this.failure } };
              const { status } = (await api.get({ of: RESOURCE_CLAIMS, namespace, name: claimName })) as ResourceClaim;
              const results = (status?.allocation?.devices?.results ?? []).filter(one => one.driver === name);
              const file = {
                cdiVersion: '0.6.0',
                kind: `${name}/device`,
                devices: results.map(({ device }) => ({
                  name: `${uid}-${device}`,
                  containerEdits: {
                    env: [`DEVICE_${device.toUpperCase()}=given`],
                    deviceNodes: [
                      { path: `/dev/${device}`, hostPath: '/dev/null', permissions: 'rw' },
                      // /dev/zero, which the description names by its numbers alone.
                      {
                        path: `/dev/${device}-own`,
                        type: 'c',
                        major: 1,
                        minor: 5,
                        ...{ fileMode: 0o640, uid: 5, gid: 6 },
                      },
                      { path: `/dev/${device}-pipe`, type: 'p', fileMode: 0o622 },
                    ],
                    additionalGids: [4242],
                    hooks,
                  },
                })),
              };
              writeFileSync(description(uid), JSON.stringify(file));
              this.prepared.add(uid);
              const devices = results.map(({ request, pool, device }) => ({
                requestNames: [request],
                poolName: pool,
                deviceName: device,
                cdiDeviceIds: [`${name}/device=${uid}-${device}`],
              }));
              return { key: uid, value: { devices, error: '' } };
            }),
          ),
        }),
        watchHealth: () => this.#watchHealth(),
        unprepare: ({ claims }) => ({
          claims: claims.map(({ uid = '' }) => {
            rmSync(description(uid), { force: true });
            this.prepared.delete(uid);
            return { key: uid, value: { error: '' } };
          }),
        }),
      },
      DRIVER_CALLS['v1.DRAPlugin'],
    );
    const registration = await serveGrpc(
      join(rootDir, 'plugins_registry', `${name}-reg.sock`),
      {
        registrationInfo: () => ({ type: 'DRAPlugin', name, endpoint, supportedVersions: ['v1.DRAPlugin'] }),
        registrationStatus: () => ({}),
      },
      CALLS,
    );
    this.#servers = [driver, registration];
  }
  async stop(): Promise<void> {
    for (const server of this.#servers) await server.close();
    this.#servers = [];
    rmSync(join(this.#options.rootDir, 'plugins_registry', `${this.#options.name}-reg.sock`), { force: true });
  }
}
