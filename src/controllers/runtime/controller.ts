/**
 * What a controller is: a name, the resources it watches and how their changes become keys, and one reconcile function.
 * Invariant: `reconcile` is level-triggered and idempotent; it reads informers, never the change that woke it, and one
 * key is never reconciled twice at a time. A controller keeps no state that a restart would lose.
 */

import type { KubeObject, ObjectKey } from '../../api/meta.ts';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { Client } from '../../client/client.ts';
import type { EventRecorder } from '../../client/event-recorder.ts';
import type { Handler, InformerFactory } from '../../client/informer.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import type { ExtensionResources } from './extension-resources.ts';

export type Change<T extends KubeObject = KubeObject> = Parameters<Handler<T>>[0];

/** Comes back after this long although nothing changed. */
export interface Result {
  readonly requeueAfterMs: number;
}

export interface Watch {
  readonly of: ResourceId;
  /** Keys (`namespace/name`) to reconcile because of the change. Runs synchronously in event order: keep it cheap. */
  readonly keys: (change: Change) => Iterable<string>;
}

/** What the whole control plane is told once. */
export interface ControllerSettings {
  /** PEM of the cluster's CA, published in every namespace as `kube-root-ca.crt`. */
  readonly caPem: string;
  /** Pod ranges, one a family: `10.244.0.0/16`. */
  readonly clusterCidrs: readonly string[];
  /** Prefix length of a node's share of each. */
  readonly nodeCidrMaskSizes: readonly number[];
  /** Prefixes and ranges of the address pool that a new cluster has; none when empty. */
  readonly loadBalancerAddresses: readonly string[];
  /** Where extension APIs such as metrics.k8s.io are asked, which a transport in process does not lead to. Default: the transport. */
  readonly extensions?: Transport;
  /** What extension servers serve now; asked again and again. Default: nothing. */
  readonly extensionResources?: () => ExtensionResources;
  /** Whether a resource that not every server has is served. Default: it is not. */
  readonly serves?: (of: ResourceId) => boolean;
  /** Signs for the cluster; without one nothing is signed. */
  readonly authority?: ClusterAuthority | undefined;
}

/** The keys of the cluster, behind what controllers may do with them. */
export interface ClusterAuthority {
  /** PEM of a certificate. Throws for a usage that there is not. */
  sign(grant: {
    readonly subject: Uint8Array;
    readonly publicKey: Uint8Array;
    readonly alternativeNames?: Uint8Array | undefined;
    readonly usages: readonly string[];
    readonly notBeforeMs: number;
    readonly notAfterMs: number;
  }): string;
  /** A token of the kind that Secrets hold; absent where the keys are not here. */
  legacyToken?(of: {
    readonly namespace: string;
    readonly secret: string;
    readonly serviceAccount: { readonly name: string; readonly uid: string };
  }): string | Promise<string>;
}

export interface ReconcileContext {
  readonly transport: Transport;
  readonly client: Client;
  readonly informers: InformerFactory;
  /** Writes events with the controller's own component name. */
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly settings: ControllerSettings;
  /** Asks for another reconcile of a key. */
  enqueue(key: string, delayMs?: number): void;
}

export interface Controller {
  readonly name: string;
  readonly watches: readonly Watch[];
  /** Keys reconciled at once; default 5, as upstream's concurrent-*-syncs. */
  readonly workers?: number;
  /** A rejection is logged and the key retried with back-off. */
  reconcile(key: ObjectKey, ctx: ReconcileContext): Promise<Result | void>;
  /** Runs once, after the watches have synced and before the first reconcile. */
  started?(ctx: ReconcileContext): void;
}

/** One line of the registry. `folder` is its folder's name, `component` the source of its events. */
export interface ControllerDefinition {
  /** Started only where the server serves it. */
  readonly needs?: ResourceId;
  readonly folder: string;
  readonly component: string;
  create(ctx: ReconcileContext): Controller;
}

/** Types the objects of one watch. */
export function watch<T extends KubeObject>(of: ResourceId, keys: (change: Change<T>) => Iterable<string>): Watch {
  return { of, keys: keys as unknown as Watch['keys'] };
}

/** The newest object of a change, also when it is deleted. */
export function latest<T extends KubeObject>(change: Change<T>): T {
  return change.deleted ? change.old : change.object;
}
