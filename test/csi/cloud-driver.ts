/**
 * A cloud for tests: one node's part of a CSI driver under any name, whose disks are files behind loop devices, with the sidecars that
 * such a driver brings along. Run inside a node's namespaces, one process a node; one of them is also the cloud's controller.
 *
 *   node26 test/csi/cloud-driver.ts '[{"driver":"ebs.csi.aws.com", …}, …]'
 */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { Client } from '../../src/client/client.ts';
import { ApiEventRecorder } from '../../src/client/event-recorder.ts';
import { HttpsTransport } from '../../src/client/https-transport.ts';
import { InformerFactory } from '../../src/client/informer.ts';
import { GrpcClient, serveGrpc } from '../../src/csi/grpc.ts';
import { attacher } from '../../src/localdriver/attacher.ts';
import { createDriver } from '../../src/localdriver/driver.ts';
import { provisioner } from '../../src/localdriver/provisioner.ts';
import { resizer } from '../../src/localdriver/resizer.ts';
import { runSidecar, type SidecarContext } from '../../src/localdriver/work.ts';

export interface CloudOptions {
  readonly driver: string;
  readonly node: string;
  readonly topology: Readonly<Record<string, string>>;
  /** The kubelet's folder on this node. */
  readonly rootDir: string;
  /** The cloud's disks, the same for all nodes. */
  readonly folder: string;
  readonly isController: boolean;
  readonly volumesMax?: number;
  readonly server: string;
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

const log = createLogger('cloud', { level: 'info' });
const clock = systemClock;
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());

async function serve(options: CloudOptions): Promise<void> {
  const { driver: name, node, rootDir, server, ca, cert, key } = options;
  const home = join(rootDir, 'plugins', name);
  mkdirSync(home, { recursive: true });
  mkdirSync(join(rootDir, 'plugins_registry'), { recursive: true });
  const socket = join(home, 'csi.sock');
  const handlers = createDriver({
    name,
    version: 'test',
    nodeName: node,
    nodeId: `i-${node}`,
    topology: options.topology,
    folder: options.folder,
    attaches: true,
    clock,
    ...(options.volumesMax ? { volumesMax: options.volumesMax } : {}),
  });
  await serveGrpc(socket, handlers);
  if (options.isController) {
    const transport = new HttpsTransport({ server, ca, cert, key, userAgent: 'cloud-driver' });
    const informers = new InformerFactory({ transport, log });
    const context: SidecarContext = {
      driver: name,
      csi: new GrpcClient(socket),
      client: new Client(transport),
      informers,
      events: new ApiEventRecorder({ transport, component: name, log, clock }),
      clock,
      log,
    };
    void runSidecar('attacher', context, attacher(context), stop.signal);
    void runSidecar('provisioner', context, provisioner(context), stop.signal);
    void runSidecar('resizer', context, resizer(context), stop.signal);
    informers.start(stop.signal);
  }
  await serveGrpc(join(rootDir, 'plugins_registry', `${name}-reg.sock`), {
    registrationInfo: () => ({ type: 'CSIPlugin', name, endpoint: socket, supportedVersions: ['1.0.0'] }),
    registrationStatus: ({ pluginRegistered, error }) => {
      console.log(pluginRegistered ? 'registered' : `not registered: ${error}`);
      return {};
    },
  });
}

for (const options of JSON.parse(process.argv[2]!) as CloudOptions[]) await serve(options);
console.log('serving');
await new Promise<void>(resolve => stop.signal.addEventListener('abort', () => resolve()));
process.exit(0);
