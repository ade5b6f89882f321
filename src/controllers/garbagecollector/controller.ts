/**
 * The garbage collector: deletes objects whose owners are all gone, in the background, in the foreground (dependents
 * first) or not at all (orphan). Invariant: an owner that the informers do not show is looked up on the server before
 * anything is deleted for its absence; a delete names uid and resourceVersion, so that a fresh adoption wins.
 */

import { type KubeObject, type OwnerReference, splitKey } from '../../api/meta.ts';
import { resourceByKind } from '../../api/resources.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { isReason } from '../../base/errors.ts';
import { Client } from '../../client/client.ts';
import { InformerFactory } from '../../client/informer.ts';
import type { DeleteOptions, Transport } from '../../client/transport.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';
import { followCustomResources } from '../runtime/custom-resources.ts';
import { followExtensionResources, transportOf } from '../runtime/extension-resources.ts';
import { deletableResources, idOf } from '../runtime/resources.ts';
import { awaitsDependents, FOREGROUND, Graph, hasFinalizer, type Item, isDeleting, ORPHAN } from './graph.ts';

interface References {
  readonly solid: OwnerReference[];
  readonly dangling: OwnerReference[];
  /** The owner waits in the foreground for this object to go. */
  readonly awaited: OwnerReference[];
}

class Collector {
  readonly #ctx: ReconcileContext;
  readonly graph = new Graph();
  /** Built-in ones by `group/resource`. */
  readonly followed: ReadonlyMap<string, ResourceInfo>;
  /** Custom resources and those of extension servers by `group/kind`. */
  readonly #others = new Map<string, ResourceInfo>();
  /** Of extension servers: by `group/resource`. */
  readonly #extensions = new Set<string>();
  readonly #extensionInformers: InformerFactory;

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
    const { log, settings, signal, transport } = ctx;
    this.followed = new Map(
      deletableResources({ events: false, serves: settings.serves }).map(info => [
        `${info.group}/${info.resource}`,
        info,
      ]),
    );
    this.#extensionInformers = new InformerFactory({ transport: settings.extensions ?? transport, log });
    this.#extensionInformers.start(signal);
  }

  #isExtension({ group, resource }: ResourceInfo): boolean {
    return this.#extensions.has(`${group}/${resource}`);
  }
  #transport(info: ResourceInfo): Transport {
    return transportOf(this.#ctx, this.#isExtension(info));
  }
  #informers(info: ResourceInfo): InformerFactory {
    return this.#isExtension(info) ? this.#extensionInformers : this.#ctx.informers;
  }

  /** Follows the objects of custom resources and extension servers as those of built-in ones. */
  followOthers(): void {
    const { enqueue } = this.#ctx;
    const follow = {
      added: (info: ResourceInfo) => {
        this.#others.set(`${info.group}/${info.kind}`, info);
        this.#informers(info)
          .get(idOf(info))
          .onChange(change => {
            for (const uid of this.graph.apply(info, change)) enqueue(uid);
          });
      },
      removed: (info: ResourceInfo) => {
        this.#others.delete(`${info.group}/${info.kind}`);
        const informers = this.#informers(info);
        const gone = [...informers.get(idOf(info)).values()];
        informers.release(idOf(info));
        for (const old of gone)
          for (const uid of this.graph.apply(info, { object: undefined, old, deleted: true })) enqueue(uid);
      },
    };
    followCustomResources(this.#ctx, follow);
    followExtensionResources(this.#ctx, {
      added: info => {
        this.#extensions.add(`${info.group}/${info.resource}`);
        follow.added(info);
      },
      removed: info => {
        follow.removed(info);
        this.#extensions.delete(`${info.group}/${info.resource}`);
      },
    });
  }

  #ownerInfo({ apiVersion, kind }: OwnerReference): ResourceInfo | undefined {
    const slash = apiVersion.indexOf('/');
    const group = slash < 0 ? '' : apiVersion.slice(0, slash);
    const other = this.#others.get(`${group}/${kind}`);
    if (other) return other;
    const info = resourceByKind(group, apiVersion.slice(slash + 1), kind);
    return info && this.followed.get(`${info.group}/${info.resource}`);
  }

  #object(item: Item): KubeObject | undefined {
    return this.#informers(item.info).get(idOf(item.info)).get(item.key);
  }

  async collect(uid: string): Promise<void> {
    const item = this.graph.item(uid);
    const object = item && this.#object(item);
    if (!item || !object || object.metadata.uid !== uid) return;
    if (isDeleting(object)) {
      if (hasFinalizer(object, ORPHAN)) await this.#orphan(item, object);
      else if (hasFinalizer(object, FOREGROUND)) await this.#foreground(item, object);
      return;
    }
    if (item.owners.length === 0) return;
    const { solid, dangling, awaited } = await this.#classify(item, object);
    if (dangling.length === 0 && awaited.length === 0) return;
    if (solid.length > 0) return this.#dropOwners(item, object, [...dangling, ...awaited]);
    const hasDependents = this.graph.dependentsOf(uid).length > 0;
    if (awaited.length > 0 && hasDependents) {
      if (this.graph.dependentsOf(uid).some(dependent => this.#isWaiting(dependent))) await this.#unblock(item, object);
      return this.#delete(item, object, 'Foreground');
    }
    return this.#delete(
      item,
      object,
      hasFinalizer(object, ORPHAN) ? 'Orphan' : hasFinalizer(object, FOREGROUND) ? 'Foreground' : 'Background',
    );
  }

  #isWaiting(item: Item): boolean {
    const object = this.#object(item);
    return object !== undefined && awaitsDependents(object);
  }

  async #classify(item: Item, object: KubeObject): Promise<References> {
    const references: References = { solid: [], dangling: [], awaited: [] };
    for (const reference of item.owners) {
      const info = this.#ownerInfo(reference);
      // An owner of a kind that is not served, or out of reach of a cluster-scoped object, can be neither found nor missed.
      if (!info || (info.namespaced && !object.metadata.namespace)) {
        references.solid.push(reference);
        continue;
      }
      const owner = await this.#owner(reference, info, info.namespaced ? object.metadata.namespace! : '');
      if (!owner) references.dangling.push(reference);
      else if (awaitsDependents(owner)) references.awaited.push(reference);
      else references.solid.push(reference);
    }
    return references;
  }

  async #owner(reference: OwnerReference, info: ResourceInfo, namespace: string): Promise<KubeObject | undefined> {
    const cached = this.#informers(info)
      .get(idOf(info))
      .get(namespace ? `${namespace}/${reference.name}` : reference.name);
    if (cached?.metadata.uid === reference.uid) return cached;
    try {
      const live = await this.#transport(info).get({
        of: idOf(info),
        ...(namespace ? { namespace } : {}),
        name: reference.name,
      });
      return live.metadata.uid === reference.uid ? live : undefined;
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined;
      throw error;
    }
  }

  /** Its dependents that block go first; then the finalizer, and with it the object. */
  async #foreground(item: Item, object: KubeObject): Promise<void> {
    const blocking = this.graph
      .dependentsOf(item.uid)
      .filter(dependent => dependent.owners.some(owner => owner.uid === item.uid && owner.blockOwnerDeletion));
    if (blocking.length === 0) return this.#dropFinalizer(item, object, FOREGROUND);
    for (const dependent of blocking) this.#ctx.enqueue(dependent.uid);
  }

  async #orphan(item: Item, object: KubeObject): Promise<void> {
    await Promise.all(
      this.graph.dependentsOf(item.uid).map(async dependent => {
        const found = this.#object(dependent);
        if (found)
          await this.#dropOwners(
            dependent,
            found,
            dependent.owners.filter(owner => owner.uid === item.uid),
          );
      }),
    );
    await this.#dropFinalizer(item, object, ORPHAN);
  }

  async #patch(item: Item, object: KubeObject, metadata: Record<string, unknown>): Promise<void> {
    const { namespace, name } = splitKey(item.key);
    const { uid, resourceVersion } = object.metadata;
    try {
      await new Client(this.#transport(item.info))
        .of(idOf(item.info))
        .patch(namespace, name, { metadata: { ...metadata, uid, resourceVersion } });
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }
  #dropOwners(item: Item, object: KubeObject, gone: readonly OwnerReference[]): Promise<void> {
    const uids = new Set(gone.map(owner => owner.uid));
    return this.#patch(item, object, { ownerReferences: item.owners.filter(owner => !uids.has(owner.uid)) });
  }
  #dropFinalizer(item: Item, object: KubeObject, finalizer: string): Promise<void> {
    return this.#patch(item, object, {
      finalizers: (object.metadata.finalizers ?? []).filter(found => found !== finalizer),
    });
  }
  // A cycle of foreground deletions would never end: this object stops blocking its owners.
  #unblock(item: Item, object: KubeObject): Promise<void> {
    return this.#patch(item, object, {
      ownerReferences: item.owners.map(owner =>
        owner.blockOwnerDeletion ? { ...owner, blockOwnerDeletion: false } : owner,
      ),
    });
  }

  async #delete(
    item: Item,
    object: KubeObject,
    propagationPolicy: NonNullable<DeleteOptions['propagationPolicy']>,
  ): Promise<void> {
    const { namespace, name } = splitKey(item.key);
    const { uid, resourceVersion } = object.metadata;
    try {
      await new Client(this.#transport(item.info)).of(idOf(item.info)).delete(namespace, name, {
        propagationPolicy,
        preconditions: { uid: uid!, ...(resourceVersion ? { resourceVersion } : {}) },
      });
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }
}

function create(ctx: ReconcileContext): Controller {
  const collector = new Collector(ctx);
  return {
    name: 'garbagecollector',
    workers: 20,
    watches: [...collector.followed.values()].map(info =>
      watch(idOf(info), change => collector.graph.apply(info, change)),
    ),
    started: () => collector.followOthers(),
    reconcile: ({ name }) => collector.collect(name),
  };
}

export const garbageCollector: ControllerDefinition = {
  folder: 'garbagecollector',
  component: 'garbage-collector-controller',
  create,
};
