/** RuntimeClasses: a pod names one, it names a handler, and one of the node's runtimes has that or none. */

import type { RuntimeClass } from '../../api/node/v1.gen.ts';
import { RUNTIME_CLASSES } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';

/** The handler that the class names. Rejects when the class is not there, or its handler is not among the node's. */
export async function handlerOf(
  name: string,
  { transport, handlers }: { readonly transport: Transport; readonly handlers: readonly string[] | undefined },
): Promise<string> {
  const { handler } = (await transport.get({ of: RUNTIME_CLASSES, name })) as RuntimeClass;
  if (handlers && !handlers.includes(handler))
    throw new Error(
      `no runtime for ${JSON.stringify(handler)} is configured; on this node RuntimeClass ${JSON.stringify(name)} can name ${handlers.filter(Boolean).join(', ')}`,
    );
  return handler;
}
