/**
 * What a node says of itself that pods may need (KEP 5328, `status.declaredFeatures`): features so new that not every node of a
 * cluster can be taken to have them.
 */

import type { Node, Pod } from '../core/v1.gen.ts';
import { semanticEqual } from './equality.ts';

const RESTART_ALL = 'RestartAllContainersOnContainerExits';
const POD_RESIZE = 'InPlacePodLevelResourcesVerticalScaling';

/** What a node of ours says. */
export const DECLARED_FEATURES: readonly string[] = [POD_RESIZE, RESTART_ALL];

/** What a node must have for the pod to run there. */
export function featuresNeeded({ spec }: Pod): readonly string[] {
  const containers = [...(spec?.containers ?? []), ...(spec?.initContainers ?? [])];
  const restartsAll = containers.some(({ restartPolicyRules }) =>
    restartPolicyRules?.some(({ action }) => action === 'RestartAllContainers'),
  );
  return restartsAll ? [RESTART_ALL] : [];
}

/** What the pod's node must have for the change. */
export function featuresNeededByUpdate(pod: Pod, old: Pod): readonly string[] {
  return semanticEqual(pod.spec?.resources, old.spec?.resources) ? [] : [POD_RESIZE];
}

/** Those of `needed` that the node has not. */
export function missingFeatures(needed: readonly string[], node: Node): readonly string[] {
  const there = node.status?.declaredFeatures ?? [];
  return needed.filter(feature => !there.includes(feature));
}
