/** Cordoned nodes take only pods that tolerate `node.kubernetes.io/unschedulable`. */

import { tolerates } from '../../api/machinery/tolerations.ts';
import { type Plugin, refuseForGood } from '../plugin.ts';

const TAINT = { key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' };

export const nodeUnschedulable: Plugin = {
  name: 'NodeUnschedulable',
  weight: 0,
  wakesOn: ['node-added', 'node-taints'],
  filter: ({ pod }) => {
    if (pod.spec?.tolerations?.some(toleration => tolerates(toleration, TAINT))) return undefined;
    return ({ node }) => (node.spec?.unschedulable ? refuseForGood('node(s) were unschedulable') : undefined);
  },
};
