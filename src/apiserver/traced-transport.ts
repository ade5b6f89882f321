/**
 * The in-process door where requests are traced: what controllers and the scheduler ask is a span as if it came over HTTP, with their
 * component for a user agent, and part of the request that it was asked for. Watches, which they have for as long as they live, are none.
 */

import type { KubeList, KubeObject, WatchEvent } from '../api/meta.ts';
import { ApiError, type Status } from '../base/errors.ts';
import { activeSpan, within } from '../base/tracing/active.ts';
import type { Tracer } from '../base/tracing/span.ts';
import {
  type DeleteOptions,
  type ListOptions,
  type PatchType,
  pathOf,
  type Target,
  type Transport,
  type WatchOptions,
  type WriteOptions,
} from '../client/transport.ts';
import type { StoredObjects } from './request.ts';
import { spanName } from './request-trace.ts';

export class TracedTransport implements Transport, StoredObjects {
  readonly #inner: Transport & StoredObjects;
  readonly #tracer: Tracer;
  readonly #component: string;

  constructor(inner: Transport & StoredObjects, tracer: Tracer, component: string) {
    this.#inner = inner;
    this.#tracer = tracer;
    this.#component = component;
  }

  get(target: Target): Promise<KubeObject> {
    return this.#traced('GET', target, () => this.#inner.get(target));
  }
  list(target: Target, options?: ListOptions): Promise<KubeList> {
    return this.#traced('GET', target, () => this.#inner.list(target, options));
  }
  create(target: Target, object: KubeObject, options?: WriteOptions): Promise<KubeObject> {
    return this.#traced('POST', target, () => this.#inner.create(target, object, options));
  }
  update(target: Target, object: KubeObject, options?: WriteOptions): Promise<KubeObject> {
    return this.#traced('PUT', target, () => this.#inner.update(target, object, options));
  }
  patch(target: Target, patch: unknown, type: PatchType, options?: WriteOptions): Promise<KubeObject> {
    return this.#traced('PATCH', target, () => this.#inner.patch(target, patch, type, options));
  }
  delete(target: Target, options?: DeleteOptions): Promise<KubeObject | Status> {
    return this.#traced('DELETE', target, () => this.#inner.delete(target, options));
  }
  deleteCollection(target: Target, options?: DeleteOptions & ListOptions): Promise<void> {
    return this.#traced('DELETE', target, () => this.#inner.deleteCollection(target, options));
  }
  watch(target: Target, options: WatchOptions, signal: AbortSignal): AsyncIterable<readonly WatchEvent[]> {
    return this.#inner.watch(target, options, signal);
  }
  /** What handlers change in the name of a request is part of that request. */
  modify(...args: Parameters<StoredObjects['modify']>): Promise<KubeObject> {
    return this.#inner.modify(...args);
  }

  async #traced<T>(method: string, target: Target, work: () => Promise<T>): Promise<T> {
    const { of, namespace = '', name = '', subresource = '' } = target;
    const span = this.#tracer.start(
      spanName(method, { ...of, isResource: true, namespace, name, subresource }),
      activeSpan()?.context,
      {
        kind: 'server',
        attributes: () => ({
          'http.request.method': method,
          'url.path': pathOf(target),
          'user_agent.original': this.#component,
        }),
      },
    );
    let code = method === 'POST' ? 201 : 200;
    try {
      return await within({ span }, work);
    } catch (error) {
      code = error instanceof ApiError ? error.code : 500;
      throw error;
    } finally {
      span.set({ 'http.response.status_code': code });
      if (code >= 500) span.fail('');
      span.end();
    }
  }
}
