/**
 * The in-process door where requests are recorded: controllers and the scheduler leave the same events as if they came over HTTP, with
 * their component for a user agent.
 */

import type { KubeList, KubeObject, WatchEvent } from '../../api/meta.ts';
import { ApiError, internalError, messageOf, type Status } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import {
  type DeleteOptions,
  type ListOptions,
  type PatchType,
  pathOf,
  type Target,
  type Transport,
  type WatchOptions,
  type WriteOptions,
} from '../../client/transport.ts';
import { type InProcessOptions, InProcessTransport } from '../in-process-transport.ts';
import type { StoredObjects } from '../request.ts';
import type { Auditor } from './auditor.ts';
import type { Trail } from './trail.ts';

export class AuditedTransport implements Transport, StoredObjects {
  readonly #options: InProcessOptions;
  readonly #auditor: Auditor;
  readonly #random: Random;

  constructor(options: InProcessOptions, auditor: Auditor, random: Random) {
    this.#options = options;
    this.#auditor = auditor;
    this.#random = random;
  }

  get(target: Target): Promise<KubeObject> {
    return this.#recorded('get', target, undefined, inner => inner.get(target));
  }
  list(target: Target, options?: ListOptions): Promise<KubeList> {
    return this.#recorded('list', target, undefined, inner => inner.list(target, options));
  }
  create(target: Target, object: KubeObject, options?: WriteOptions): Promise<KubeObject> {
    return this.#recorded('create', target, object, inner => inner.create(target, object, options));
  }
  update(target: Target, object: KubeObject, options?: WriteOptions): Promise<KubeObject> {
    return this.#recorded('update', target, object, inner => inner.update(target, object, options));
  }
  patch(target: Target, patch: unknown, type: PatchType, options?: WriteOptions): Promise<KubeObject> {
    return this.#recorded('patch', target, patch, inner => inner.patch(target, patch, type, options));
  }
  delete(target: Target, options?: DeleteOptions): Promise<KubeObject | Status> {
    return this.#recorded('delete', target, options, inner => inner.delete(target, options));
  }
  deleteCollection(target: Target, options?: DeleteOptions & ListOptions): Promise<void> {
    return this.#recorded('deletecollection', target, options, inner => inner.deleteCollection(target, options));
  }
  async *watch(target: Target, options: WatchOptions, signal: AbortSignal): AsyncIterable<readonly WatchEvent[]> {
    const trail = this.#begin('watch', target);
    trail?.started(200);
    try {
      yield* this.#inner(trail).watch(target, options, signal);
    } finally {
      trail?.complete(200);
    }
  }
  /** What handlers change in the name of a request is part of that request. */
  modify(...args: Parameters<StoredObjects['modify']>): Promise<KubeObject> {
    return this.#inner(undefined).modify(...args);
  }

  async #recorded<T>(
    verb: string,
    target: Target,
    body: unknown,
    work: (inner: InProcessTransport) => Promise<T>,
  ): Promise<T> {
    const trail = this.#begin(verb, target);
    const inner = this.#inner(trail);
    if (!trail) return work(inner);
    if (body !== undefined) trail.requested(body);
    try {
      const outcome = await work(inner);
      trail.answered(() => outcome ?? {});
      trail.complete(verb === 'create' ? 201 : 200);
      return outcome;
    } catch (error) {
      const { status } = error instanceof ApiError ? error : internalError(messageOf(error));
      trail.refused(status);
      trail.complete(status.code);
      throw error;
    }
  }

  #inner(trail: Trail | undefined): InProcessTransport {
    return new InProcessTransport(trail ? { ...this.#options, trail } : this.#options);
  }

  #begin(verb: string, target: Target): Trail | undefined {
    const { of, namespace = '', name = '', subresource = '' } = target;
    const { user, component } = this.#options;
    const uri = pathOf(target);
    const trail = this.#auditor.begin({
      auditId: this.#random.uuid(),
      attributes: { ...of, verb, isResource: true, namespace, name, subresource, path: uri },
      user,
      uri,
      headers: { 'user-agent': component },
      remoteAddress: undefined,
    });
    trail?.received();
    return trail;
  }
}
