/** What a volume plugin is called with in these tests: a pod, and objects that it may read. */

import type { PersistentVolume } from '../../../src/api/core/v1.gen.ts';
import type { KubeObject } from '../../../src/api/meta.ts';
import { systemClock } from '../../../src/base/clock.ts';
import type { VolumeContext, VolumeTarget } from '../../../src/kubelet/volumes/volume.ts';

export interface ContextFacts {
  readonly objects?: readonly KubeObject[];
  readonly mountOptions?: readonly string[];
  readonly persistent?: PersistentVolume;
  /** The kubelet's folder. */
  readonly rootDir?: string;
  readonly mode?: 'Filesystem' | 'Block';
  readonly isReadOnly?: boolean;
}

export function volumeContext(facts: ContextFacts = {}): VolumeContext {
  const { objects = [], mountOptions = [], persistent, rootDir = '', mode = 'Filesystem', isReadOnly = false } = facts;
  const find = (name: string, namespace = 'default') =>
    objects.find(({ metadata }) => metadata.name === name && (metadata.namespace ?? 'default') === namespace);
  return {
    pod: { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p', namespace: 'default', uid: 'uid' }, spec: {} },
    read: async (_of: unknown, name: string) => find(name),
    fetch: async (_of: unknown, key: { name: string; namespace?: string }) => find(key.name, key.namespace),
    use: {
      volume: 'v',
      isReadOnly,
      mountOptions,
      mode,
      ...(persistent ? { persistent: { volume: persistent } } : {}),
    },
    clock: systemClock,
    volumes: { rootDir },
    signal: new AbortController().signal,
  } as unknown as VolumeContext;
}

export const targetAt = (path: string): VolumeTarget => ({ path, podUid: 'uid', name: 'v' });
