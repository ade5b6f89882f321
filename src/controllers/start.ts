/** The one entry to the controllers: `src/app` calls it with a transport, and everything runs until the signal aborts. */

import { type Clock, systemClock } from '../base/clock.ts';
import { CLUSTER_CIDR, NODE_CIDR_MASK_SIZE } from '../base/cluster-defaults.ts';
import type { Logger } from '../base/log.ts';
import { type Random, systemRandom } from '../base/random.ts';
import { InformerFactory } from '../client/informer.ts';
import type { ResourceId, Transport } from '../client/transport.ts';
import { controllers } from './registry.ts';
import type { ClusterAuthority, ControllerDefinition } from './runtime/controller.ts';
import type { ExtensionResources } from './runtime/extension-resources.ts';
import { ControllerHost } from './runtime/host.ts';

export interface StartControllersOptions {
  readonly transport: Transport;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly caPem: string;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Pod ranges, one or one of each family; default 10.244.0.0/16. */
  readonly clusterCidrs?: readonly string[];
  /** Prefix length of a node's share of each; default 24 for IPv4, 64 for IPv6. */
  readonly nodeCidrMaskSizes?: readonly number[];
  /** Addresses for Services of type LoadBalancer, as a pool names them; default none. */
  readonly loadBalancerAddresses?: readonly string[];
  /** Signs certificates and tokens; without one nobody does. */
  readonly authority?: ClusterAuthority;
  /** Where extension APIs such as metrics.k8s.io are asked; default the transport. */
  readonly extensions?: Transport;
  /** What extension servers serve now; default nothing. */
  readonly extensionResources?: () => ExtensionResources;
  /** Shared with other components of the process; without it, one is made and started. */
  readonly informers?: InformerFactory;
  /** Whether a resource that not every server has is served; default: it is not. */
  readonly serves?: (of: ResourceId) => boolean;
  /** Default: all of them. */
  readonly definitions?: readonly ControllerDefinition[];
}

export function startControllers(options: StartControllersOptions): ControllerHost {
  const { transport, log, signal, caPem, clock = systemClock, random = systemRandom } = options;
  const clusterCidrs = options.clusterCidrs ?? [CLUSTER_CIDR.IPv4];
  const informers = options.informers ?? new InformerFactory({ transport, log });
  const host = new ControllerHost({
    transport,
    informers,
    definitions: (options.definitions ?? controllers).filter(({ needs }) => !needs || options.serves?.(needs) === true),
    settings: {
      caPem,
      clusterCidrs,
      nodeCidrMaskSizes:
        options.nodeCidrMaskSizes ??
        clusterCidrs.map(cidr => NODE_CIDR_MASK_SIZE[cidr.includes(':') ? 'IPv6' : 'IPv4']),
      loadBalancerAddresses: options.loadBalancerAddresses ?? [],
      authority: options.authority,
      ...(options.serves ? { serves: options.serves } : {}),
      ...(options.extensions ? { extensions: options.extensions } : {}),
      ...(options.extensionResources ? { extensionResources: options.extensionResources } : {}),
    },
    log,
    clock,
    random,
    signal,
  });
  informers.start(signal);
  return host;
}
