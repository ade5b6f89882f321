/**
 * ListenerSets: more listeners for a Gateway, from whoever it allows to bring some. Says of each set that names a Gateway of ours whether it is
 * taken, and judges its listeners behind those of the Gateway and of older sets. Pure.
 */

import type { Gateway, ListenerSet } from '../../api/gateway/v1.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { keyOf } from '../../api/meta.ts';
import { compareAge, type GatewayObjects, isParent, type Said, said } from './gateway-objects.ts';
import { type JudgedListener, judgeListeners, ownerOf } from './listeners.ts';
import type { References } from './references.ts';

export interface JudgedListenerSet {
  readonly set: ListenerSet;
  /** `namespace/name` */
  readonly key: string;
  readonly accepted: Said;
  /** Some listener of it is served, or would be. */
  readonly isAccepted: boolean;
  /** None where the set is not taken. */
  readonly listeners: readonly JudgedListener[];
}

export function judgeListenerSets(
  gateway: Gateway,
  own: { readonly isAccepted: boolean; readonly listeners: readonly JudgedListener[] },
  objects: GatewayObjects,
  references: References,
): JudgedListenerSet[] {
  const judged: JudgedListenerSet[] = [];
  const earlier = [...own.listeners];
  for (const set of objects.listenerSets.filter(each => names(each, gateway)).sort(compareAge)) {
    const key = keyOf(set);
    const refuse = (reason: string, message: string) =>
      judged.push({ set, key, accepted: said('Accepted', false, reason, message), isAccepted: false, listeners: [] });
    if (!allows(gateway, set, objects)) {
      refuse('NotAllowed', `spec.allowedListeners of Gateway ${keyOf(gateway)} does not allow it`);
      continue;
    }
    if (!own.isAccepted) {
      refuse('ParentNotAccepted', `Gateway ${keyOf(gateway)} is not accepted`);
      continue;
    }
    const of = { owner: ownerOf('ListenerSet', set), listeners: set.spec.listeners, earlier };
    const listeners = judgeListeners(gateway, of, objects, references);
    earlier.push(...listeners);
    const wrong = listeners.filter(({ isServed }) => !isServed).map(({ listener }) => listener.name);
    const isAccepted = wrong.length < listeners.length;
    const accepted =
      wrong.length > 0
        ? said('Accepted', isAccepted, 'ListenersNotValid', `not valid: ${wrong.join(', ')}`)
        : said('Accepted', true, 'Accepted', 'its listeners are those of the Gateway');
    judged.push({ set, key, accepted, isAccepted, listeners });
  }
  return judged;
}

function names({ spec, metadata }: ListenerSet, gateway: Gateway): boolean {
  const { parentRef } = spec;
  return (
    isParent(parentRef, 'Gateway') &&
    !metadata.deletionTimestamp &&
    `${parentRef.namespace ?? metadata.namespace}/${parentRef.name}` === keyOf(gateway)
  );
}

function allows({ metadata, spec }: Gateway, set: ListenerSet, objects: GatewayObjects): boolean {
  const { from = 'None', selector } = spec.allowedListeners?.namespaces ?? {};
  const { namespace = '' } = set.metadata;
  if (from === 'All') return true;
  if (from === 'Same') return namespace === metadata.namespace;
  return from === 'Selector' && labelSelectorMatch(selector)(objects.namespace(namespace)?.metadata.labels ?? {});
}
