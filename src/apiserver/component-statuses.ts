/**
 * ComponentStatuses: what the parts of the control plane say of themselves at the moment they are asked. Nothing is stored,
 * so nothing can be watched; upstream deprecates them in favour of `/readyz`, but `kubectl get componentstatuses` shows them.
 */

import type { ComponentStatus } from '../api/core/v1.gen.ts';
import { ResourceCache } from './cache.ts';
import { canonical, Entry, encode } from './entry.ts';

export interface Component {
  /** `scheduler`, `controller-manager`, `etcd-0`. */
  readonly name: string;
  /** What is wrong; undefined when nothing is. */
  readonly check: () => string | undefined;
}

export class ComponentStatuses {
  readonly #components: Component[] = [];

  add(component: Component): void {
    this.#components.push(component);
  }
  /** All of them now, as a cache that nobody else has. */
  now(prefix: string, revision: number): ResourceCache {
    const cache = new ResourceCache(prefix, revision);
    for (const { name, check } of this.#components) {
      const problem = check();
      const status: ComponentStatus = {
        kind: 'ComponentStatus',
        apiVersion: 'v1',
        metadata: { name },
        conditions: [
          problem === undefined
            ? { type: 'Healthy', status: 'True', message: 'ok' }
            : { type: 'Healthy', status: 'False', message: problem },
        ],
      };
      const object = canonical(status);
      cache.load(name, new Entry({ key: name, revision, value: encode(object), object }));
    }
    return cache;
  }
}
