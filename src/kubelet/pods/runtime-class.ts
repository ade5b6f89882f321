/** RuntimeClasses on this node: there is one runtime, so a class may name that, and any other is said to be missing. */

import type { RuntimeClass } from '../../api/node/v1.gen.ts';
import { RUNTIME_CLASSES } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';

const HANDLERS: readonly string[] = ['runc'];

/** Rejects when the class is not there, or its handler is not. */
export async function checkRuntimeClass(name: string, transport: Transport): Promise<void> {
  const { handler } = (await transport.get({ of: RUNTIME_CLASSES, name })) as RuntimeClass;
  if (!HANDLERS.includes(handler))
    throw new Error(
      `no runtime for ${JSON.stringify(handler)} is configured; RuntimeClass ${JSON.stringify(name)} can name ${HANDLERS.join(', ')}`,
    );
}
