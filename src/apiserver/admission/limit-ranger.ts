/** LimitRanger: gives containers a namespace's default requests and limits, and refuses pods and claims outside its bounds. */

import type {
  Container,
  LimitRange,
  LimitRangeItem,
  PersistentVolumeClaim,
  Pod,
  ResourceRequirements,
} from '../../api/core/v1.gen.ts';
import { canonicalQuantity, formatNano, parseNano } from '../../api/machinery/quantity.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { type AdmissionContext, isAbout, isPodCreate, refusal } from './context.ts';

const LIMIT_RANGES = { group: '', version: 'v1', resource: 'limitranges' };
type Amounts = Readonly<Record<string, string>>;

export function limitRanger({ reader }: AdmissionContext): AdmissionPlugin {
  const itemsFor = (request: AdmissionRequest): LimitRangeItem[] =>
    (reader().list(LIMIT_RANGES, request.attributes.namespace) as readonly LimitRange[]).flatMap(
      range => range.spec?.limits ?? [],
    );
  return {
    name: 'LimitRanger',
    mutate(request) {
      if (!isPodCreate(request)) return;
      for (const item of itemsFor(request)) if (item.type === 'Container') applyDefaults(request.object as Pod, item);
    },
    validate(request) {
      const claim =
        isAbout(request, '', 'persistentvolumeclaims') &&
        request.operation !== 'DELETE' &&
        request.operation !== 'CONNECT';
      if (!claim && !isPodCreate(request) && !isPodResize(request)) return;
      const problems: string[] = [];
      for (const item of itemsFor(request)) {
        if (claim && item.type === 'PersistentVolumeClaim') {
          const requests = (request.object as PersistentVolumeClaim).spec?.resources?.requests ?? {};
          problems.push(...bounds(item, requests, {}));
        }
        if (claim) continue;
        const { containers = [], initContainers = [], resources: ofPod } = (request.object as Pod).spec ?? {};
        if (item.type === 'Container')
          for (const { resources } of [...containers, ...initContainers])
            problems.push(...bounds(item, resources?.requests ?? {}, resources?.limits ?? {}));
        if (item.type === 'Pod')
          problems.push(
            ...bounds(
              item,
              { ...podTotal(containers, initContainers, 'requests'), ...ofPod?.requests },
              { ...podTotal(containers, initContainers, 'limits'), ...ofPod?.limits },
            ),
          );
      }
      if (problems.length) throw refusal(request, problems.length === 1 ? problems[0]! : `[${problems.join(', ')}]`);
    },
  };
}

function applyDefaults(pod: Pod, item: LimitRangeItem): void {
  const notes: string[] = [];
  const apply = (container: Container, kind: string) => {
    const fill = (list: 'requests' | 'limits', defaults: Amounts | undefined): string[] => {
      const missing = Object.keys(defaults ?? {}).filter(name => container.resources?.[list]?.[name] === undefined);
      if (missing.length === 0) return [];
      const resources: ResourceRequirements = (container.resources ??= {});
      resources[list] = { ...resources[list], ...Object.fromEntries(missing.map(name => [name, defaults![name]!])) };
      return missing.sort();
    };
    // A default limit is the default request too, unless the range has another (defaulting of LimitRange itself does that).
    const [requests, limits] = [fill('requests', item.defaultRequest ?? item.default), fill('limits', item.default)];
    if (requests.length) notes.push(`${requests.join(', ')} request for ${kind} ${container.name}`);
    if (limits.length) notes.push(`${limits.join(', ')} limit for ${kind} ${container.name}`);
  };
  for (const container of pod.spec?.containers ?? []) apply(container, 'container');
  for (const container of pod.spec?.initContainers ?? []) apply(container, 'init container');
  if (notes.length)
    pod.metadata.annotations = {
      ...pod.metadata.annotations,
      'kubernetes.io/limit-ranger': `LimitRanger plugin set: ${notes.join('; ')}`,
    };
}

function bounds(item: LimitRangeItem, requests: Amounts, limits: Amounts): string[] {
  const problems: string[] = [];
  const nano = (text: string) => parseNano(text) ?? 0n;
  const claim = item.type === 'PersistentVolumeClaim';
  for (const [name, bound] of Object.entries(item.min ?? {})) {
    const text = `minimum ${name} usage per ${item.type} is ${canonicalQuantity(bound)}`;
    const [request, limit] = [requests[name], limits[name]];
    if (request === undefined) problems.push(`${text}.  No request is specified`);
    else if (nano(request) < nano(bound)) problems.push(`${text}, but request is ${canonicalQuantity(request)}`);
    else if (limit !== undefined && nano(limit) < nano(bound))
      problems.push(`${text}, but limit is ${canonicalQuantity(limit)}`);
  }
  for (const [name, bound] of Object.entries(item.max ?? {})) {
    const text = `maximum ${name} usage per ${item.type} is ${canonicalQuantity(bound)}`;
    const [request, limit] = [requests[name], limits[name]];
    if (!claim && limit === undefined) problems.push(`${text}.  No limit is specified`);
    else if (!claim && nano(limit!) > nano(bound)) problems.push(`${text}, but limit is ${canonicalQuantity(limit!)}`);
    else if (claim && request === undefined) problems.push(`${text}.  No request is specified`);
    else if (request !== undefined && nano(request) > nano(bound))
      problems.push(`${text}, but request is ${canonicalQuantity(request)}`);
  }
  for (const [name, bound] of Object.entries(item.maxLimitRequestRatio ?? {})) {
    const text = `${name} max limit to request ratio per ${item.type} is ${canonicalQuantity(bound)}`;
    const [request, limit] = [nano(requests[name] ?? '0'), nano(limits[name] ?? '0')];
    if (request === 0n) problems.push(`${text}, but no request is specified or request is 0`);
    else if (limit === 0n) problems.push(`${text}, but no limit is specified or limit is 0`);
    else if (limit * 1_000_000_000n > nano(bound) * request)
      problems.push(`${text}, but provided ratio is ${(Number(limit) / Number(request)).toFixed(6)}`);
  }
  return problems;
}

// What the whole pod needs: the sum of its containers, or the largest init container where that is more.
function podTotal(
  containers: readonly Container[],
  initContainers: readonly Container[],
  list: 'requests' | 'limits',
): Amounts {
  const sum = new Map<string, bigint>();
  const binary = new Set<string>();
  const of = (container: Container) => Object.entries(container.resources?.[list] ?? {});
  for (const container of containers)
    for (const [name, amount] of of(container)) {
      if (/i$/.test(amount)) binary.add(name);
      sum.set(name, (sum.get(name) ?? 0n) + (parseNano(amount) ?? 0n));
    }
  for (const container of initContainers)
    for (const [name, amount] of of(container)) {
      const value = parseNano(amount) ?? 0n;
      if (/i$/.test(amount)) binary.add(name);
      if (value > (sum.get(name) ?? 0n)) sum.set(name, value);
    }
  return Object.fromEntries(
    [...sum].map(([name, amount]) => [name, formatNano(amount, binary.has(name) ? 'binary' : 'decimal')]),
  );
}

function isPodResize({ attributes, operation }: AdmissionRequest): boolean {
  const { group, resource, subresource } = attributes;
  return operation === 'UPDATE' && group === '' && resource === 'pods' && subresource === 'resize';
}
