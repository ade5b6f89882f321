/**
 * The REST operations of a resource, independent of the OpenAPI version: what `/openapi` says about paths follows from
 * the same resource tables as discovery.
 */
import type { GroupVersionKind } from './openapi-schema.ts';
import type { ResourceInfo, SubresourceInfo } from './schema.ts';
import { fieldsOf, typeOfKind } from './schema-registry.ts';

export interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query';
  readonly type: 'string' | 'integer' | 'boolean';
}

/** Body of a request or reply: a definition of the document, or text. */
export type Body = { readonly kind: GroupVersionKind } | 'Patch' | 'DeleteOptions' | 'Status' | 'WatchEvent' | 'text';

export interface Operation {
  readonly method: 'get' | 'put' | 'post' | 'delete' | 'options' | 'head' | 'patch';
  readonly id: string;
  readonly action: string;
  readonly kind: GroupVersionKind;
  /** Query parameters beside those of the path. */
  readonly parameters: readonly Parameter[];
  readonly body?: Body;
  readonly reply: Body;
  readonly codes: readonly number[];
  readonly streams?: true;
}

export interface PathItem {
  readonly path: string;
  readonly parameters: readonly Parameter[];
  readonly operations: readonly Operation[];
}

const query = (type: Parameter['type'], ...names: string[]): Parameter[] =>
  names.map(name => ({ name, in: 'query', type }));
const inPath = (name: string): Parameter => ({ name, in: 'path', type: 'string' });
const byName = (a: Parameter, b: Parameter) => (a.name < b.name ? -1 : 1);

const pretty = query('string', 'pretty');
const selecting = [
  ...query('string', 'continue', 'fieldSelector', 'labelSelector', 'resourceVersion', 'resourceVersionMatch'),
  ...query('integer', 'limit', 'timeoutSeconds'),
  ...query('boolean', 'sendInitialEvents'),
  ...query('string', 'shardSelector'),
];
const listing = [...selecting, ...query('boolean', 'allowWatchBookmarks', 'watch')].sort(byName);
const writing = query('string', 'dryRun', 'fieldManager', 'fieldValidation');
const patching = [...writing, ...query('boolean', 'force')];
const deleting = [
  ...query('string', 'dryRun', 'propagationPolicy'),
  ...query('integer', 'gracePeriodSeconds'),
  ...query('boolean', 'ignoreStoreReadErrorWithClusterBreakingPotential', 'orphanDependents'),
].sort(byName);
const deletingMany = [...selecting, ...deleting].sort(byName);

/** Kinds whose DELETE answers with the object instead of a Status. */
const returnsDeleted = new Set(
  `PersistentVolumeClaim Pod PodTemplate ResourceQuota ServiceAccount Service PersistentVolume DeviceClass ResourceClaim
  ResourceClaimTemplate ResourceSlice CSIDriver CSINode StorageClass VolumeAttachment VolumeAttributesClass`.split(
    /\s+/,
  ),
);

/** `rbacAuthorization` of `rbac.authorization.k8s.io`, `core` of ''. */
export function groupWord(group: string): string {
  const [first, ...rest] = group.replace(/\.k8s\.io$/, '').split('.');
  return (first || 'core') + rest.map(capital).join('');
}

export const capital = (word: string) => word.slice(0, 1).toUpperCase() + word.slice(1);

/** Paths of a resource and its subresources, relative order as discovery lists them. `custom`: served by a CRD. */
export function resourcePaths(info: ResourceInfo, custom: boolean): PathItem[] {
  return new ResourceRenderer(info, custom).render();
}

class ResourceRenderer {
  readonly #info: ResourceInfo;
  readonly #custom: boolean;
  readonly #kind: GroupVersionKind;
  readonly #word: string;
  readonly #items: PathItem[] = [];

  constructor(info: ResourceInfo, custom: boolean) {
    this.#info = info;
    this.#custom = custom;
    this.#kind = { group: info.group, kind: info.kind, version: info.version };
    this.#word = capital(groupWord(info.group)) + capital(info.version);
  }

  render(): PathItem[] {
    const { group, version, resource, namespaced, verbs, subresources, kind } = this.#info;
    const root = `${group === '' ? '/api' : `/apis/${group}`}/${version}`;
    const scoped = namespaced ? '/namespaces/{namespace}' : '';
    const scope = namespaced ? [inPath('namespace')] : [];
    const object = [inPath('name'), ...scope];
    const noun = (namespaced ? 'Namespaced' : '') + kind;
    const watch = verbs.includes('watch');
    if (namespaced && verbs.includes('list')) {
      const forAll = `${kind}ForAllNamespaces`;
      this.#add(`${root}/${resource}`, pretty, [this.#list(`list${this.#word}${forAll}`)]);
      if (watch) {
        this.#add(`${root}/watch/${resource}`, pretty, [this.#watch(`${kind}ListForAllNamespaces`, 'watchlist')]);
      }
    }
    const collection = [...scope, ...pretty];
    this.#add(`${root}${scoped}/${resource}`, collection, this.#collectionOperations(noun));
    const path = `${root}${scoped}/${resource}/{name}`;
    this.#add(path, [...object, ...pretty], this.#objectOperations(noun));
    for (const subresource of subresources) this.#subresource(`${path}/${subresource.name}`, object, noun, subresource);
    if (watch) {
      this.#add(`${root}/watch${scoped}/${resource}`, collection, [this.#watch(`${noun}List`, 'watchlist')]);
      const one = `${root}/watch${scoped}/${resource}/{name}`;
      this.#add(one, [...object, ...pretty], [this.#watch(noun, 'watch')]);
    }
    return this.#items;
  }

  /** Parameters that all operations share belong to the path, as upstream's builder has it. */
  #add(path: string, parameters: readonly Parameter[], operations: readonly Operation[]): void {
    if (operations.length === 0) return;
    const shared = operations[0]!.parameters.filter(parameter =>
      operations.every(operation => operation.parameters.some(other => other.name === parameter.name)),
    );
    this.#items.push({
      path,
      parameters: [...parameters, ...shared].sort(byName),
      operations: operations.map(operation => ({
        ...operation,
        parameters: operation.parameters.filter(parameter => !shared.some(other => other.name === parameter.name)),
      })),
    });
  }

  #collectionOperations(noun: string): Operation[] {
    const { verbs } = this.#info;
    const operations: Operation[] = [];
    if (verbs.includes('list')) operations.push(this.#list(`list${this.#word}${noun}`));
    if (verbs.includes('create')) operations.push(this.#create(noun, this.#kind));
    if (verbs.includes('deletecollection')) {
      operations.push({
        method: 'delete',
        id: `delete${this.#word}Collection${noun}`,
        action: 'deletecollection',
        kind: this.#kind,
        parameters: deletingMany,
        ...(this.#custom ? {} : { body: 'DeleteOptions' as const }),
        reply: 'Status',
        codes: [200],
      });
    }
    return operations;
  }

  #objectOperations(noun: string): Operation[] {
    const { verbs, kind } = this.#info;
    const operations = this.#readWrite(noun, this.#kind, verbs);
    if (verbs.includes('delete')) {
      operations.push({
        method: 'delete',
        id: `delete${this.#word}${noun}`,
        action: 'delete',
        kind: this.#kind,
        parameters: deleting,
        body: 'DeleteOptions',
        reply: !this.#custom && returnsDeleted.has(kind) ? { kind: this.#kind } : 'Status',
        codes: [200, 202],
      });
    }
    return operations;
  }

  #readWrite(noun: string, kind: GroupVersionKind, verbs: readonly string[]): Operation[] {
    const operations: Operation[] = [];
    const reply = { kind };
    const id = (verb: string) => `${verb}${this.#word}${noun}`;
    if (verbs.includes('get')) {
      operations.push({ method: 'get', id: id('read'), action: 'get', kind, parameters: [], reply, codes: [200] });
    }
    if (verbs.includes('update')) {
      const [body, codes] = [reply, [200, 201]];
      operations.push({
        method: 'put',
        id: id('replace'),
        action: 'put',
        kind,
        parameters: writing,
        body,
        reply,
        codes,
      });
    }
    if (verbs.includes('patch')) {
      const codes = this.#custom ? [200] : [200, 201];
      const facts = { kind, parameters: patching, body: 'Patch', reply, codes } as const;
      operations.push({ method: 'patch', id: id('patch'), action: 'patch', ...facts });
    }
    return operations;
  }

  #create(noun: string, kind: GroupVersionKind): Operation {
    const id = `create${this.#word}${noun}`;
    const body = { kind };
    const codes = [200, 201, 202];
    return { method: 'post', id, action: 'post', kind, parameters: writing, body, reply: body, codes };
  }

  #list(id: string): Operation {
    const reply = { kind: { ...this.#kind, kind: this.#info.listKind } };
    const facts = { kind: this.#kind, parameters: listing, reply, codes: [200], streams: true } as const;
    return { method: 'get', id, action: 'list', ...facts };
  }

  #watch(noun: string, action: 'watch' | 'watchlist'): Operation {
    const id = `watch${this.#word}${noun}`;
    const facts = { kind: this.#kind, parameters: listing, codes: [200], streams: true } as const;
    return { method: 'get', id, action, reply: 'WatchEvent', ...facts };
  }

  #subresource(path: string, object: readonly Parameter[], noun: string, { name, verbs, kind }: SubresourceInfo): void {
    const named = noun + capital(name);
    const own = kind ?? this.#kind;
    if (kind?.kind.endsWith('Options')) {
      this.#connect(path, object, named, kind, name === 'proxy');
    } else if (name === 'log') {
      const parameters = optionsParameters({ ...this.#kind, kind: 'PodLogOptions' });
      const facts = { kind: own, parameters, reply: 'text', codes: [200] } as const;
      const read: Operation = { method: 'get', id: `read${this.#word}${named}`, action: 'get', ...facts };
      this.#add(path, [...object, ...pretty], [read]);
    } else {
      const create = verbs.includes('create') ? [this.#create(named, own)] : [];
      this.#add(path, [...object, ...pretty], [...create, ...this.#readWrite(named, own, verbs)]);
    }
  }

  #connect(path: string, object: readonly Parameter[], noun: string, kind: GroupVersionKind, proxied: boolean): void {
    const methods = proxied
      ? (['get', 'put', 'post', 'delete', 'options', 'head', 'patch'] as const)
      : (['get', 'post'] as const);
    const options = optionsParameters(kind);
    const operations = (suffix: string): Operation[] =>
      methods.map(method => ({
        method,
        id: `connect${this.#word}${capital(method)}${noun}${suffix}`,
        action: 'connect',
        kind,
        parameters: options,
        reply: 'text',
        codes: [200],
      }));
    this.#add(path, object, operations(''));
    if (proxied) this.#add(`${path}/{path}`, [...object, inPath('path')], operations('WithPath'));
  }
}

/** The query parameters that an options kind stands for. */
function optionsParameters({ group, version, kind }: GroupVersionKind): Parameter[] {
  const parameters: Parameter[] = [];
  for (const { name, type, number } of fieldsOf(typeOfKind(group, version, kind)!).values()) {
    if (number === 0) continue;
    const scalar = type.replace('[]', '');
    // A time is a string on the query line; upstream's builder leaves sinceTime out.
    if (scalar === 'time') continue;
    parameters.push(...query(scalar === 'bool' ? 'boolean' : scalar.startsWith('int') ? 'integer' : 'string', name));
  }
  return parameters;
}
