/**
 * Which resource names and quantities may stand where: containers, pods, quotas, limit ranges, claims. Rules and
 * messages as upstream's `core/helper` and `core/validation`.
 */

import { fieldErrors } from '../../base/errors.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { dnsLabelProblems } from '../machinery/names.ts';
import { compareQuantity, parseNano } from '../machinery/quantity.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  type Errors,
  NOT_NEGATIVE,
} from '../machinery/validation.ts';
import type { ResourceClaim, ResourceRequirements } from './v1.gen.ts';

const CONTAINER_RESOURCES = ['cpu', 'memory', 'ephemeral-storage'];
// The prefix stands for pages of every size.
const POD_LEVEL_RESOURCES = ['cpu', 'hugepages-', 'memory'];
const QUOTA_RESOURCES = [
  'cpu',
  'memory',
  'ephemeral-storage',
  'requests.cpu',
  'requests.memory',
  'requests.storage',
  'requests.ephemeral-storage',
  'limits.cpu',
  'limits.memory',
  'limits.ephemeral-storage',
  'pods',
  'resourcequotas',
  'services',
  'replicationcontrollers',
  'secrets',
  'persistentvolumeclaims',
  'configmaps',
  'services.nodeports',
  'services.loadbalancers',
];
const STANDARD_RESOURCES = [...QUOTA_RESOURCES, 'storage'];
const INTEGER_RESOURCES = [
  'pods',
  'resourcequotas',
  'services',
  'replicationcontrollers',
  'secrets',
  'configmaps',
  'persistentvolumeclaims',
  'services.nodeports',
  'services.loadbalancers',
];

export function isHugePages(name: string): boolean {
  return name.startsWith('hugepages-');
}

/** Unprefixed, or of kubernetes.io. */
export function isNativeResource(name: string): boolean {
  return !name.includes('/') || name.includes('kubernetes.io/');
}

export function isExtendedResource(name: string): boolean {
  if (isNativeResource(name) || name.startsWith('requests.')) return false;
  return qualifiedNameProblems(`requests.${name}`).length === 0;
}

/** May requests stay below limits? */
export function isOvercommitAllowed(name: string): boolean {
  return isNativeResource(name) && !isHugePages(name);
}

export function isStandardQuotaResource(name: string): boolean {
  return QUOTA_RESOURCES.includes(name) || isHugePages(name) || name.startsWith('requests.hugepages-');
}

/** A resource name that Kubernetes knows, or a qualified one. */
export function checkResourceName(errors: Errors, path: string, name: string): boolean {
  const problems = qualifiedNameProblems(name);
  addProblems(errors, path, name, problems);
  if (problems.length) return false;
  if (
    !name.includes('/') &&
    !STANDARD_RESOURCES.includes(name) &&
    !isHugePages(name) &&
    !name.startsWith('requests.hugepages-')
  ) {
    addInvalid(errors, path, name, 'must be a standard resource type or fully qualified');
    return false;
  }
  return true;
}

export function checkContainerResourceName(errors: Errors, path: string, name: string): void {
  if (CONTAINER_RESOURCES.includes(name)) return;
  checkResourceName(errors, path, name);
  if (!name.includes('/')) {
    if (!isHugePages(name)) addInvalid(errors, path, name, 'must be a standard resource for containers');
  } else if (!isNativeResource(name) && !isExtendedResource(name))
    addInvalid(errors, path, name, "doesn't follow extended resource name standard");
}

function checkPodResourceName(errors: Errors, path: string, name: string): void {
  if (POD_LEVEL_RESOURCES.includes(name) || isHugePages(name)) return;
  if (checkResourceName(errors, path, name)) errors.push(fieldErrors.notSupported(path, name, POD_LEVEL_RESOURCES));
}

export function checkQuotaResourceName(errors: Errors, path: string, name: string): void {
  checkResourceName(errors, path, name);
  if (!name.includes('/') && !isStandardQuotaResource(name))
    addInvalid(errors, path, name, 'must be a standard resource for quota');
}

const PLAIN = /^\d+(m|[KMGT]i?|k)?$/;

/** Not negative, and whole where the resource is counted. */
export function checkResourceQuantity(errors: Errors, path: string, name: string, quantity: string): void {
  const text = String(quantity);
  const counted = INTEGER_RESOURCES.includes(name) || isExtendedResource(name);
  if (!counted && PLAIN.test(text)) return;
  const nano = parseNano(text);
  if (nano === undefined) return;
  if (nano < 0n) addInvalid(errors, path, text, NOT_NEGATIVE);
  if (counted && nano % 1_000_000_000n !== 0n) addInvalid(errors, path, text, 'must be an integer');
}

function isWholePages(name: string, quantity: string): boolean {
  const page = parseNano(name.slice('hugepages-'.length)) ?? 0n;
  return page > 0n && page % 1_000_000_000n === 0n && (parseNano(quantity) ?? 0n) % page === 0n;
}

export interface ResourceScope {
  readonly level: 'container' | 'pod';
  readonly claimNames: ReadonlySet<string>;
}

/** `resources` of a container or of a pod. */
export function checkResourceRequirements(
  errors: Errors,
  path: string,
  requirements: ResourceRequirements | undefined,
  scope: ResourceScope,
): void {
  if (!requirements) return;
  const { limits, requests, claims } = requirements;
  let computeNamed = false;
  let hugePagesNamed = false;
  const check = (at: string, name: string, quantity: string): void => {
    if (scope.level === 'container') checkContainerResourceName(errors, at, name);
    else checkPodResourceName(errors, at, name);
    checkResourceQuantity(errors, at, name, quantity);
    if (isHugePages(name)) {
      hugePagesNamed = true;
      if (!isWholePages(name, quantity))
        addInvalid(errors, at, quantity, `${quantity} is not positive integer multiple of ${name}`);
    }
    if (name === 'cpu' || name === 'memory') computeNamed = true;
  };
  for (const name in limits) check(`${path}.limits[${name}]`, name, limits[name]!);
  for (const name in requests) {
    const quantity = requests[name]!;
    check(`${path}.requests[${name}]`, name, quantity);
    const limit = limits?.[name];
    if (limit === undefined) {
      if (!isOvercommitAllowed(name))
        addRequired(errors, `${path}.limits`, 'Limit must be set for non overcommitable resources');
      continue;
    }
    const order = quantity === limit ? 0 : compareQuantity(quantity, limit);
    if (order !== 0 && !isOvercommitAllowed(name))
      addInvalid(errors, `${path}.requests`, quantity, `must be equal to ${name} limit of ${limit}`);
    else if (order > 0)
      addInvalid(errors, `${path}.requests`, quantity, `must be less than or equal to ${name} limit of ${limit}`);
  }
  if (hugePagesNamed && !computeNamed) addForbidden(errors, path, 'HugePages require cpu or memory');
  if (claims?.length) checkClaimNames(errors, `${path}.claims`, claims, scope.claimNames);
}

/** What a runtime itself uses: as if it were the limits of a container. */
export function checkOverhead(errors: Errors, path: string, limits: Readonly<Record<string, string>>): void {
  checkResourceRequirements(errors, path, { limits }, { level: 'container', claimNames: new Set() });
}

function checkClaimNames(
  errors: Errors,
  path: string,
  claims: readonly ResourceClaim[],
  podClaims: ReadonlySet<string>,
): void {
  const seen = new Set<string>();
  claims.forEach((claim, index) => {
    const at = `${path}[${index}]`;
    if (!claim.name) {
      addRequired(errors, at);
      return;
    }
    // A claim as a whole stands for all of its requests.
    if (seen.has(claim.name)) addDuplicate(errors, at, claim.name);
    else {
      if (claim.request) addProblems(errors, `${at}.request`, claim.request, dnsLabelProblems(claim.request));
      const key = claim.request ? `${claim.name}/${claim.request}` : claim.name;
      if (seen.has(key)) addDuplicate(errors, at, key);
      else if (!claim.request)
        for (const other of seen) if (other.startsWith(`${claim.name}/`)) addDuplicate(errors, at, claim.name);
      seen.add(key);
    }
    if (!podClaims.has(claim.name)) {
      const names = podClaims.size === 0 ? ' which is empty' : `: ${[...podClaims].sort().join(', ')}`;
      const finding = fieldErrors.notFound(at, claim.name);
      errors.push({
        ...finding,
        message: `${finding.message}: must be one of the names in pod.spec.resourceClaims${names}`,
      });
    }
  });
}
