/** A backend that only remembers: for tests of the proxy, and what the contract suite compares real ones with. */

import type { ProxyBackend } from './backend.ts';
import type { ServiceEntry, ServiceTable } from './model.ts';

export class MemoryBackend implements ProxyBackend {
  readonly programmed = new Map<string, ServiceEntry>();
  /** For each call of `apply`, how many Services it changed. */
  readonly calls: number[] = [];
  /** Set to make the next calls fail. */
  failing: Error | undefined;
  isDamaged = false;
  /** What a test calls after it has taken something away. */
  damage = () => {};

  async apply(next: ServiceTable, prev?: ServiceTable): Promise<void> {
    if (this.failing) throw this.failing;
    let changed = 0;
    for (const [key, entry] of next) {
      if (prev?.get(key) === entry) continue;
      this.programmed.set(key, entry);
      changed++;
    }
    for (const key of prev?.keys() ?? []) if (!next.has(key)) changed += Number(this.programmed.delete(key));
    this.calls.push(changed);
    this.isDamaged = false;
  }
  async prune(next: ServiceTable): Promise<void> {
    for (const key of this.programmed.keys()) if (!next.has(key)) this.programmed.delete(key);
  }
  damaged(): boolean {
    return this.isDamaged;
  }
  onDamage(listener: () => void): void {
    this.damage = () => {
      this.isDamaged = true;
      listener();
    };
  }
  close(): void {}
}
