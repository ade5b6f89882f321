/** What an Ingress says of hosts, paths and backends, read without judging it. */

import { keyOf } from '../api/meta.ts';
import type { Ingress, IngressBackend } from '../api/networking/v1.gen.ts';
import type { SecretRef } from './settings.ts';

/** The host of rules without one. */
export const ANY_HOST = '*';

export interface ServiceRef {
  readonly namespace: string;
  readonly name: string;
  /** Absent: the Service's only, or first, port. */
  readonly port?: string | number;
  /** Default TCP. */
  readonly protocol?: 'TCP' | 'UDP';
  /** Its cluster address instead of its endpoints. */
  readonly usesClusterIp?: true;
}

export function hostKey(host: string): string {
  return host === '' ? ANY_HOST : host.toLowerCase();
}

export function withoutSlash(path: string): string {
  return path.replace(/\/+$/, '');
}

export function routeId(
  ingress: Ingress,
  service: ServiceRef | undefined,
  more: readonly (string | undefined)[],
): string {
  const to = service ? `${service.name}:${service.port ?? ''}` : '-';
  return [keyOf(ingress), to, ...more.filter(part => part !== undefined)].join(' ');
}

export function serviceOf(ingress: Ingress, { service }: IngressBackend): ServiceRef | undefined {
  if (!service) return undefined;
  const port = service.port?.name || service.port?.number;
  return { namespace: ingress.metadata.namespace ?? '', name: service.name, ...(port === undefined ? {} : { port }) };
}

export function contentOf(ingress: Ingress, { resource }: IngressBackend): SecretRef | undefined {
  if (resource?.kind !== 'ConfigMap' || resource.apiGroup) return undefined;
  return { namespace: ingress.metadata.namespace ?? '', name: resource.name };
}

export function otherOfWww(host: string): string | undefined {
  if (host === ANY_HOST || host.startsWith('*')) return undefined;
  return host.startsWith('www.') ? host.slice('www.'.length) : `www.${host}`;
}

export function ruleHosts(ingress: Ingress): string[] {
  return [...new Set((ingress.spec?.rules ?? []).map(rule => hostKey(rule.host ?? '')))];
}

export function coversTls(ingress: Ingress, host: string): boolean {
  return (ingress.spec?.tls ?? []).some(
    ({ hosts }) =>
      !hosts?.length ||
      hosts.some(
        name => name.toLowerCase() === host || (name.startsWith('*.') && host.replace(/^[^.]+/, '*') === name),
      ),
  );
}
