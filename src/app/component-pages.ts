/** `/statusz` and `/flagz` of the components that are in this process. Their code is read when somebody asks: hardly anybody does. */

import type { ZPages } from '../apiserver/z-pages.ts';
import type { Clock } from '../base/clock.ts';
import type { ZPageSource } from '../base/z-page.ts';

const PATHS = new Set(['/statusz', '/flagz']);

export interface ComponentFacts {
  readonly component: 'kubelet' | 'kube-proxy' | 'kube-scheduler' | 'kube-controller-manager';
  /** Options that it runs with, by upstream's names of them; what has no value is left out. */
  readonly flags: Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;
  /** All others that it answers to. */
  readonly paths: readonly string[];
  readonly clock: Clock;
}

export function componentPages({ component, flags, paths, clock }: ComponentFacts): ZPageSource {
  const startMs = clock.now();
  let made: Promise<ZPages> | undefined;
  const make = async (): Promise<ZPages> => {
    const { ZPages } = await import('../apiserver/z-pages.ts');
    const shown = Object.entries(flags).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, Array.isArray(value) ? value.join(',') : String(value)] as const],
    );
    return new ZPages({
      component,
      clock,
      startMs,
      flags: Object.fromEntries(shown),
      paths: () => [...paths, '/flagz'],
    });
  };
  return {
    find: async (path, accept) => {
      if (!PATHS.has(path)) return undefined;
      made ??= make();
      return (await made).find(path, accept);
    },
  };
}

/** What a kubelet answers to. */
const KUBELET_PATHS = [
  '/attach',
  '/configz',
  '/containerLogs',
  '/exec',
  '/healthz',
  '/logs',
  '/metrics',
  '/pods',
  '/portForward',
  '/runningpods',
  '/stats',
];
export const kubeletPages = (flags: ComponentFacts['flags'], clock: Clock): ZPageSource =>
  componentPages({ component: 'kubelet', flags, paths: KUBELET_PATHS, clock });
export const proxyPages = (flags: ComponentFacts['flags'], clock: Clock): ZPageSource =>
  componentPages({
    component: 'kube-proxy',
    flags: { ...flags, 'proxy-mode': 'nftables' },
    paths: ['/healthz', '/metrics', '/proxyMode'],
    clock,
  });
