/** Tells the scheduler how much room a node's driver has: one CSIStorageCapacity a class and node, current within seconds. */

import { createHash } from 'node:crypto';
import { formatNano } from '../api/machinery/quantity.ts';
import type { CSIStorageCapacity, StorageClass } from '../api/storage/v1.gen.ts';
import { isReason, messageOf } from '../base/errors.ts';
import { CSI_STORAGE_CAPACITIES, PERSISTENT_VOLUMES, STORAGE_CLASSES } from '../client/resources.ts';
import type { SidecarContext } from './work.ts';

const NAMESPACE = 'kube-system';
const LOOK_MS = 60_000;
/** Changes in between come in bursts. */
const PAUSE_MS = 1000;
const ROUND_BYTES = 64 * 1024 * 1024;

export function capacityReporter(
  context: SidecarContext,
  options: { readonly topology: Readonly<Record<string, string>> },
) {
  const { driver, csi, client, informers, clock, log, nodeName = '' } = context;
  const classes = informers.get<StorageClass>(STORAGE_CLASSES);
  const volumes = informers.get(PERSISTENT_VOLUMES);
  const capacities = client.of<CSIStorageCapacity>(CSI_STORAGE_CAPACITIES);
  const written = new Map<string, string>();

  async function report(storageClass: StorageClass): Promise<void> {
    const { availableCapacity, maximumVolumeSize } = await csi.call('getCapacity', {
      parameters: { ...storageClass.parameters },
    });
    const format = (bytes: number) =>
      formatNano(BigInt(Math.floor(bytes / ROUND_BYTES) * ROUND_BYTES) * 10n ** 9n, 'binary');
    const capacity = format(availableCapacity);
    const className = storageClass.metadata.name;
    if (written.get(className) === capacity) return;
    const name = `csisc-${createHash('sha256').update(`${driver}/${className}/${nodeName}`).digest('hex').slice(0, 20)}`;
    const object: CSIStorageCapacity = {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'CSIStorageCapacity',
      metadata: {
        name,
        namespace: NAMESPACE,
        labels: { 'csi.storage.k8s.io/drivername': driver, 'csi.storage.k8s.io/managed-by': 'external-provisioner' },
      },
      storageClassName: className,
      nodeTopology: { matchLabels: { ...options.topology } },
      capacity,
      ...(maximumVolumeSize?.value ? { maximumVolumeSize: format(maximumVolumeSize.value) } : {}),
    };
    try {
      const known = await capacities.get(NAMESPACE, name);
      await capacities.update({ ...object, metadata: { ...known.metadata, labels: object.metadata.labels! } });
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
      await capacities.create(object);
    }
    written.set(className, capacity);
  }

  return {
    async run(signal: AbortSignal): Promise<void> {
      let wake: (() => void) | undefined;
      for (const informer of [classes, volumes]) informer.onChange(() => wake?.());
      signal.addEventListener('abort', () => wake?.(), { once: true });
      while (!signal.aborted) {
        let isDone = true;
        for (const storageClass of [...classes.values()]) {
          if (storageClass.provisioner !== driver) continue;
          await report(storageClass).catch(error => {
            isDone = false;
            log.debug('capacity not reported', { class: storageClass.metadata.name, error: messageOf(error) });
          });
        }
        const changed = new Promise<void>(resolve => {
          wake = resolve;
        });
        await Promise.race([changed, clock.sleep(isDone ? LOOK_MS : PAUSE_MS, signal)]);
        await clock.sleep(PAUSE_MS, signal);
      }
    },
  };
}
