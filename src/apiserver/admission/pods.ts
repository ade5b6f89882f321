/** Small plugins that complete pods: DefaultTolerationSeconds, Priority and RuntimeClass. */

import type { Pod, Toleration } from '../../api/core/v1.gen.ts';
import type { RuntimeClass } from '../../api/node/v1.gen.ts';
import type { PriorityClass } from '../../api/scheduling/v1.gen.ts';
import { PRIORITY_CLASSES, RUNTIME_CLASSES } from '../../client/resources.ts';
import type { AdmissionPlugin } from '../request.ts';
import { type AdmissionContext, isAbout, isPodCreate, refusal } from './context.ts';

const TOLERATED_TAINTS = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'];
const TOLERATION_SECONDS = 300;

/** Pods stay five minutes on a node that stopped answering, unless they say otherwise. */
export function defaultTolerationSeconds(): AdmissionPlugin {
  return {
    name: 'DefaultTolerationSeconds',
    mutate(request) {
      if (!isAbout(request, '', 'pods') || !request.object || request.operation === 'CONNECT') return;
      const spec = (request.object as Pod).spec;
      if (!spec) return;
      const tolerates = (taint: string) =>
        (spec.tolerations ?? []).some(
          ({ key, effect }) => (!key || key === taint) && (!effect || effect === 'NoExecute'),
        );
      const missing = TOLERATED_TAINTS.filter(taint => !tolerates(taint));
      if (missing.length === 0) return;
      const added: Toleration[] = missing.map(key => ({
        key,
        operator: 'Exists',
        effect: 'NoExecute',
        tolerationSeconds: TOLERATION_SECONDS,
      }));
      spec.tolerations = [...(spec.tolerations ?? []), ...added];
    },
  };
}

/** Turns `priorityClassName` into `priority` and `preemptionPolicy`; only one PriorityClass may be the default. */
export function priority({ reader }: AdmissionContext): AdmissionPlugin {
  const classes = () => reader().list(PRIORITY_CLASSES) as readonly PriorityClass[];
  const defaultClass = () =>
    classes()
      .filter(candidate => candidate.globalDefault)
      .sort((a, b) => (a.value ?? 0) - (b.value ?? 0))[0];
  return {
    name: 'Priority',
    mutate(request) {
      if (!isAbout(request, '', 'pods') || !request.object) return;
      const spec = (request.object as Pod).spec;
      if (!spec) return;
      if (request.operation === 'UPDATE') {
        const old = (request.oldObject as Pod).spec;
        if (old?.priority !== undefined) spec.priority ??= old.priority;
        if (old?.preemptionPolicy !== undefined) spec.preemptionPolicy ??= old.preemptionPolicy;
        return;
      }
      let chosen = spec.priorityClassName
        ? (reader().get(PRIORITY_CLASSES, '', spec.priorityClassName) as PriorityClass | undefined)
        : undefined;
      if (spec.priorityClassName && !chosen)
        throw refusal(request, `no PriorityClass with name ${spec.priorityClassName} was found`);
      if (!chosen && (chosen = defaultClass())) spec.priorityClassName = chosen.metadata.name;
      const value = chosen?.value ?? 0;
      if (spec.priority !== undefined && spec.priority !== value)
        throw refusal(
          request,
          `the integer value of priority (${spec.priority}) must not be provided in pod spec; priority admission controller computed ${value} from the given PriorityClass name`,
        );
      spec.priority = value;
      const policy = chosen?.preemptionPolicy ?? 'PreemptLowerPriority';
      if (spec.preemptionPolicy !== undefined && spec.preemptionPolicy !== policy)
        throw refusal(
          request,
          `the string value of PreemptionPolicy (${spec.preemptionPolicy}) must not be provided in pod spec; priority admission controller computed ${policy} from the given PriorityClass name`,
        );
      spec.preemptionPolicy = policy;
    },
    validate(request) {
      if (!isAbout(request, 'scheduling.k8s.io', 'priorityclasses') || !request.object) return;
      const created = request.object as PriorityClass;
      const other = created.globalDefault ? defaultClass() : undefined;
      if (other && other.metadata.name !== created.metadata.name)
        throw refusal(
          request,
          `PriorityClass ${other.metadata.name} is already marked as default. Only one default can exist`,
        );
    },
  };
}

/** A pod's overhead, node selector and tolerations come from its RuntimeClass. */
export function runtimeClass({ reader }: AdmissionContext): AdmissionPlugin {
  const classOf = (pod: Pod) =>
    pod.spec?.runtimeClassName
      ? (reader().get(RUNTIME_CLASSES, '', pod.spec.runtimeClassName) as RuntimeClass | undefined)
      : undefined;
  const same = (a: object | undefined, b: object | undefined) =>
    JSON.stringify(Object.entries(a ?? {}).sort()) === JSON.stringify(Object.entries(b ?? {}).sort());
  return {
    name: 'RuntimeClass',
    mutate(request) {
      if (!isPodCreate(request)) return;
      const spec = (request.object as Pod).spec;
      if (!spec?.runtimeClassName) return;
      const found = classOf(request.object as Pod);
      if (!found) throw refusal(request, `pod rejected: RuntimeClass "${spec.runtimeClassName}" not found`);
      const overhead = found.overhead?.podFixed;
      if (overhead) {
        if (spec.overhead && !same(spec.overhead, overhead))
          throw refusal(request, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
        spec.overhead = { ...overhead };
      }
      for (const [key, value] of Object.entries(found.scheduling?.nodeSelector ?? {})) {
        const own = spec.nodeSelector?.[key];
        if (own !== undefined && own !== value)
          throw refusal(
            request,
            `conflict: runtimeClass.scheduling.nodeSelector[${key}] = ${value}; pod.spec.nodeSelector[${key}] = ${own}`,
          );
        spec.nodeSelector = { ...spec.nodeSelector, [key]: value };
      }
      const seen = new Set((spec.tolerations ?? []).map(toleration => JSON.stringify(toleration)));
      const added = (found.scheduling?.tolerations ?? []).filter(toleration => !seen.has(JSON.stringify(toleration)));
      if (added.length) spec.tolerations = [...(spec.tolerations ?? []), ...added];
    },
    validate(request) {
      if (!isPodCreate(request)) return;
      const pod = request.object as Pod;
      if (pod.spec?.overhead && !classOf(pod)?.overhead)
        throw refusal(request, 'pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead');
    },
  };
}
