/** What a volume plugin is called with in these tests: a pod, and objects that it may read. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import type { PersistentVolume } from '../../../src/api/core/v1.gen.ts';
import type { KubeObject } from '../../../src/api/meta.ts';
import { systemClock } from '../../../src/base/clock.ts';
import type { SourceName, VolumeContext, VolumeTarget } from '../../../src/kubelet/volumes/volume.ts';

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
    list: async () => objects,
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

/** The volume of a manifest under `examples/volumes`, in a persistent volume or in a pod, as its test is to mount it. */
export function exampleSource<S>(file: string, kind: SourceName): S {
  const text = readFileSync(join(import.meta.dirname, '..', '..', '..', 'examples', 'volumes', file), 'utf8');
  for (const document of parseAllDocuments(text, { version: '1.1' })) {
    const { spec } = document.toJS() as { spec?: Record<string, unknown> & { volumes?: Record<string, unknown>[] } };
    const found = spec?.[kind] ?? spec?.volumes?.find(volume => volume[kind] !== undefined)?.[kind];
    if (found) return found as S;
  }
  throw new Error(`${file} has no volume of kind ${kind}`);
}
