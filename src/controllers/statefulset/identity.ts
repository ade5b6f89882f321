/** Names of a StatefulSet's pods and claims: stable, by ordinal. Pure. */

import type { ControllerRevision, StatefulSet } from '../../api/apps/v1.gen.ts';
import type { PersistentVolumeClaim, Pod } from '../../api/core/v1.gen.ts';
import { REVISION_HASH, templateOf } from '../runtime/history.ts';
import { podFromTemplate } from '../runtime/pod-control.ts';

export const POD_NAME = 'statefulset.kubernetes.io/pod-name';
export const POD_INDEX = 'apps.kubernetes.io/pod-index';

export const podName = (set: StatefulSet, ordinal: number): string => `${set.metadata.name}-${ordinal}`;
export const startOrdinal = (set: StatefulSet): number => set.spec.ordinals?.start ?? 0;

/** undefined for a pod that is none of the set's. */
export function ordinalOf(set: StatefulSet, name: string): number | undefined {
  const prefix = `${set.metadata.name}-`;
  const rest = name.startsWith(prefix) ? name.slice(prefix.length) : '';
  return /^\d+$/.test(rest) && String(Number(rest)) === rest ? Number(rest) : undefined;
}

export const revisionOfPod = (pod: Pod): string => pod.metadata.labels?.[REVISION_HASH] ?? '';

/** The claims of one pod, from the templates, named `<template>-<pod>`. */
export function claimsFor(set: StatefulSet, ordinal: number): PersistentVolumeClaim[] {
  return (set.spec.volumeClaimTemplates ?? []).map(template => ({
    ...template,
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: {
      ...template.metadata,
      name: `${template.metadata.name}-${podName(set, ordinal)}`,
      namespace: set.metadata.namespace!,
      labels: { ...template.metadata.labels, ...set.spec.selector.matchLabels },
    },
  }));
}

export function podFor(set: StatefulSet, ordinal: number, revision: ControllerRevision): Pod {
  const name = podName(set, ordinal);
  const { $patch: _patch, ...template } = templateOf(revision) as ReturnType<typeof templateOf> & { $patch?: string };
  const pod = podFromTemplate(template, set);
  const { generateName: _prefix, ...metadata } = pod.metadata;
  const claims = (set.spec.volumeClaimTemplates ?? []).map(claim => ({
    name: claim.metadata.name,
    persistentVolumeClaim: { claimName: `${claim.metadata.name}-${name}` },
  }));
  const owned = new Set(claims.map(volume => volume.name));
  return {
    ...pod,
    metadata: {
      ...metadata,
      name,
      labels: {
        ...metadata.labels,
        [POD_NAME]: name,
        [POD_INDEX]: String(ordinal),
        [REVISION_HASH]: revision.metadata.name,
      },
    },
    spec: {
      ...pod.spec!,
      hostname: name,
      ...(set.spec.serviceName ? { subdomain: set.spec.serviceName } : {}),
      ...(claims.length > 0
        ? { volumes: [...claims, ...(pod.spec?.volumes ?? []).filter(volume => !owned.has(volume.name))] }
        : {}),
    },
  };
}
