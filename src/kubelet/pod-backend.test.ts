import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '../api/core/v1.gen.ts';
import { PodBackend, type PodBackendOptions } from './pod-backend.ts';

test('the log of a container that never ran: why there is none, in the words of the kubelet', async () => {
  const reasons = ['ErrImagePull', 'ImagePullBackOff', 'CreateContainerError', ''];
  const containers = reasons.map((_, at) => ({ name: `c${at}`, image: 'x' }));
  const containerStatuses = reasons.map((reason, at) => ({
    name: `c${at}`,
    state: { waiting: { ...(reason ? { reason } : {}), message: 'long and full of detail' } },
  }));
  const pod = {
    metadata: { name: 'p', namespace: 'n', uid: 'u' },
    spec: { containers },
    status: { containerStatuses },
  };
  const backend = new PodBackend({
    workers: { find: () => ({ pod: pod as unknown as Pod }) },
    runtime: { snapshot: async () => ({ containers: [], sandboxes: [] }) },
  } as unknown as PodBackendOptions);
  const why = async (container: string) =>
    await backend.resolveContainer('n', 'p', container, 'logs').then(
      () => '',
      error => error.message.replace(/^container "c\d" in pod "p" is waiting to start: /, ''),
    );
  assert.deepEqual(await Promise.all(containers.map(({ name }) => why(name))), [
    "image can't be pulled",
    'trying and failing to pull image',
    'CreateContainerError',
    'ContainerCreating',
  ]);
});
