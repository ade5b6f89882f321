/**
 * `cox-local` on one node: the driver behind its sockets, and the sidecars that serve it (provisioner, resizer, snapshotter, capacity).
 * They run in the agent, but meet the kubelet through the sockets only, as any driver does; nothing of theirs but the files of the
 * disks outlives a restart, and nothing else needs to.
 */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { Client } from '../client/client.ts';
import { ApiEventRecorder } from '../client/event-recorder.ts';
import type { InformerFactory } from '../client/informer.ts';
import type { Transport } from '../client/transport.ts';
import { GrpcClient, serveGrpc } from '../csi/grpc.ts';
import { capacityReporter } from './capacity.ts';
import { createDriver } from './driver.ts';
import { LOCAL_DRIVER, LOCAL_TOPOLOGY_KEY } from './names.ts';
import { provisioner } from './provisioner.ts';
import { resizer } from './resizer.ts';
import { snapshotter } from './snapshotter.ts';
import { runSidecar, type SidecarContext } from './work.ts';

export interface LocalStorageOptions {
  readonly nodeName: string;
  /** The kubelet's folder. */
  readonly rootDir: string;
  /** Where the disks lie. */
  readonly folder: string;
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly clock: Clock;
  readonly log: Logger;
}

export class LocalStorage {
  readonly #options: LocalStorageOptions;
  constructor(options: LocalStorageOptions) {
    this.#options = options;
  }

  /** Until the signal aborts. A node where it cannot run goes on without it, and says so. */
  async run(signal: AbortSignal): Promise<void> {
    const { nodeName, rootDir, folder, transport, informers, clock, log } = this.#options;
    const home = join(rootDir, 'plugins', LOCAL_DRIVER);
    const registry = join(rootDir, 'plugins_registry');
    mkdirSync(home, { recursive: true, mode: 0o750 });
    mkdirSync(registry, { recursive: true, mode: 0o750 });
    const socket = join(home, 'csi.sock');
    const driver = createDriver({
      name: LOCAL_DRIVER,
      version: '1',
      nodeName,
      nodeId: nodeName,
      topology: { [LOCAL_TOPOLOGY_KEY]: nodeName },
      folder,
      attaches: false,
      clock,
    });
    try {
      const servers = [
        await serveGrpc(socket, driver),
        await serveGrpc(join(registry, `${LOCAL_DRIVER}-reg.sock`), {
          registrationInfo: () => ({
            type: 'CSIPlugin',
            name: LOCAL_DRIVER,
            endpoint: socket,
            supportedVersions: ['1.0.0'],
          }),
          registrationStatus: ({ pluginRegistered, error }) => {
            if (!pluginRegistered) log.warn('the kubelet did not register cox-local', { error });
            return {};
          },
        }),
      ];
      const context: SidecarContext = {
        driver: LOCAL_DRIVER,
        csi: new GrpcClient(socket),
        client: new Client(transport),
        informers,
        events: new ApiEventRecorder({
          transport,
          component: `${LOCAL_DRIVER}_${nodeName}`,
          host: nodeName,
          log,
          clock,
        }),
        clock,
        log,
        nodeName,
        isOurs: ({ spec }) =>
          (spec?.nodeAffinity?.required?.nodeSelectorTerms ?? []).some(({ matchExpressions = [] }) =>
            matchExpressions.some(({ key, values }) => key === LOCAL_TOPOLOGY_KEY && values?.includes(nodeName)),
          ),
      };
      await Promise.all([
        runSidecar('provisioner', context, provisioner(context), signal),
        runSidecar('resizer', context, resizer(context), signal),
        runSidecar('snapshotter', context, snapshotter(context), signal),
        capacityReporter(context, { topology: { [LOCAL_TOPOLOGY_KEY]: nodeName } }).run(signal),
      ]);
      for (const server of servers) await server.close();
    } catch (error) {
      log.error('local volumes cannot be made on this node', { error: messageOf(error) });
    }
  }
}
