/**
 * What annotations of pods and of pod templates mean to validation: mirror pods, the cost of a deletion, and the forms that
 * tolerations, seccomp and AppArmor profiles had before they were fields. Messages and paths as upstream's `core/validation`.
 */

import { containersOf } from '../machinery/pod.ts';
import { addForbidden, addInvalid, type Errors } from '../machinery/validation.ts';
import { APP_ARMOR_ANNOTATION } from './app-armor.ts';
import { checkTolerations } from './scheduling-validation.ts';
import type { AppArmorProfile, PodSpec, SeccompProfile, Toleration } from './v1.gen.ts';
import { checkRelativePath } from './volume-validation.ts';

export const MIRROR_ANNOTATION = 'kubernetes.io/config.mirror';
const DELETION_COST_ANNOTATION = 'controller.kubernetes.io/pod-deletion-cost';
const TOLERATIONS_ANNOTATION = 'scheduler.alpha.kubernetes.io/tolerations';
const SECCOMP_POD_ANNOTATION = 'seccomp.security.alpha.kubernetes.io/pod';
const SECCOMP_CONTAINER_ANNOTATION = 'container.seccomp.security.alpha.kubernetes.io/';
const LOCALHOST = 'localhost/';

export type Annotations = Readonly<Record<string, string>> | undefined;

export function checkPodAnnotations(errors: Errors, path: string, annotations: Annotations, spec: PodSpec): void {
  if (!annotations) return;
  const mirror = annotations[MIRROR_ANNOTATION];
  if (mirror !== undefined && !spec.nodeName)
    addInvalid(
      errors,
      `${path}[${MIRROR_ANNOTATION}]`,
      mirror,
      'must set spec.nodeName if mirror pod annotation is set',
    );
  if (annotations[TOLERATIONS_ANNOTATION]) checkAnnotatedTolerations(errors, path, annotations[TOLERATIONS_ANNOTATION]);
  const cost = annotations[DELETION_COST_ANNOTATION];
  if (cost !== undefined && !isInt32(cost))
    addInvalid(errors, `${path}[${DELETION_COST_ANNOTATION}]`, cost, 'must be a 32bit integer');
  for (const key in annotations) {
    const value = annotations[key]!;
    if (key === SECCOMP_POD_ANNOTATION || key.startsWith(SECCOMP_CONTAINER_ANNOTATION))
      checkSeccompValue(errors, `${path}.${key}`, value);
    else if (key.startsWith(APP_ARMOR_ANNOTATION)) checkAppArmorValue(errors, path, { key, value, spec });
  }
}

/** As Go's `strconv.ParseInt`, but without a plus sign and without zeros in front. */
function isInt32(text: string): boolean {
  if (!/^(0|[1-9]\d*|-\d+)$/.test(text)) return false;
  const value = Number(text);
  return value >= -(2 ** 31) && value < 2 ** 31;
}

function checkAnnotatedTolerations(errors: Errors, path: string, text: string): void {
  let tolerations: unknown;
  try {
    tolerations = JSON.parse(text);
  } catch (error) {
    addInvalid(errors, path, TOLERATIONS_ANNOTATION, (error as Error).message);
    return;
  }
  if (tolerations === null) return;
  if (!Array.isArray(tolerations) || tolerations.some(one => one === null || typeof one !== 'object'))
    addInvalid(errors, path, TOLERATIONS_ANNOTATION, 'json: cannot unmarshal into Go value of type []core.Toleration');
  else checkTolerations(errors, `${path}.${TOLERATIONS_ANNOTATION}`, tolerations as Toleration[]);
}

function checkSeccompValue(errors: Errors, at: string, profile: string): void {
  if (profile === 'runtime/default' || profile === 'docker/default' || profile === 'unconfined') return;
  if (profile.startsWith(LOCALHOST)) checkRelativePath(errors, at, profile.slice(LOCALHOST.length));
  else addInvalid(errors, at, profile, 'must be a valid seccomp profile');
}

function checkAppArmorValue(
  errors: Errors,
  path: string,
  { key, value, spec }: { key: string; value: string; spec: PodSpec },
): void {
  const name = key.slice(APP_ARMOR_ANNOTATION.length);
  let isKnown = false;
  for (const { container } of containersOf(spec)) isKnown ||= container.name === name;
  if (!isKnown) addInvalid(errors, `${path}[${key}]`, name, 'container not found');
  if (value !== '' && value !== 'runtime/default' && value !== 'unconfined' && !value.startsWith(LOCALHOST))
    addInvalid(errors, `${path}[${key}]`, value, `invalid AppArmor profile name: ${JSON.stringify(value)}`);
}

/** An update: neither the mirror of a file nor the AppArmor profiles change. */
export function checkAnnotationChange(errors: Errors, now: Annotations = {}, before: Annotations = {}): void {
  for (const key of new Set([...Object.keys(before), ...Object.keys(now)])) {
    const what =
      key === MIRROR_ANNOTATION
        ? 'mirror pod annotation'
        : key.startsWith(APP_ARMOR_ANNOTATION)
          ? 'AppArmor annotations'
          : undefined;
    if (!what || now[key] === before[key]) continue;
    const verb = before[key] === undefined ? 'add' : 'remove or update';
    addForbidden(errors, `metadata.annotations[${key}]`, `may not ${verb} ${what}`);
  }
}

/** Of pods that are created, and of templates: a profile that stands in both places is the same in both. `path`: of the spec. */
export function checkProfilesAgree(errors: Errors, path: string, annotations: Annotations, spec: PodSpec): void {
  if (!annotations) return;
  const ofPod = spec.securityContext;
  const podSeccomp = annotations[SECCOMP_POD_ANNOTATION];
  if (podSeccomp !== undefined && ofPod?.seccompProfile)
    checkSeccompAgrees(errors, `${path}.securityContext.seccompProfile`, podSeccomp, ofPod.seccompProfile);
  for (const list of ['initContainers', 'containers', 'ephemeralContainers'] as const)
    spec[list]?.forEach((container, index) => {
      const at = `${path}.${list}[${index}].securityContext`;
      const context = container.securityContext;
      const seccomp = annotations[SECCOMP_CONTAINER_ANNOTATION + container.name];
      if (seccomp !== undefined && context?.seccompProfile)
        checkSeccompAgrees(errors, `${at}.seccompProfile`, seccomp, context.seccompProfile);
      const appArmor = annotations[APP_ARMOR_ANNOTATION + container.name];
      const profile = context?.appArmorProfile ?? ofPod?.appArmorProfile;
      if (appArmor !== undefined && profile && spec.os?.name !== 'windows')
        checkAgreement(errors, `${at}.appArmorProfile`, { annotation: appArmor, profile, what: 'apparmor' });
    });
}

function checkSeccompAgrees(errors: Errors, at: string, annotation: string, profile: SeccompProfile): void {
  const standard = annotation === 'docker/default' ? 'runtime/default' : annotation;
  checkAgreement(errors, at, { annotation: standard, profile, what: 'seccomp' });
}

function checkAgreement(
  errors: Errors,
  at: string,
  { annotation, profile, what }: { annotation: string; profile: AppArmorProfile | SeccompProfile; what: string },
): void {
  const isLocal = annotation.startsWith(LOCALHOST);
  const agrees =
    profile.type === 'Localhost'
      ? isLocal
      : profile.type === 'RuntimeDefault'
        ? annotation === 'runtime/default'
        : profile.type !== 'Unconfined' || annotation === 'unconfined';
  if (!agrees) addForbidden(errors, `${at}.type`, `${what} type in annotation and field must match`);
  else if (profile.type === 'Localhost' && annotation.slice(LOCALHOST.length) !== profile.localhostProfile)
    addForbidden(errors, `${at}.localhostProfile`, `${what} profile in annotation and field must match`);
}
