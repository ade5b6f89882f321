/**
 * One resource as field ownership sees it: its stored objects in any served version, and the fields that a request to one
 * of its subresources can own.
 */

import type { KubeObject } from '../../api/meta.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { normalize } from '../../api/structural.ts';
import { convertObject } from '../conversion.ts';
import { deepFreeze } from '../entry.ts';
import { apiVersionOf, type ResourceTable, type Served, splitApiVersion } from '../resource-table.ts';
import { statusHasMetadata } from '../subresources.ts';
import { type FieldTable, rootTable, type Scope } from './structure.ts';

/** The kinds whose status updates may change metadata too. */
function scopeOf(served: Served, subresource: string): Scope {
  const { stored } = served;
  if (subresource === 'status') return statusHasMetadata(served) ? 'statusAndMetadata' : 'status';
  if (subresource !== '' && subresource !== 'scale') return 'all';
  return stored.subresources.some(({ name }) => name === 'status') ? 'withoutStatus' : 'all';
}

export class Versions {
  readonly apiVersion: string;
  /** Fields of the request's version. */
  readonly table: FieldTable;
  /** What an object holds that nobody has written yet. */
  readonly empty: KubeObject;
  readonly #served: Served;
  readonly #resources: ResourceTable;
  readonly #scope: Scope;

  constructor(served: Served, subresource: string, resources: ResourceTable) {
    const { info } = served;
    this.#served = served;
    this.#resources = resources;
    this.#scope = scopeOf(served, subresource);
    this.apiVersion = apiVersionOf(info);
    this.table = tableOf(served, this.#scope);
    const empty: KubeObject = { apiVersion: this.apiVersion, kind: info.kind, metadata: { name: '' } };
    this.empty = deepFreeze(served.custom ? empty : normalize(info.type, empty));
  }

  /** A stored object in the request's version. */
  shown(object: KubeObject): KubeObject {
    const { info, stored, custom } = this.#served;
    return custom || info === stored ? object : convertObject(object, stored, info);
  }

  /** Another served version of the kind: its fields and how to get there and back; undefined when there is none. */
  at(apiVersion: string): Version | undefined {
    const { info } = this.#served;
    if (apiVersion === this.apiVersion) return { table: this.table, to: object => object, from: object => object };
    const { group, version } = splitApiVersion(apiVersion);
    const other = this.#resources.ofKind(group, version, info.kind);
    if (!other || other.prefix !== this.#served.prefix) return undefined;
    return between(info, other.info, tableOf(other, this.#scope));
  }
}

function tableOf({ info, custom }: Served, scope: Scope): FieldTable {
  return custom ? custom.fields(scope) : rootTable(info.type, scope);
}

export interface Version {
  readonly table: FieldTable;
  /** From the request's version to this one. */
  to(object: KubeObject): KubeObject;
  from(object: KubeObject): KubeObject;
}

function between(info: ResourceInfo, other: ResourceInfo, table: FieldTable): Version {
  return {
    table,
    to: object => convertObject(object, info, other),
    from: object => convertObject(object, other, info),
  };
}
