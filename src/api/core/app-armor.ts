/** AppArmor profiles of a pod: what the annotations from before Kubernetes 1.30 mean, and which profile a container is to have. Pure. */

import { containersOf } from '../machinery/pod.ts';
import type { AppArmorProfile, Container, Pod } from './v1.gen.ts';

/** Before a container's name. */
export const APP_ARMOR_ANNOTATION = 'container.apparmor.security.beta.kubernetes.io/';
const LOCALHOST = 'localhost/';

/** Undefined for a value that says nothing. */
function profileOf(annotation: string): AppArmorProfile | undefined {
  if (annotation === 'unconfined') return { type: 'Unconfined' };
  if (annotation === 'runtime/default') return { type: 'RuntimeDefault' };
  const name = annotation.startsWith(LOCALHOST) ? annotation.slice(LOCALHOST.length) : '';
  return name && name.trim() === name ? { type: 'Localhost', localhostProfile: name } : undefined;
}

const annotated = (pod: Pod, container: string): AppArmorProfile | undefined => {
  const annotation = pod.metadata.annotations?.[APP_ARMOR_ANNOTATION + container];
  return annotation === undefined ? undefined : profileOf(annotation);
};

/** The field of the container, its annotation (API servers before 1.30 keep nothing else), the pod's field. */
export function wantedAppArmor(pod: Pod, container: Container): AppArmorProfile | undefined {
  return (
    container.securityContext?.appArmorProfile ??
    annotated(pod, container.name) ??
    pod.spec.securityContext?.appArmorProfile
  );
}

/** Annotations become fields, as at every create since 1.30. */
export function keepAppArmorFields(pod: Pod): void {
  if (pod.spec.os?.name === 'windows') return;
  const ofPod = pod.spec.securityContext?.appArmorProfile;
  for (const { container } of containersOf(pod.spec)) {
    const profile = annotated(pod, container.name);
    if (!profile || container.securityContext?.appArmorProfile) continue;
    if (profile.type === ofPod?.type && profile.localhostProfile === ofPod.localhostProfile) continue;
    container.securityContext = { ...container.securityContext, appArmorProfile: profile };
  }
}

export function appArmorWarnings(pod: Pod): string[] {
  return Object.keys(pod.metadata.annotations ?? {})
    .filter(key => key.startsWith(APP_ARMOR_ANNOTATION))
    .map(key => `metadata.annotations[${key}]: deprecated since v1.30; use the "appArmorProfile" field instead`);
}
