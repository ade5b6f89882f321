/**
 * Which resources are served, how each is stored, and how their objects behave. Invariant: all versions of a kind share
 * one storage resource, hence one key space and one cache. It holds no objects.
 */

import type { Kind } from '../api/kind.ts';
import { kindFor } from '../api/kinds.ts';
import { builtinResources } from '../api/resources.ts';
import type { ResourceInfo, SubresourceInfo } from '../api/schema.ts';
import type { ResourceId } from '../client/transport.ts';

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
}

export class ResourceTable {
  /** By plural, which few groups share: asked many times a request, without making a key for it. */
  readonly #byResource = new Map<string, Served[]>();
  readonly #byKind = new Map<string, Served>();
  readonly #infos: ResourceInfo[];

  constructor(infos: readonly ResourceInfo[] = builtinResources) {
    this.#infos = [...infos];
  }

  /** In the order in which discovery lists them. */
  get infos(): readonly ResourceInfo[] {
    return this.#infos;
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
    for (const info of this.#infos) {
      const home = info.storageVersion;
      const stored = home
        ? (this.#infos.find(
            other => other.group === home.group && other.version === home.version && other.kind === info.kind,
          ) ?? info)
        : info;
      const served: Served = {
        info,
        stored,
        kind: kindFor(stored.group, stored.version, stored.kind),
        prefix: `/registry/${stored.group || 'core'}/${stored.resource}/`,
        persistent: info.verbs.includes('get') || info.verbs.includes('list'),
      };
      const same = this.#byResource.get(info.resource);
      if (same) same.push(served);
      else this.#byResource.set(info.resource, [served]);
      this.#byKind.set(`${info.group}/${info.version}/${info.kind}`, served);
    }
  }
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
