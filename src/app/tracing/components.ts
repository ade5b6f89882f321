/** Which components of ours trace, and under which names: upstream's. What it takes is loaded where something is traced only. */

import { hostname } from 'node:os';
import { identityOf } from '../../apiserver/identity-lease.ts';
import type { TracingSettings } from '../../base/tracing/configuration.ts';
import type { KubeletConfiguration } from '../../kubelet/configuration.ts';
import type { Tracing, TracingContext } from './open.ts';

async function open(
  settings: TracingSettings | undefined,
  resource: () => Readonly<Record<string, string>>,
  context: TracingContext,
): Promise<Tracing | undefined> {
  if (!settings) return undefined;
  const { openTracing } = await import('./open.ts');
  return openTracing(settings, { ...context, resource: resource() });
}

/** Undefined where nothing is to be traced. */
export function apiServerTracing(
  settings: TracingSettings | undefined,
  context: TracingContext,
): Promise<Tracing | undefined> {
  const resource = () => ({ 'service.name': 'apiserver', 'service.instance.id': identityOf(hostname()) });
  return open(settings, resource, context);
}

/** Undefined where nothing is to be traced. */
export function kubeletTracing(
  configuration: Partial<KubeletConfiguration> | undefined,
  node: string,
  context: TracingContext,
): Promise<Tracing | undefined> {
  return open(configuration?.tracing, () => ({ 'service.name': 'kubelet', 'host.name': node }), context);
}
