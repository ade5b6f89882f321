/** What the proxy needs of whatever programs the kernel. One contract suite (`contract.ts`) holds for every implementation. */

import type { ServiceTable } from './model.ts';

export interface ProxyBackend {
  /**
   * Makes traffic follow `next`. With `prev`, the table of the last successful call, only the difference is programmed, as
   * one atomic transaction a family; without it everything is, adding to and correcting what a former process left, so that
   * no Service that is in both is ever without rules. Connections under way keep their endpoint. Repeatable after a failure.
   */
  apply(next: ServiceTable, prev?: ServiceTable): Promise<void>;
  /** Removes what is programmed but not in `next`. */
  prune(next: ServiceTable): Promise<void>;
  /** Whether somebody else has changed what `apply` programmed since the last call; cheap. The next `apply` without `prev` repairs. */
  damaged(): boolean;
  /** Calls the listener soon after such a change: ask `damaged` then. One listener. */
  onDamage(listener: () => void): void;
  close(): void;
}
