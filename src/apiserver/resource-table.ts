/**
 * Which resources are served, how each is stored, and how their objects behave. Invariant: all versions of a kind share
 * one storage resource, hence one key space and one cache. It holds no objects.
 */

import type { Kind } from '../api/kind.ts';
import { kindFor } from '../api/kinds.ts';
import type { KubeObject } from '../api/meta.ts';
import { builtinResources } from '../api/resources.ts';
import type { ResourceInfo, SubresourceInfo } from '../api/schema.ts';
import type { FieldProblems, FieldValidation } from '../api/structural.ts';
import type { ResourceId } from '../client/transport.ts';
import type { FieldTable, Scope } from './apply/structure.ts';

/**
 * How objects of a custom resource are read and written in one of its versions. A request for one runs through all its
 * steps in the version that it names, unlike those for built-in kinds, and is converted only to be stored.
 */
export interface CustomShape {
  check(object: unknown, mode: FieldValidation, text?: string): FieldProblems;
  /** The body as it is worked on: unknown fields gone, defaults filled in. It may share parts with what it was given. */
  decode(object: KubeObject): KubeObject;
  /** As stored, in the storage version. */
  store(object: KubeObject): KubeObject;
  /** A stored object in this version, frozen; made once. */
  show(object: KubeObject): KubeObject;
  /**
   * With a conversion webhook: asks it for everything that `show` will need. Without having been asked for, `show` only
   * renames the version.
   */
  prepare?(objects: readonly KubeObject[]): Promise<void> | undefined;
  /** With a conversion webhook: the object in the storage version, for `store`. */
  toStored?(object: KubeObject): Promise<KubeObject> | undefined;
  fields(scope: Scope): FieldTable;
  /** `openAPIV3Schema` of the version. */
  readonly published: object;
  /** Aborted when the definition changes or goes: what runs by it must begin anew. */
  readonly ended: AbortSignal;
}

/** One served resource with everything derived from it. */
export interface Served {
  readonly info: ResourceInfo;
  /** The version in which objects are stored; `info` itself for most. */
  readonly stored: ResourceInfo;
  /** Behaviour of the stored kind. */
  readonly kind: Kind | undefined;
  /** `/registry/apps/deployments/`: prefix of the keys of its objects. */
  readonly prefix: string;
  /** False for resources that only answer creates (reviews, bindings). */
  readonly persistent: boolean;
  readonly custom?: CustomShape;
}

export class ResourceTable {
  /** By plural, which few groups share: asked many times a request, without making a key for it. */
  readonly #byResource = new Map<string, Served[]>();
  readonly #byKind = new Map<string, Served>();
  readonly #builtin: readonly ResourceInfo[];
  /** By the uid of the definition. */
  readonly #custom = new Map<string, readonly Served[]>();
  #infos: readonly ResourceInfo[];
  #version = 0;

  constructor(infos: readonly ResourceInfo[] = builtinResources) {
    this.#builtin = infos;
    this.#infos = infos;
  }

  /** In the order in which discovery lists them. */
  get infos(): readonly ResourceInfo[] {
    return this.#infos;
  }
  /** What is served without definitions: all but custom resources. */
  get builtin(): readonly ResourceInfo[] {
    return this.#builtin;
  }
  /** Grows with every change of what is served. */
  get version(): number {
    return this.#version;
  }
  get custom(): readonly Served[] {
    return [...this.#custom.values()].flat();
  }
  /** Serves what a definition defines, in place of what it defined before; nothing for an empty list. */
  setCustom(definition: string, served: readonly Served[]): void {
    if (served.length === 0 && !this.#custom.has(definition)) return;
    if (served.length > 0) this.#custom.set(definition, served);
    else this.#custom.delete(definition);
    this.#infos = [...this.#builtin, ...this.custom.map(({ info }) => info)];
    this.#byResource.clear();
    this.#byKind.clear();
    this.#version++;
  }
  find(group: string, version: string, resource: string): Served | undefined {
    this.#build();
    const found = this.#byResource.get(resource);
    if (found)
      for (const served of found) if (served.info.group === group && served.info.version === version) return served;
    return undefined;
  }
  of(id: ResourceId): Served | undefined {
    return this.find(id.group, id.version, id.resource);
  }
  ofKind(group: string, version: string, kind: string): Served | undefined {
    this.#build();
    return this.#byKind.get(`${group}/${version}/${kind}`);
  }

  #build(): void {
    if (this.#byResource.size > 0) return;
    for (const info of this.#builtin) {
      const home = info.storageVersion;
      const stored = home
        ? (this.#builtin.find(
            other => other.group === home.group && other.version === home.version && other.kind === info.kind,
          ) ?? info)
        : info;
      this.#add({
        info,
        stored,
        kind: kindFor(stored.group, stored.version, stored.kind),
        prefix: `/registry/${stored.group || 'core'}/${stored.resource}/`,
        persistent: info.verbs.includes('get') || info.verbs.includes('list'),
      });
    }
    for (const served of this.custom) this.#add(served);
  }
  #add(served: Served): void {
    const { info } = served;
    const same = this.#byResource.get(info.resource);
    if (same) same.push(served);
    else this.#byResource.set(info.resource, [served]);
    this.#byKind.set(`${info.group}/${info.version}/${info.kind}`, served);
  }
}

/** `deployments.apps`, as upstream tells a resource of any version. */
export function groupResource({ group, resource }: ResourceInfo): string {
  return group ? `${resource}.${group}` : resource;
}
/** Where an object is kept, as upstream tells it: without what is before all keys. */
export function storeKey({ prefix }: Served, key: string): string {
  return prefix.replace(/^\/registry/, '') + key;
}

export function apiVersionOf(info: { readonly group: string; readonly version: string }): string {
  return info.group === '' ? info.version : `${info.group}/${info.version}`;
}

export function splitApiVersion(apiVersion: string): { group: string; version: string } {
  const slash = apiVersion.indexOf('/');
  return slash < 0
    ? { group: '', version: apiVersion }
    : { group: apiVersion.slice(0, slash), version: apiVersion.slice(slash + 1) };
}

export function subresourceOf(info: ResourceInfo, name: string): SubresourceInfo | undefined {
  return info.subresources.find(subresource => subresource.name === name);
}
