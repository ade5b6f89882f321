/** A pod that names its node goes there only. */

import { type Plugin, refuseForGood } from '../plugin.ts';

export const nodeName: Plugin = {
  name: 'NodeName',
  weight: 0,
  wakesOn: ['node-added'],
  filter: ({ pod }) => {
    const wanted = pod.spec?.nodeName;
    return wanted
      ? node => (node.name === wanted ? undefined : refuseForGood("node(s) didn't match the requested node name"))
      : undefined;
  },
};
