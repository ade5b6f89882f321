/** Pods of the tests of a node: a container that runs a script, and how one ended. */

import type { Container, Pod } from '../../src/api/core/v1.gen.ts';

export const sh = (script: string, extra: object = {}): Container => ({
  name: 'c',
  image: 'busybox:1',
  imagePullPolicy: 'IfNotPresent',
  command: ['sh', '-c', script],
  ...extra,
});
export const done = (pod: Pod): boolean => pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
