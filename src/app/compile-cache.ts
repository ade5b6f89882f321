/**
 * Node writes the code that it compiled to its cache (NODE_COMPILE_CACHE, set by the launcher) only when a process ends by itself.
 * Servers and agents are killed, so they write it once, when what a start runs through has been compiled.
 */

import { flushCompileCache } from 'node:module';
import type { Clock } from '../base/clock.ts';

/** Late enough that writing does not delay anybody's start. */
const SETTLED_MS = 2000;

export function keepCompiledCode(clock: Clock): void {
  if (process.env['NODE_COMPILE_CACHE']) clock.after(SETTLED_MS, () => flushCompileCache(), { background: true });
}
