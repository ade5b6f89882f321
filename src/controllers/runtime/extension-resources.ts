/** Resources of extension servers, as whoever makes the controllers tells them: looked at again every few seconds, for they come and go. */

import type { ResourceInfo } from '../../api/schema.ts';
import type { Transport } from '../../client/transport.ts';
import type { ReconcileContext } from './controller.ts';

export interface ExtensionResources {
  /** Can be listed and deleted; each in one version. */
  readonly served: readonly ResourceInfo[];
  /** `group/version` of servers that do not answer: what they have cannot be known. */
  readonly silent: readonly string[];
}

const LOOK_MS = 3_000;
const NONE: ExtensionResources = { served: [], silent: [] };

export function extensionResources({ settings }: ReconcileContext): ExtensionResources {
  return settings.extensionResources?.() ?? NONE;
}

/** Where objects of a resource are asked for: those of extension servers over HTTPS. */
export function transportOf({ settings, transport }: ReconcileContext, isExtension: boolean): Transport {
  return isExtension ? (settings.extensions ?? transport) : transport;
}

/** Calls back for each that can be watched, as it comes and goes, until the signal aborts. */
export function followExtensionResources(
  ctx: ReconcileContext,
  follow: { added(info: ResourceInfo): void; removed(info: ResourceInfo): void },
): void {
  if (!ctx.settings.extensionResources) return;
  const known = new Map<string, ResourceInfo>();
  const look = () => {
    if (ctx.signal.aborted) return;
    const now = new Map(
      extensionResources(ctx)
        .served.filter(({ verbs }) => verbs.includes('watch'))
        .map(info => [`${info.group}/${info.version}/${info.resource}`, info]),
    );
    for (const [key, info] of known) {
      if (now.has(key)) continue;
      known.delete(key);
      follow.removed(info);
    }
    for (const [key, info] of now) {
      if (known.has(key)) continue;
      known.set(key, info);
      follow.added(info);
    }
    ctx.clock.after(LOOK_MS, look, { background: true });
  };
  look();
}
