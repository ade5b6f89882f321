/** Two pods on a node cannot have the same host port, protocol and address. */

import type { HostPort } from '../node-info.ts';
import { type Plugin, refuse } from '../plugin.ts';

const conflict = (a: HostPort, b: HostPort): boolean =>
  a.port === b.port && a.protocol === b.protocol && (a.ip === b.ip || a.ip === '0.0.0.0' || b.ip === '0.0.0.0');

export const nodePorts: Plugin = {
  name: 'NodePorts',
  weight: 0,
  wakesOn: ['node-added', 'pod-removed'],
  filter: ({ hostPorts }) => {
    if (hostPorts.length === 0) return undefined;
    return node => {
      for (const other of node.pods.values()) {
        if (other.hostPorts.some(taken => hostPorts.some(wanted => conflict(taken, wanted))))
          return refuse("node(s) didn't have free ports for the requested pod ports");
      }
      return undefined;
    };
  },
};
