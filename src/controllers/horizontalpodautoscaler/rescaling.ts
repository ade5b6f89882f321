/** Writes a scale. Others write to what is scaled as well, for one its own controller: only the last of some conflicts counts. */

import type { Scale } from '../../api/autoscaling/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import type { Target, Transport } from '../../client/transport.ts';

const ATTEMPTS = 5;

export async function setReplicas(
  transport: Pick<Transport, 'get' | 'update'>,
  target: Target,
  { scale, desired }: { readonly scale: Scale; readonly desired: number },
): Promise<void> {
  for (let attempt = 1, from = scale; ; attempt++) {
    try {
      await transport.update(target, { ...from, spec: { ...from.spec, replicas: desired } } as KubeObject);
      return;
    } catch (error) {
      if (!isReason(error, 'Conflict') || attempt >= ATTEMPTS) throw error;
      from = (await transport.get(target)) as Scale;
    }
  }
}
