/** What policies need of Pod objects, and which pods count. Pure. */

import type { Pod as PodObject } from '../../api/core/v1.gen.ts';
import { containersOf, isPodTerminal, isSidecar, podIPs } from '../../api/machinery/pod.ts';
import { keyOf } from '../../api/meta.ts';
import type { Pod } from './peer-classes.ts';

/** Pods in the node's own network are the node to policies, and a pod that has ended has no address. */
export function takesPart(pod: PodObject): boolean {
  return !pod.spec?.hostNetwork && !isPodTerminal(pod);
}

/** `ips`: instead of those that its status tells, which comes late for pods of this node. */
export function factsOf(pod: PodObject, ips: readonly string[] = podIPs(pod)): Pod {
  const names = new Map<string, number>();
  for (const { role, container } of containersOf(pod.spec ?? { containers: [] })) {
    if (role === 'ephemeral' || (role === 'init' && !isSidecar(container))) continue;
    for (const { name, protocol = 'TCP', containerPort } of container.ports ?? [])
      if (name && !names.has(`${protocol}/${name}`)) names.set(`${protocol}/${name}`, containerPort);
  }
  return {
    key: keyOf(pod),
    uid: pod.metadata.uid ?? '',
    namespace: pod.metadata.namespace ?? '',
    labels: pod.metadata.labels,
    ips,
    names,
  };
}

export function sameFacts(a: Pod, b: Pod): boolean {
  return a === b || text(a) === text(b);
}

function text({ uid, ips, names, labels }: Pod): string {
  return JSON.stringify([uid, ips, [...names], Object.entries(labels ?? {}).sort()]);
}

/** Of a pod only what is read here: a node knows every pod of the cluster. */
export function slimPod(pod: PodObject): PodObject {
  const { name, namespace, uid, labels, resourceVersion } = pod.metadata;
  const { nodeName, hostNetwork, containers = [], initContainers } = pod.spec ?? {};
  const slim = (one: (typeof containers)[number]) => ({
    name: one.name,
    ...(one.ports?.some(port => port.name) ? { ports: one.ports } : {}),
    ...(one.restartPolicy ? { restartPolicy: one.restartPolicy } : {}),
  });
  return {
    metadata: { name, namespace, uid, labels, resourceVersion },
    spec: {
      nodeName,
      hostNetwork,
      containers: containers.filter(one => one.ports?.some(port => port.name)).map(slim),
      ...(initContainers ? { initContainers: initContainers.filter(isSidecar).map(slim) } : {}),
    },
    status: { phase: pod.status?.phase, podIP: pod.status?.podIP, podIPs: pod.status?.podIPs },
  } as PodObject;
}
