/**
 * Discovery: /api, /apis and the lists below them, and the aggregated form that kubectl asks for. Everything follows from
 * the resource table; replies are made once and kept as bytes, with the ETag that clients revalidate with.
 */

import { createHash } from 'node:crypto';
import { apiGroupOrder } from '../api/resources.ts';
import type { ResourceInfo, SubresourceInfo } from '../api/schema.ts';
import type { ExternalVersion } from './aggregation/aggregator.ts';
import { compareVersions } from './customresources/version-order.ts';
import { apiVersionOf, type ResourceTable } from './resource-table.ts';

/** Group-versions that other servers serve. */
export interface External {
  readonly version: number;
  readonly versions: readonly ExternalVersion[];
}

/** Of the groups of custom resources. */
const CUSTOM_PRIORITY = 1000;

export interface Document {
  readonly value: unknown;
  readonly bytes: Buffer;
  readonly etag: string;
}

export class Discovery {
  readonly #table: ResourceTable;
  readonly #external: External | undefined;
  readonly #documents = new Map<string, Document | undefined>();
  /** Of the table, when the documents were made. */
  #version = 0;

  constructor(table: ResourceTable, external?: External) {
    this.#table = table;
    this.#external = external;
  }

  /** The document of a path without its trailing slash; `aggregated` only matters for /api and /apis. */
  find(path: string, aggregated: boolean): Document | undefined {
    const version = this.#table.version + (this.#external?.version ?? 0);
    if (this.#version !== version) this.#documents.clear();
    this.#version = version;
    const id = `${path}?${aggregated}`;
    if (!this.#documents.has(id)) {
      const value = aggregated ? this.#aggregated(path) : this.#plain(path);
      // Guessed paths must not fill memory.
      if (value === undefined) return undefined;
      this.#documents.set(id, documentOf(value));
    }
    return this.#documents.get(id);
  }
  /** Paths for the root document. */
  paths(): string[] {
    const paths = ['/api', '/apis'];
    for (const { group, versions } of this.#groups()) {
      if (group !== '') paths.push(`/apis/${group}`);
      for (const version of versions) paths.push(group === '' ? `/api/${version}` : `/apis/${group}/${version}`);
    }
    return paths;
  }

  #groups(): { group: string; versions: readonly string[] }[] {
    const served = new Set(this.#table.infos.map(info => `${info.group}/${info.version}`));
    const groups = apiGroupOrder
      .map(({ group, versions }) => ({
        group,
        versions: versions.filter(version => served.has(`${group}/${version}`)),
      }))
      .filter(({ versions }) => versions.length > 0);
    const others: typeof groups = [];
    for (const { group, version } of this.#table.infos) {
      const known = groups.find(other => other.group === group) ?? others.find(other => other.group === group);
      if (!known) others.push({ group, versions: [version] });
      else if (!known.versions.includes(version)) known.versions.push(version);
    }
    const priorities = new Map<string, number>();
    for (const { group, version, priority } of this.#external?.versions ?? []) {
      const known = groups.find(other => other.group === group) ?? others.find(other => other.group === group);
      if (!known) others.push({ group, versions: [version] });
      else if (!known.versions.includes(version)) known.versions.push(version);
      priorities.set(group, Math.max(priority, priorities.get(group) ?? 0));
    }
    // Several definitions may share a group.
    for (const { versions } of others) versions.sort(compareVersions);
    const priority = (group: string) => priorities.get(group) ?? CUSTOM_PRIORITY;
    others.sort((a, b) => priority(b.group) - priority(a.group) || (a.group < b.group ? -1 : 1));
    return [...groups, ...others];
  }
  #infos(group: string, version: string): ResourceInfo[] {
    return this.#table.infos.filter(info => info.group === group && info.version === version);
  }

  #plain(path: string): unknown {
    if (path === '/api')
      return {
        kind: 'APIVersions',
        versions: ['v1'],
        serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress: '' }],
      };
    const named = this.#groups().filter(({ group }) => group !== '');
    if (path === '/apis')
      return { kind: 'APIGroupList', apiVersion: 'v1', groups: named.map(entry => groupDocument(entry)) };
    const parts = path.split('/').slice(1);
    if (parts[0] === 'api' && parts.length === 2) return this.#resourceList('', parts[1]!);
    if (parts[0] !== 'apis') return undefined;
    if (parts.length === 2) {
      const found = named.find(({ group }) => group === parts[1]);
      return found && { kind: 'APIGroup', apiVersion: 'v1', ...groupDocument(found) };
    }
    return parts.length === 3 ? this.#resourceList(parts[1]!, parts[2]!) : undefined;
  }
  #resourceList(group: string, version: string): unknown {
    const infos = this.#infos(group, version);
    if (infos.length === 0) return undefined;
    const resources = infos.flatMap(info => [
      resourceDocument(info),
      ...info.subresources.map(sub => subresourceDocument(info, sub)),
    ]);
    return {
      kind: 'APIResourceList',
      ...(group === '' ? {} : { apiVersion: 'v1' }),
      groupVersion: apiVersionOf({ group, version }),
      resources: resources.sort((a, b) => (a.name < b.name ? -1 : 1)),
    };
  }

  #aggregated(path: string): unknown {
    const wanted = this.#groups().filter(({ group }) => (group === '') === (path === '/api'));
    return {
      kind: 'APIGroupDiscoveryList',
      apiVersion: 'apidiscovery.k8s.io/v2',
      metadata: {},
      items: wanted.map(({ group, versions }) => ({
        metadata: group === '' ? {} : { name: group },
        versions: versions.map(version => this.#aggregatedVersion(group, version)),
      })),
    };
  }
  #aggregatedVersion(group: string, version: string): unknown {
    const external = this.#external?.versions.find(one => one.group === group && one.version === version);
    const own = this.#infos(group, version);
    if (external && own.length === 0)
      return { version, freshness: external.isFresh ? 'Current' : 'Stale', resources: external.resources };
    return { version, freshness: 'Current', resources: own.map(aggregatedResource) };
  }
}

function aggregatedResource(info: ResourceInfo): unknown {
  return {
    resource: info.resource,
    responseKind: kindDocument(info),
    scope: info.namespaced ? 'Namespaced' : 'Cluster',
    singularResource: info.singular,
    verbs: info.verbs,
    ...(info.shortNames.length > 0 ? { shortNames: info.shortNames } : {}),
    ...(info.categories.length > 0 ? { categories: info.categories } : {}),
    ...(info.subresources.length > 0
      ? {
          subresources: [...info.subresources]
            .sort((a, b) => (a.name < b.name ? -1 : 1))
            .map(sub => ({
              subresource: sub.name,
              responseKind: kindDocument(sub.kind ?? info),
              verbs: sub.verbs,
            })),
        }
      : {}),
  };
}

function kindDocument({ group, version, kind }: { group: string; version: string; kind: string }) {
  return { group, version, kind };
}

function groupDocument({ group, versions }: { group: string; versions: readonly string[] }) {
  const all = versions.map(version => ({ groupVersion: `${group}/${version}`, version }));
  return { name: group, versions: all, preferredVersion: all[0] };
}

function resourceDocument(info: ResourceInfo) {
  return {
    name: info.resource,
    singularName: info.singular,
    namespaced: info.namespaced,
    kind: info.kind,
    verbs: info.verbs,
    ...(info.shortNames.length > 0 ? { shortNames: info.shortNames } : {}),
    ...(info.categories.length > 0 ? { categories: info.categories } : {}),
    ...(info.verbs.includes('list') && info.verbs.includes('create')
      ? { storageVersionHash: storageVersionHash(info) }
      : {}),
  };
}

function subresourceDocument(info: ResourceInfo, sub: SubresourceInfo) {
  const kind = sub.kind;
  const other = kind && (kind.group !== info.group || kind.version !== info.version);
  return {
    name: `${info.resource}/${sub.name}`,
    singularName: '',
    namespaced: info.namespaced,
    ...(other ? { group: kind.group, version: kind.version } : {}),
    kind: kind?.kind ?? info.kind,
    verbs: sub.verbs,
  };
}

// Upstream: the first 8 bytes of the SHA-256 of `group/version/kind` of the stored version, in base 64.
function storageVersionHash(info: ResourceInfo): string {
  const stored = info.storageVersion ?? info;
  return createHash('sha256')
    .update(`${stored.group}/${stored.version}/${info.kind}`)
    .digest()
    .subarray(0, 8)
    .toString('base64');
}

function documentOf(value: unknown): Document {
  const bytes = Buffer.from(JSON.stringify(value));
  return { value, bytes, etag: `"${createHash('sha512').update(bytes).digest('hex').toUpperCase()}"` };
}
