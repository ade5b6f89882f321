/**
 * PodSecurity: holds pods to the standard that the labels of their namespace name. Enforcing refuses pods; warning also
 * looks at the templates of whatever makes pods.
 */

import type { Namespace, Pod, PodTemplateSpec } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { KUBERNETES_VERSION } from '../../base/cluster-defaults.ts';
import { type FieldError, fieldErrors, invalid } from '../../base/errors.ts';
import { NAMESPACES, PODS } from '../../client/resources.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { type AdmissionContext, refusal } from './context.ts';
import { type Level, subjectOf, violations } from './pod-security-checks.ts';

const PREFIX = 'pod-security.kubernetes.io/';
const LEVELS: readonly string[] = ['privileged', 'baseline', 'restricted'];
const NEWEST = Number(KUBERNETES_VERSION.minor);
/** As many existing pods as upstream looks at when a namespace grows stricter. */
const EXISTING_PODS_MAX = 3000;

export interface PodSecurityOptions {
  /** For namespaces whose labels say nothing; default `privileged`. */
  readonly defaults?: Partial<Record<Mode, Level>>;
  readonly exemptions?: {
    readonly usernames?: readonly string[];
    readonly namespaces?: readonly string[];
    readonly runtimeClasses?: readonly string[];
  };
}

type Mode = 'enforce' | 'audit' | 'warn';

interface Standard {
  readonly level: Level;
  readonly minor: number;
  /** `restricted:latest` */
  readonly text: string;
}

function standardOf(labels: Readonly<Record<string, string>> | undefined, mode: Mode, fallback: Level): Standard {
  const asked = labels?.[`${PREFIX}${mode}`];
  const version = labels?.[`${PREFIX}${mode}-version`] ?? 'latest';
  // What cannot be understood is as strict as it gets, but refuses nothing by itself.
  const level =
    asked === undefined
      ? fallback
      : LEVELS.includes(asked)
        ? (asked as Level)
        : mode === 'enforce'
          ? 'restricted'
          : 'privileged';
  const minor = /^v1\.(\d+)$/.exec(version)?.[1];
  return {
    level,
    minor: minor === undefined ? NEWEST : Math.min(Number(minor), NEWEST),
    text: `${level}:${minor === undefined ? 'latest' : version}`,
  };
}

function labelProblems(labels: Readonly<Record<string, string>>, old: Readonly<Record<string, string>>): FieldError[] {
  const errors: FieldError[] = [];
  for (const mode of ['enforce', 'audit', 'warn']) {
    const check = (label: string, isValid: (value: string) => boolean, says: string) => {
      const value = labels[label];
      if (value !== undefined && value !== old[label] && !isValid(value))
        errors.push(fieldErrors.invalid(`metadata.labels[${label}]`, value, says));
    };
    check(`${PREFIX}${mode}`, value => LEVELS.includes(value), `must be one of ${LEVELS.join(', ')}`);
    check(
      `${PREFIX}${mode}-version`,
      value => value === 'latest' || /^v1\.(0|[1-9]\d*)$/.test(value),
      'must be "latest" or "v1.x"',
    );
  }
  return errors;
}

/** The template of what makes pods; undefined for anything else. */
function templateOf(
  { group, resource }: { group: string; resource: string },
  object: KubeObject,
): PodTemplateSpec | undefined {
  // biome-ignore lint/suspicious/noExplicitAny: the shapes of seven kinds
  const any = object as any;
  switch (`${group}/${resource}`) {
    case '/podtemplates':
      return any.template;
    case '/replicationcontrollers':
    case 'apps/replicasets':
    case 'apps/deployments':
    case 'apps/statefulsets':
    case 'apps/daemonsets':
    case 'batch/jobs':
      return any.spec?.template;
    case 'batch/cronjobs':
      return any.spec?.jobTemplate?.spec?.template;
    default:
      return undefined;
  }
}

export function podSecurity(context: AdmissionContext, options: PodSecurityOptions = {}): AdmissionPlugin {
  const { defaults = {}, exemptions = {} } = options;
  const standard = (namespace: Namespace | undefined, mode: Mode) =>
    standardOf(namespace?.metadata.labels, mode, defaults[mode] ?? 'privileged');
  const exemption = ({ attributes }: AdmissionRequest, runtimeClass: string | undefined) =>
    exemptions.namespaces?.includes(attributes.namespace)
      ? 'namespace'
      : exemptions.usernames?.includes(attributes.user.name)
        ? 'user'
        : runtimeClass !== undefined && exemptions.runtimeClasses?.includes(runtimeClass)
          ? 'runtimeClass'
          : undefined;

  function checkNamespace(request: AdmissionRequest): void {
    const [now, old] = [request.object as Namespace, request.oldObject as Namespace | undefined];
    const errors = labelProblems(now.metadata.labels ?? {}, old?.metadata.labels ?? {});
    if (errors.length > 0) throw invalid(request.info, now.metadata.name, errors);
    if (!old) return;
    const [next, before] = [standard(now, 'enforce'), standard(old, 'enforce')];
    const isStricter =
      LEVELS.indexOf(next.level) > LEVELS.indexOf(before.level) ||
      (next.level === before.level && next.minor > before.minor);
    if (!isStricter || exemptions.namespaces?.includes(now.metadata.name)) return;
    const pods = (context.reader().list(PODS, now.metadata.name) as readonly Pod[]).slice(0, EXISTING_PODS_MAX);
    const found = new Map<string, string[]>();
    for (const pod of pods) {
      const why = violations(subjectOf(pod as PodTemplateSpec), next.level, next.minor);
      if (why) found.set(why, [...(found.get(why) ?? []), pod.metadata.name]);
    }
    if (found.size === 0) return;
    request.warn(
      `existing pods in namespace ${JSON.stringify(now.metadata.name)} violate the new PodSecurity enforce level ${JSON.stringify(next.text)}`,
    );
    for (const [why, [first, ...others]] of found) {
      const more = others.length === 0 ? '' : ` (and ${others.length} other ${others.length === 1 ? 'pod' : 'pods'})`;
      request.warn(`${first}${more}: ${why}`);
    }
  }

  function checkPods(request: AdmissionRequest, template: PodTemplateSpec, enforces: boolean): void {
    const exempt = exemption(request, template.spec?.runtimeClassName);
    if (exempt) return request.annotate?.(`${PREFIX}exempt`, exempt);
    const namespace = context.reader().get(NAMESPACES, '', request.attributes.namespace) as Namespace | undefined;
    const subject = subjectOf(template);
    const enforce = standard(namespace, 'enforce');
    const audit = standard(namespace, 'audit');
    const noted = request.annotate && violations(subject, audit.level, audit.minor);
    if (noted)
      request.annotate?.(
        `${PREFIX}audit-violations`,
        `would violate PodSecurity ${JSON.stringify(audit.text)}: ${noted}`,
      );
    if (enforces) {
      request.annotate?.(`${PREFIX}enforce-policy`, enforce.text);
      const why = violations(subject, enforce.level, enforce.minor);
      if (why) throw refusal(request, `violates PodSecurity ${JSON.stringify(enforce.text)}: ${why}`);
    }
    const warn = standard(namespace, 'warn');
    const why = violations(subject, warn.level, warn.minor);
    if (why) request.warn(`would violate PodSecurity ${JSON.stringify(warn.text)}: ${why}`);
  }

  return {
    name: 'PodSecurity',
    validate(request) {
      const { attributes, operation, object, oldObject } = request;
      if (!object || (operation !== 'CREATE' && operation !== 'UPDATE')) return;
      const { group, resource, subresource } = attributes;
      if (group === '' && resource === 'namespaces' && subresource === '') return checkNamespace(request);
      if (group === '' && resource === 'pods') {
        const isChange =
          subresource === 'ephemeralcontainers' ||
          (subresource === '' && isSignificant(object as Pod, oldObject as Pod | undefined));
        if (isChange) checkPods(request, object as PodTemplateSpec, true);
        return;
      }
      const template = subresource === '' ? templateOf(attributes, object) : undefined;
      if (template) checkPods(request, template, false);
    },
  };
}

/** Whether an update of a pod can change what the standards look at. */
function isSignificant(pod: Pod, old: Pod | undefined): boolean {
  if (!old) return true;
  const looks = ({ metadata, spec }: Pod) =>
    JSON.stringify([
      Object.entries(metadata.annotations ?? {})
        .filter(([key]) => key.includes('apparmor.security') || key.includes('seccomp.security'))
        .sort(),
      [...(spec?.initContainers ?? []), ...(spec?.containers ?? []), ...(spec?.ephemeralContainers ?? [])].map(
        ({ image }) => image,
      ),
    ]);
  return looks(pod) !== looks(old);
}
