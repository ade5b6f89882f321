/** Every plugin, in the order in which a query passes them (that of CoreDNS's plugin.cfg). To add one: a file and a line here. */

import { cache } from './cache.ts';
import { health, prometheus, ready } from './endpoints.ts';
import { forward } from './forward.ts';
import { hosts } from './hosts.ts';
import { kubernetes } from './kubernetes.ts';
import { log } from './log.ts';
import type { Plugin } from './plugin.ts';
import { rewrite } from './rewrite.ts';
import { errors, loadbalance, loop, reload } from './switches.ts';
import { template } from './template.ts';

export const PLUGINS: readonly Plugin[] = [
  reload,
  ready,
  health,
  prometheus,
  errors,
  log,
  loadbalance,
  cache,
  rewrite,
  template,
  hosts,
  kubernetes,
  loop,
  forward,
];
