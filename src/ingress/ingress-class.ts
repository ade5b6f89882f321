/**
 * Which Ingresses are ours: those whose class, by field or by the old annotation, is an IngressClass of our controller. A class may
 * name a ConfigMap whose keys are annotation names without prefix: defaults for its Ingresses, and a few settings of the listeners.
 */

import type { Ingress, IngressClass } from '../api/networking/v1.gen.ts';
import type { SecretRef } from './settings.ts';

export const CONTROLLER = 'coxswain.dev/ingress';
export const CLASS_NAME = 'coxswain';
const CLASS_ANNOTATION = 'kubernetes.io/ingress.class';
/** On an IngressClass: `namespace` keeps a host to the namespace that had it first. */
const HOST_OWNERSHIP = 'ingress.coxswain.dev/host-ownership';

/** Keys of the class's ConfigMap that concern all connections. */
const LISTENER_KEYS = ['use-proxy-protocol', 'use-forwarded-headers'] as const;

export interface Listening {
  /** Connections begin with a PROXY protocol header, v1 or v2. */
  readonly proxyProtocol: boolean;
  /** X-Forwarded-* headers of clients are believed. */
  readonly trustsForwarded: boolean;
}

export function className(ingress: Ingress): string | undefined {
  return ingress.spec?.ingressClassName ?? ingress.metadata.annotations?.[CLASS_ANNOTATION];
}

export function isOurs(ingressClass: IngressClass | undefined): ingressClass is IngressClass {
  return ingressClass?.spec?.controller === CONTROLLER;
}

/** The ConfigMap with a class's settings, if it names one that we understand. */
export function parametersOf(ingressClass: IngressClass): SecretRef | undefined {
  const parameters = ingressClass.spec?.parameters;
  if (parameters?.kind !== 'ConfigMap' || parameters.apiGroup) return undefined;
  return { namespace: parameters.namespace ?? 'kube-system', name: parameters.name };
}

export function ownsHostsByNamespace(ingressClass: IngressClass): boolean {
  return ingressClass.metadata.annotations?.[HOST_OWNERSHIP] === 'namespace';
}

export function splitClassSettings(data: Readonly<Record<string, string>>): {
  readonly defaults: Record<string, string>;
  readonly listening: Listening;
} {
  const defaults = Object.fromEntries(
    Object.entries(data).filter(([key]) => !(LISTENER_KEYS as readonly string[]).includes(key)),
  );
  return {
    defaults,
    listening: {
      proxyProtocol: data['use-proxy-protocol'] === 'true',
      trustsForwarded: data['use-forwarded-headers'] === 'true',
    },
  };
}
