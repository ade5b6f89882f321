/**
 * A static pod from its manifest: defaults filled in, checked, named after its node, with a uid that follows from the text.
 * Pure. It refuses what only the API server could give: service accounts, secrets, config maps, claims.
 */

import { createHash } from 'node:crypto';
import { parse } from 'yaml';
import { MIRROR_ANNOTATION } from '../../api/core/pod-annotation-validation.ts';
import { podDefaults } from '../../api/core/pod-defaults.ts';
import { validatePod } from '../../api/core/pod-validation.ts';
import type { Pod } from '../../api/core/v1.gen.ts';

export const HASH_ANNOTATION = 'kubernetes.io/config.hash';
export const SOURCE_ANNOTATION = 'kubernetes.io/config.source';
const SEEN_ANNOTATION = 'kubernetes.io/config.seen';
const ALIASES_MAX = 100;
const OF_THE_API: readonly string[] = ['secret', 'configMap', 'projected', 'persistentVolumeClaim', 'ephemeral'];

/** Throws with what is wrong. `seen` is a time as in JSON. */
export function staticPod(text: string, node: { readonly name: string; readonly seen: string }): Pod {
  const sent = parse(text, { version: '1.1', maxAliasCount: ALIASES_MAX }) as Pod | null;
  if (sent?.kind !== 'Pod' || sent.apiVersion !== 'v1' || !sent.metadata?.name || !sent.spec?.containers?.length)
    throw new Error('not a v1 Pod with a name and containers');
  const hash = createHash('md5').update(node.name).update(text).digest('hex');
  const uid = `${hash.slice(0, 8)}-${hash.slice(8, 12)}-${hash.slice(12, 16)}-${hash.slice(16, 20)}-${hash.slice(20)}`;
  const pod: Pod = {
    ...sent,
    metadata: {
      ...sent.metadata,
      name: `${sent.metadata.name}-${node.name}`,
      namespace: sent.metadata.namespace || 'default',
      uid,
      annotations: {
        ...sent.metadata.annotations,
        [HASH_ANNOTATION]: uid,
        [SEEN_ANNOTATION]: node.seen,
        [SOURCE_ANNOTATION]: 'file',
      },
    },
    spec: {
      ...sent.spec,
      nodeName: node.name,
      tolerations: [...(sent.spec.tolerations ?? []), { operator: 'Exists', effect: 'NoExecute' }],
    },
    status: { phase: 'Pending' },
  };
  podDefaults(pod);
  const reference = apiReference(pod);
  if (reference) throw new Error(`a static pod may not reference what is in the API: ${reference}`);
  const [problem] = validatePod(pod);
  if (problem) throw new Error(`${problem.field}: ${problem.message}`);
  return pod;
}

function apiReference({ spec }: Pod): string | undefined {
  if (spec.serviceAccountName) return 'spec.serviceAccountName';
  if (spec.imagePullSecrets?.length) return 'spec.imagePullSecrets';
  if (spec.resourceClaims?.length) return 'spec.resourceClaims';
  for (const volume of spec.volumes ?? []) {
    const source = Object.keys(volume).find(key => OF_THE_API.includes(key));
    if (source) return `volume ${volume.name} of type ${source}`;
  }
  for (const { name, env = [], envFrom = [] } of [...(spec.initContainers ?? []), ...spec.containers])
    if (envFrom.length || env.some(one => one.valueFrom?.configMapKeyRef || one.valueFrom?.secretKeyRef))
      return `the environment of container ${name}`;
  return undefined;
}

/** As the API server is told of it. */
export function mirrorOf(pod: Pod, node: { readonly name: string; readonly uid: string }): Pod {
  const { uid, ...metadata } = pod.metadata;
  const { status: _, ...rest } = pod;
  return {
    ...rest,
    metadata: {
      ...metadata,
      annotations: { ...metadata.annotations, [MIRROR_ANNOTATION]: uid! },
      ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: node.name, uid: node.uid, controller: true }],
    },
  };
}

/** The uid of the static pod that a pod of the API mirrors. */
export function mirroredUid(pod: Pod): string | undefined {
  return pod.metadata.annotations?.[MIRROR_ANNOTATION];
}
