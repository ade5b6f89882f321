/** NodeDeclaredFeatureValidator: a pod is not changed into one that its node does not know how to run. */

import type { Node, Pod } from '../../api/core/v1.gen.ts';
import { featuresNeededByUpdate, missingFeatures } from '../../api/machinery/node-features.ts';
import { NODES } from '../../client/resources.ts';
import type { AdmissionPlugin } from '../request.ts';
import { type AdmissionContext, refusal } from './context.ts';

export function nodeDeclaredFeatures({ reader }: Pick<AdmissionContext, 'reader'>): AdmissionPlugin {
  return {
    name: 'NodeDeclaredFeatureValidator',
    validate(request) {
      const { operation, attributes, object, oldObject } = request;
      const { group, resource, subresource } = attributes;
      if (operation !== 'UPDATE' || group !== '' || resource !== 'pods') return;
      if (subresource !== '' && subresource !== 'resize') return;
      const pod = object as Pod;
      const nodeName = pod.spec?.nodeName;
      if (!nodeName) return;
      const needed = featuresNeededByUpdate(pod, oldObject as Pod);
      if (needed.length === 0) return;
      const node = reader().get(NODES, '', nodeName) as Node | undefined;
      if (!node) throw refusal(request, `node ${JSON.stringify(nodeName)} not found`);
      const missing = missingFeatures(needed, node);
      if (missing.length > 0)
        throw refusal(
          request,
          `pod update requires features ${missing.join(', ')} which are not available on node ${JSON.stringify(nodeName)}`,
        );
    },
  };
}
