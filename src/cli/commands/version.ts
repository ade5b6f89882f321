/** `cox version`: which Coxswain, which Kubernetes, which runtime. */

import { COXSWAIN_VERSION, KUBERNETES_VERSION } from '../../base/cluster-defaults.ts';
import { type Command, printJson } from '../command.ts';

export const command: Command = {
  name: 'version',
  summary: 'show versions',
  usage: '',
  run({ json }) {
    const versions = { coxswain: COXSWAIN_VERSION, kubernetes: KUBERNETES_VERSION.git, node: process.version };
    if (json) printJson(versions);
    else
      process.stdout.write(`coxswain ${versions.coxswain}, kubernetes ${versions.kubernetes}, node ${versions.node}\n`);
  },
};
