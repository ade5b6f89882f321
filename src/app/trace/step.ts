/**
 * How `cox trace` is built: an ordered list of steps (`registry.ts`), each a file in `steps/` that looks at one thing a new
 * connection meets and says what it found.
 *
 * To add a step (a policy, a load balancer, an Ingress): write `steps/NAME.ts` with `export const NAME: Step`, and put it into
 * the list at the place where a packet meets it. A step
 *   - gets the Journey: who asks (`from`), what was asked for (`target`), the live cluster (`cluster`), and what the steps
 *     before it found out (`address`, `service`, `frontend`, `endpoints`), which it may fill in or change for those after it;
 *   - returns Findings in the order in which to show them; none when it has nothing to say about this journey;
 *   - a finding of status `failure` ends the journey: the connection would not work. It says why in `text` and what to do in
 *     `next`. A `warning` is worth knowing but does not stop it;
 *   - looks only: it changes nothing, sends nothing but DNS questions, and never throws for what a cluster can be like.
 */

import type { Node, Pod, Service, ServicePort } from '../../api/core/v1.gen.ts';
import type { Endpoint, Frontend, Protocol } from '../../proxy/model.ts';
import type { LiveCluster } from './live-cluster.ts';

export interface Finding {
  readonly status: 'ok' | 'note' | 'warning' | 'failure';
  /** One line. */
  readonly text: string;
  /** What to do about it. */
  readonly next?: string;
  /** The same for programs. */
  readonly data?: Readonly<Record<string, unknown>>;
}

export interface Step {
  /** Shown before its findings. */
  readonly name: string;
  run(journey: Journey): Promise<readonly Finding[]> | readonly Finding[];
}

export type Origin =
  | { readonly kind: 'pod'; readonly pod: Pod; readonly node: string; readonly ips: readonly string[] }
  | { readonly kind: 'node'; readonly node: string; readonly ips: readonly string[] }
  /** The machine that the cluster runs on. */
  | { readonly kind: 'host'; readonly node: string; readonly ips: readonly string[] };

export interface Target {
  /** As typed. */
  readonly text: string;
  /** Name or address. */
  readonly host: string;
  /** Number, or name of a Service's port; undefined: the Service's only or first one. */
  readonly port: string | undefined;
  readonly protocol: Protocol;
  /** The host is a Service's name in the namespace of the question, whatever DNS says. */
  readonly isService: boolean;
}

export interface Journey {
  readonly cluster: LiveCluster;
  /** Who asks; behind an Ingress, the node whose data plane asks further. */
  from: Origin;
  /** What was asked for; behind an Ingress, the Service of the rule that matched. */
  target: Target;
  /** Of the question: that of the pod, or `-n`. */
  readonly namespace: string;
  /** Where the connection goes, once the name is resolved. */
  address?: string;
  /** Port of `address`, once it is known. */
  port?: number;
  service?: Service;
  servicePort?: ServicePort;
  /** How this node's proxy is to treat it. */
  frontend?: Frontend;
  /** Those that the connection may go to; the address itself where there is no Service. */
  endpoints?: readonly Endpoint[];
  /** The node that the connection is made on; its network is what steps look into. */
  readonly node: Node;
}

export interface TraceResult {
  readonly from: string;
  readonly target: string;
  readonly works: boolean;
  readonly steps: readonly { readonly name: string; readonly findings: readonly Finding[] }[];
}

export const failure = (text: string, next?: string, data?: Finding['data']): Finding => ({
  status: 'failure',
  text,
  ...(next ? { next } : {}),
  ...(data ? { data } : {}),
});
export const ok = (text: string, data?: Finding['data']): Finding => ({
  status: 'ok',
  text,
  ...(data ? { data } : {}),
});
export const note = (text: string): Finding => ({ status: 'note', text });
export const warning = (text: string, next?: string): Finding => ({
  status: 'warning',
  text,
  ...(next ? { next } : {}),
});

/** `10.0.0.1:80`, `[fd00::1]:80`. */
export const at = (ip: string, port: number | string): string =>
  ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
