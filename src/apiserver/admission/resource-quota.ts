/**
 * ResourceQuota: refuses what would take a namespace over a quota. Usage is counted from the API server's own cache plus
 * what was admitted but is not visible there yet, so that requests at the same moment cannot share one last place. The
 * quotas' status follows, soon after each change.
 */

import type { CustomResourceDefinition } from '../../api/apiextensions/v1.gen.ts';
import type { Pod, ResourceQuota as Quota } from '../../api/core/v1.gen.ts';
import { formatNano, parseNano } from '../../api/machinery/quantity.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { DeviceClass, ResourceClaim } from '../../api/resource/v1.gen.ts';
import { resourceByName } from '../../api/resources.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { CUSTOM_RESOURCE_DEFINITIONS, DEVICE_CLASSES, PODS, RESOURCE_CLAIMS } from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import type { AdmissionPlugin, AdmissionRequest, Reader } from '../request.ts';
import { type AdmissionContext, refusal } from './context.ts';
import { claimUsage, isCountedByClass, isExtendedQuota } from './quota-devices.ts';
import { inScopes, type Usage, usageOf } from './quota-usage.ts';

const QUOTAS = { group: '', version: 'v1', resource: 'resourcequotas' };
/** An admitted object that never became visible (refused later, failed write) stops counting after this. */
const RESERVATION_MS = 5_000;
/** Resources that a container must state when its quota limits them. */
const NOTHING: ReadonlyMap<string, bigint> = new Map();
const MUST_STATE = ['cpu', 'memory', 'requests.cpu', 'requests.memory', 'limits.cpu', 'limits.memory'];

interface Reservation {
  readonly of: ResourceId;
  readonly object: KubeObject;
  readonly untilMs: number;
}

export class ResourceQuota implements AdmissionPlugin {
  readonly name = 'ResourceQuota';
  readonly #context: AdmissionContext;
  /** `namespace` → `resource/name` → what was admitted and is not visible yet. */
  readonly #reserved = new Map<string, Map<string, Reservation>>();
  readonly #followed = new Set<string>();
  readonly #dirty = new Set<string>();
  #syncing = false;

  constructor(context: AdmissionContext) {
    this.#context = context;
  }
  get #reader(): Reader {
    return this.#context.reader();
  }
  #quotas(namespace: string): readonly Quota[] {
    return this.#reader.list(QUOTAS, namespace) as readonly Quota[];
  }

  /** Starts to keep the quotas' status. */
  start(): void {
    this.#reader.onChange(QUOTAS, (object, old) => this.#follow((object ?? old) as Quota));
    const followAll = () => {
      for (const quota of this.#reader.list(QUOTAS) as readonly Quota[]) this.#follow(quota);
    };
    followAll();
    // A quota may name a resource that is defined later.
    this.#reader.onChange(CUSTOM_RESOURCE_DEFINITIONS, followAll);
    // Claims count for the extended resource that their class serves now.
    this.#reader.onChange(DEVICE_CLASSES, (object, old) => {
      if (servedBy(object) === servedBy(old)) return;
      for (const quota of this.#reader.list(QUOTAS) as readonly Quota[])
        if (Object.keys(quota.spec?.hard ?? {}).some(isExtendedQuota)) this.#mark(quota.metadata.namespace!);
    });
  }

  /** The resources whose objects use up the named quantity; none while there is none. */
  #resourcesOf(name: string): ResourceId[] {
    if (isCountedByClass(name)) return [RESOURCE_CLAIMS];
    if (isExtendedQuota(name)) return [PODS, RESOURCE_CLAIMS];
    const found = resourceOf(name) ?? (name.startsWith('count/') ? this.#customResource(name.slice(6)) : undefined);
    return found ? [found] : [];
  }
  #usageOf(of: ResourceId, object: KubeObject, stored: boolean): Usage {
    if (of.group !== RESOURCE_CLAIMS.group || of.resource !== RESOURCE_CLAIMS.resource)
      return usageOf(of.group, of.resource, object, stored);
    return claimUsage(object as ResourceClaim, {
      extendedResource: name => servedBy(this.#reader.get(DEVICE_CLASSES, '', name)),
      pod: (namespace, name) => this.#reader.get(PODS, namespace, name) as Pod | undefined,
    });
  }
  #customResource(name: string): ResourceId | undefined {
    const found = this.#reader.get(CUSTOM_RESOURCE_DEFINITIONS, '', name) as CustomResourceDefinition | undefined;
    const established = found?.status?.conditions?.some(
      ({ type, status }) => type === 'Established' && status === 'True',
    );
    const version = found?.spec.versions.find(version => version.served);
    if (!found || !established || !version) return undefined;
    return { group: found.spec.group, version: version.name, resource: found.spec.names.plural };
  }

  validate(request: AdmissionRequest): void {
    const { attributes, operation, object, oldObject } = request;
    if (
      attributes.namespace === '' ||
      !object ||
      (attributes.subresource !== '' && !(attributes.resource === 'pods' && attributes.subresource === 'resize')) ||
      (operation !== 'CREATE' && operation !== 'UPDATE')
    )
      return;
    const quotas = this.#quotas(attributes.namespace);
    if (quotas.length === 0) return;
    const of = { group: attributes.group, version: request.info.version, resource: attributes.resource };
    const wanted = this.#usageOf(of, object, false);
    const usedBefore = oldObject ? this.#usageOf(of, oldObject, true) : NOTHING;
    let counts = false;
    for (const quota of quotas) {
      if (!scoped(quota, of.resource, object)) continue;
      // What comes into the scope only now counts as a whole.
      const before = oldObject && scoped(quota, of.resource, oldObject) ? usedBefore : NOTHING;
      const hard = Object.entries(quota.spec?.hard ?? {});
      if (operation === 'CREATE' && of.group === '' && of.resource === 'pods') checkStated(request, quota);
      const increases = hard.filter(([name]) => (wanted.get(name) ?? 0n) > (before.get(name) ?? 0n));
      if (increases.length === 0) continue;
      counts = true;
      const used = this.#usage(
        attributes.namespace,
        quota,
        increases.map(([name]) => name),
      );
      const exceeded = increases.filter(
        ([name, limit]) => used.get(name)! + wanted.get(name)! - (before.get(name) ?? 0n) > (parseNano(limit) ?? 0n),
      );
      if (exceeded.length === 0) continue;
      const show = (value: (name: string, limit: string) => string) =>
        exceeded
          .map(([name, limit]) => `${name}=${value(name, limit)}`)
          .sort()
          .join(',');
      const family = (limit: string) => (/i$/.test(limit) ? ('binary' as const) : ('decimal' as const));
      const requested = show((name, limit) => formatNano(wanted.get(name)! - (before.get(name) ?? 0n), family(limit)));
      throw refusal(
        request,
        `exceeded quota: ${quota.metadata.name}, requested: ${requested}, used: ${show((name, limit) => formatNano(used.get(name)!, family(limit)))}, limited: ${show((_, limit) => limit)}`,
      );
    }
    if (counts && operation === 'CREATE' && !request.dryRun) this.#reserve(attributes.namespace, of, object);
  }

  #usage(namespace: string, quota: Quota, names: readonly string[]): Map<string, bigint> {
    const total = new Map(names.map(name => [name, 0n]));
    const add = (of: ResourceId, object: KubeObject) => {
      if (!scoped(quota, of.resource, object)) return;
      const usage = this.#usageOf(of, object, true);
      for (const name of names) total.set(name, total.get(name)! + (usage.get(name) ?? 0n));
    };
    const resources = new Map(
      names.flatMap(name => this.#resourcesOf(name)).map(of => [`${of.resource}.${of.group}`, of]),
    );
    for (const resource of resources.values())
      for (const object of this.#reader.list(resource, namespace)) add(resource, object);
    const reserved = this.#reserved.get(namespace);
    for (const [key, { of, object, untilMs }] of reserved ?? []) {
      if (untilMs < this.#context.clock.monotonic() || this.#reader.get(of, namespace, object.metadata.name))
        reserved!.delete(key);
      else if (resources.has(`${of.resource}.${of.group}`)) add(of, object);
    }
    return total;
  }

  #reserve(namespace: string, of: ResourceId, object: KubeObject): void {
    let reserved = this.#reserved.get(namespace);
    if (!reserved) this.#reserved.set(namespace, (reserved = new Map()));
    // The registry goes on changing the object; its usage is settled.
    const copy = structuredClone(object);
    reserved.set(`${of.resource}.${of.group}/${object.metadata.name}`, {
      of,
      object: copy,
      untilMs: this.#context.clock.monotonic() + RESERVATION_MS,
    });
  }

  // Follows the resources that a quota names, and brings its status up to date.
  #follow(quota: Quota): void {
    for (const of of Object.keys(quota.spec?.hard ?? {}).flatMap(name => this.#resourcesOf(name))) {
      if (this.#followed.has(`${of.resource}.${of.group}`)) continue;
      this.#followed.add(`${of.resource}.${of.group}`);
      this.#reader.onChange(of, (object, old) => this.#mark((object ?? old)!.metadata.namespace ?? ''));
    }
    this.#mark(quota.metadata.namespace!);
  }

  #mark(namespace: string): void {
    this.#dirty.add(namespace);
    if (this.#syncing) return;
    this.#syncing = true;
    this.#context.clock.after(100, () => void this.#sync(), { background: true });
  }

  async #sync(): Promise<void> {
    const namespaces = [...this.#dirty];
    this.#dirty.clear();
    for (const namespace of namespaces)
      for (const quota of this.#quotas(namespace)) {
        const hard = quota.spec?.hard ?? {};
        const usage = this.#usage(namespace, quota, Object.keys(hard));
        const used = Object.fromEntries(
          Object.entries(hard).map(([name, limit]) => [
            name,
            formatNano(usage.get(name)!, /i$/.test(limit) ? 'binary' : 'decimal'),
          ]),
        );
        const sorted = (record: object | undefined) => JSON.stringify(Object.entries(record ?? {}).sort());
        if (sorted(quota.status?.hard) === sorted(hard) && sorted(quota.status?.used) === sorted(used)) continue;
        const target = { of: QUOTAS, namespace, name: quota.metadata.name, subresource: 'status' };
        await this.#context
          .transport()
          .update(target, { ...quota, status: { hard, used } } as KubeObject)
          .catch(error => {
            if (isReason(error, 'Conflict')) this.#dirty.add(namespace);
            else if (!isReason(error, 'NotFound'))
              this.#context.log.warn('quota status could not be written', { namespace, error: messageOf(error) });
          });
      }
    this.#syncing = false;
    if (this.#dirty.size) this.#mark([...this.#dirty][0]!);
  }
}

function servedBy(deviceClass: KubeObject | undefined): string | undefined {
  return (deviceClass as DeviceClass | undefined)?.spec.extendedResourceName;
}

function scoped(quota: Quota, resource: string, object: KubeObject): boolean {
  return inScopes(quota.spec?.scopes ?? [], quota.spec?.scopeSelector?.matchExpressions ?? [], resource, object);
}

/** As far as it is built in. */
function resourceOf(name: string): ResourceId | undefined {
  const core = (resource: string) => ({ group: '', version: 'v1', resource });
  if (name.startsWith('count/')) {
    const [resource, ...group] = name.slice('count/'.length).split('.') as [string, ...string[]];
    return ['v1', 'v1beta1', 'v2']
      .map(version => ({ group: group.join('.'), version, resource }))
      .find(of => resourceByName(of.group, of.version, of.resource));
  }
  if (name.startsWith('services.')) return core('services');
  if (name === 'requests.storage' || name.includes('.storageclass.storage.k8s.io/'))
    return core('persistentvolumeclaims');
  if (
    [
      'configmaps',
      'secrets',
      'replicationcontrollers',
      'resourcequotas',
      'services',
      'persistentvolumeclaims',
    ].includes(name)
  )
    return core(name);
  return core('pods');
}

function checkStated(request: AdmissionRequest, quota: Quota): void {
  const stated = MUST_STATE.filter(name => quota.spec?.hard?.[name] !== undefined);
  if (stated.length === 0) return;
  const missing = new Map<string, string[]>();
  for (const name of stated.sort()) {
    const [list, resource] = name.includes('.')
      ? (name.split('.') as ['requests' | 'limits', string])
      : (['requests', name] as const);
    const spec = (request.object as Pod).spec;
    for (const container of [...(spec?.containers ?? []), ...(spec?.initContainers ?? [])])
      if (container.resources?.[list]?.[resource] === undefined)
        missing.set(name, [...(missing.get(name) ?? []), container.name]);
  }
  if (missing.size === 0) return;
  const text = [...missing].map(([name, containers]) => `${name} for: ${containers.sort().join(',')}`).join('; ');
  throw refusal(request, `failed quota: ${quota.metadata.name}: must specify ${text}`);
}
