/** PodResizeValidator: a pod that has a node is not resized beyond what that node could ever give it, nor on one that cannot resize. */

import type { Node, Pod } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { podRequests, resourceAmounts } from '../../api/machinery/pod.ts';
import { NODES } from '../../client/resources.ts';
import type { AdmissionPlugin } from '../request.ts';
import { type AdmissionContext, refusal } from './context.ts';

const OS_LABEL = 'kubernetes.io/os';

export function podResize({ reader }: Pick<AdmissionContext, 'reader'>): AdmissionPlugin {
  return {
    name: 'PodResizeValidator',
    validate(request) {
      const { operation, attributes, object, oldObject } = request;
      const { group, resource, subresource } = attributes;
      if (operation !== 'UPDATE' || group !== '' || resource !== 'pods' || subresource !== 'resize') return;
      const { spec } = object as Pod;
      if (!spec?.nodeName || semanticEqual(spec, (oldObject as Pod).spec)) return;
      const node = reader().get(NODES, '', spec.nodeName) as Node | undefined;
      if (!node) throw refusal(request, `node ${JSON.stringify(spec.nodeName)} not found`);
      const wanted = podRequests(spec);
      const there = resourceAmounts(node.status?.allocatable);
      const short = ['cpu', 'memory']
        .filter(name => (wanted[name] ?? 0) > (there[name] ?? 0))
        .map(name => `${name}, requested: ${wanted[name]}, allocatable: ${there[name] ?? 0}`);
      if (short.length > 0)
        throw refusal(request, `Node didn't have enough allocatable resources: ${short.join('; ')}`);
      const os = node.metadata.labels?.[OS_LABEL] ?? '';
      if (os !== 'linux')
        throw refusal(
          request,
          `pod resize is only supported on linux nodes, node ${JSON.stringify(spec.nodeName)} is ${JSON.stringify(os)}`,
        );
    },
  };
}
