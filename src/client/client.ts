/**
 * A typed view of one resource over a Transport: what controllers, scheduler and kubelet write with.
 * `const pods = client.of<Pod>(PODS)`; then `pods.get(ns, name)`, `pods.create(pod)`, `pods.patchStatus(…)`.
 * Well-known resources are named constants in `resources.ts`.
 */

import type { KubeList, KubeObject } from '../api/meta.ts';
import { isReason, type Status } from '../base/errors.ts';
import type {
  DeleteOptions,
  ListOptions,
  PatchType,
  ResourceId,
  Target,
  Transport,
  WriteOptions,
} from './transport.ts';

export class Client {
  readonly transport: Transport;
  constructor(transport: Transport) {
    this.transport = transport;
  }
  of<T extends KubeObject>(of: ResourceId): ResourceClient<T> {
    return new ResourceClient<T>(this.transport, of);
  }
}

export class ResourceClient<T extends KubeObject> {
  readonly #transport: Transport;
  readonly #of: ResourceId;

  constructor(transport: Transport, of: ResourceId) {
    this.#transport = transport;
    this.#of = of;
  }
  #target(namespace: string | undefined, name?: string, subresource?: string): Target {
    return {
      of: this.#of,
      ...(namespace ? { namespace } : {}),
      ...(name ? { name } : {}),
      ...(subresource ? { subresource } : {}),
    };
  }
  /** Rejects with NotFound. `namespace` is '' for cluster-scoped resources. */
  get(namespace: string, name: string): Promise<T> {
    return this.#transport.get(this.#target(namespace, name)) as Promise<T>;
  }
  list(namespace = '', options?: ListOptions): Promise<KubeList<T>> {
    return this.#transport.list(this.#target(namespace), options) as Promise<KubeList<T>>;
  }
  /** The namespace is the object's own. */
  create(object: T, options?: WriteOptions): Promise<T> {
    return this.#transport.create(this.#target(object.metadata.namespace), object, options) as Promise<T>;
  }
  /** Creates the object unless it is there; whether it did. Looks first: a create that is refused has been validated all the same. */
  async ensure(object: T): Promise<boolean> {
    const { namespace = '', name } = object.metadata;
    try {
      await this.get(namespace, name);
      return false;
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
    try {
      await this.create(object);
      return true;
    } catch (error) {
      if (!isReason(error, 'AlreadyExists')) throw error;
      return false;
    }
  }
  /** Conflicts when `object.metadata.resourceVersion` is set and stale. */
  update(object: T, options?: WriteOptions): Promise<T> {
    return this.#transport.update(
      this.#target(object.metadata.namespace, object.metadata.name),
      object,
      options,
    ) as Promise<T>;
  }
  updateStatus(object: T, options?: WriteOptions): Promise<T> {
    return this.#transport.update(
      this.#target(object.metadata.namespace, object.metadata.name, 'status'),
      object,
      options,
    ) as Promise<T>;
  }
  patch(
    namespace: string,
    name: string,
    patch: unknown,
    type: PatchType = 'application/merge-patch+json',
    options?: WriteOptions,
  ): Promise<T> {
    return this.#transport.patch(this.#target(namespace, name), patch, type, options) as Promise<T>;
  }
  /** Patch of the status subresource; `patch` is the whole-object form: `{ status: … }`. */
  patchStatus(
    namespace: string,
    name: string,
    patch: unknown,
    type: PatchType = 'application/merge-patch+json',
  ): Promise<T> {
    return this.#transport.patch(this.#target(namespace, name, 'status'), patch, type) as Promise<T>;
  }
  delete(namespace: string, name: string, options?: DeleteOptions): Promise<KubeObject | Status> {
    return this.#transport.delete(this.#target(namespace, name), options);
  }
  /** POST to a subresource: `binding`, `eviction`, `token`. The body's own kind decides. */
  createSubresource(namespace: string, name: string, subresource: string, body: KubeObject): Promise<KubeObject> {
    return this.#transport.create(this.#target(namespace, name, subresource), body);
  }
}
