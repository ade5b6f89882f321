/** How full the claims of a pod are, as the `kubelet_volume_stats_*` metrics and an event for a volume that its driver calls ill. */

import { metrics } from '../../base/metrics.ts';
import type { PodVolumes } from './pod-volumes.ts';
import type { VolumeUsage } from './volume.ts';
import type { VolumeNode } from './volume-node.ts';

const LABELS = ['namespace', 'persistentvolumeclaim'];
const gauge = (name: string, help: string) => metrics.gauge(`kubelet_volume_stats_${name}`, help, LABELS);
const GAUGES = {
  capacityBytes: gauge('capacity_bytes', 'Capacity in bytes of the volume'),
  availableBytes: gauge('available_bytes', 'Number of available bytes in the volume'),
  usedBytes: gauge('used_bytes', 'Number of used bytes in the volume'),
  inodes: gauge('inodes', 'Maximum number of inodes in the volume'),
  inodesFree: gauge('inodes_free', 'Number of free inodes in the volume'),
  inodesUsed: gauge('inodes_used', 'Number of used inodes in the volume'),
} as const;
const HEALTH = gauge('health_status_abnormal', 'Abnormal volume health status. The count is either 1 or 0');

function* claims(volumes: PodVolumes): Generator<{ readonly labels: [string, string]; readonly volume: string }> {
  for (const [volume, { use }] of volumes.mounted) {
    const claim = use.persistent?.claim?.metadata;
    if (claim) yield { labels: [claim.namespace ?? '', claim.name], volume };
  }
}

/** Volumes whose plugin cannot tell are left out. Returns what drivers complain about. */
export async function recordUsage(volumes: PodVolumes, node: VolumeNode): Promise<string[]> {
  const complaints: string[] = [];
  for (const { labels, volume } of claims(volumes)) {
    const { plugin, target } = volumes.mounted.get(volume)!;
    let usage: VolumeUsage | undefined;
    try {
      usage = await plugin.usage?.(target, node);
    } catch {
      // The driver is away: the last figures stand.
    }
    if (!usage) continue;
    for (const [name, metric] of Object.entries(GAUGES)) metric.set(usage[name as keyof typeof GAUGES], ...labels);
    HEALTH.set(usage.abnormal === undefined ? 0 : 1, ...labels);
    if (usage.abnormal !== undefined) complaints.push(`Volume ${volume}: ${usage.abnormal}`);
  }
  return complaints;
}

export function forgetUsage(volumes: PodVolumes): void {
  for (const { labels } of claims(volumes))
    for (const metric of [...Object.values(GAUGES), HEALTH]) metric.remove(...labels);
}
