/**
 * The container runtimes of a node whose default one is containerd: Debian's, one process a node, and beside it ours, crun under conmon,
 * for pods whose RuntimeClass names it.
 */

import { join } from 'node:path';
import type { RuntimeParts } from '../kubelet/kubelet.ts';
import { ConmonRuntime } from '../kubelet/runtime/conmon-runtime.ts';
import { CONTAINERD_SOCKET, Containerd, ociHandlers } from '../kubelet/runtime/cri/containerd.ts';
import { CriRuntime } from '../kubelet/runtime/cri/cri-runtime.ts';
import { HandlerRuntimes } from '../kubelet/runtime/handlers.ts';
import type { Runtime } from '../kubelet/runtime.ts';

/** The node has a mount namespace of its own. */
export async function containerdNode(parts: RuntimeParts): Promise<Runtime> {
  const { rootDir, runDir, images, network, tracer, log, clock, signal } = parts;
  const handlers = ociHandlers();
  const containerd = new Containerd({
    rootDir: join(rootDir, 'containerd'),
    runDir: join(runDir, 'containerd'),
    logFile: `${runDir}-containerd.log`,
    handlers,
    clock,
    log,
  });
  // Made first: what it mounts for its run folder would hide what others put there.
  const own = new ConmonRuntime({ ...parts, handlers: ['cox'] });
  containerd.prepare();
  void containerd.run(signal);
  const cri = await CriRuntime.open(
    {
      socket: CONTAINERD_SOCKET,
      folder: join(rootDir, 'cri'),
      images,
      door: { requests: containerd.cni.requests, network },
      handlers: ['', ...handlers.map(({ name }) => name)],
      tracer,
      log,
      clock,
    },
    signal,
  );
  return new HandlerRuntimes([cri, own]);
}
