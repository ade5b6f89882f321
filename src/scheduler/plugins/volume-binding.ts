/**
 * Persistent volumes: claims must exist and be bound, or be such that wait for the pod's node and can be served on it; and the
 * node must reach every bound volume.
 */

import { translateVolume } from '../../api/machinery/csi-migration.ts';
import { nodeSelectorMatch } from '../../api/machinery/node-selector.ts';
import { type Plugin, refuse, refuseForGood } from '../plugin.ts';
import { claimNames, decide, NO_SPACE, podClaims } from '../pod-volumes.ts';

export const volumeBinding: Plugin = {
  name: 'VolumeBinding',
  weight: 0,
  wakesOn: ['node-added', 'node-labels', 'volume'],
  filter: (pod, { lookup }) => {
    if (claimNames(pod).length === 0) return undefined;
    const claims = podClaims(pod, lookup);
    if ('rejection' in claims) return claims;
    const reaches = claims.bound.flatMap(({ volume }) => {
      const { required } = (translateVolume(volume) ?? volume).spec?.nodeAffinity ?? {};
      return required ? [nodeSelectorMatch(required)] : [];
    });
    if (reaches.length === 0 && claims.waiting.length === 0) return undefined;
    return ({ node }) => {
      if (!reaches.every(matches => matches(node)))
        return refuseForGood("node(s) didn't match PersistentVolume's node affinity");
      const decision = decide(claims.waiting, { node, lookup });
      if (!('reason' in decision)) return undefined;
      return decision.reason === NO_SPACE ? refuse(decision.reason) : refuseForGood(decision.reason);
    };
  },
};
