/** Bound volumes with zone or region labels: the node must be in one of their zones. */

import { type Plugin, refuseForGood } from '../plugin.ts';
import { claimNames, podClaims } from '../pod-volumes.ts';

/** Label of a volume → labels of nodes that answer it. */
const LABELS: Readonly<Record<string, readonly string[]>> = {
  'topology.kubernetes.io/zone': ['topology.kubernetes.io/zone', 'failure-domain.beta.kubernetes.io/zone'],
  'topology.kubernetes.io/region': ['topology.kubernetes.io/region', 'failure-domain.beta.kubernetes.io/region'],
  'failure-domain.beta.kubernetes.io/zone': ['failure-domain.beta.kubernetes.io/zone', 'topology.kubernetes.io/zone'],
  'failure-domain.beta.kubernetes.io/region': [
    'failure-domain.beta.kubernetes.io/region',
    'topology.kubernetes.io/region',
  ],
};
/** Between the zones of a volume that lies in several. */
const SEPARATOR = '__';

export const volumeZone: Plugin = {
  name: 'VolumeZone',
  weight: 0,
  wakesOn: ['node-added', 'node-labels', 'volume'],
  filter: (pod, { lookup }) => {
    if (claimNames(pod).length === 0) return undefined;
    const claims = podClaims(pod, lookup);
    if ('rejection' in claims) return undefined;
    const wanted = claims.bound.flatMap(({ volume }) =>
      Object.entries(volume.metadata.labels ?? {}).flatMap(([key, value]) =>
        LABELS[key] ? [{ keys: LABELS[key], values: new Set(value.split(SEPARATOR)) }] : [],
      ),
    );
    if (wanted.length === 0) return undefined;
    return ({ labels }) => {
      // Nodes without any such label belong to no cloud, and are not asked.
      if (!Object.keys(LABELS).some(key => labels[key] !== undefined)) return undefined;
      const isThere = wanted.every(({ keys, values }) => values.has(keys.map(key => labels[key]).find(Boolean) ?? ''));
      return isThere ? undefined : refuseForGood('node(s) had no available volume zone');
    };
  },
};
