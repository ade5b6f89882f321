/** Service address ranges and the addresses handed out from them. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import {
  canonicalIp,
  cidrProblems,
  dnsSubdomainProblems,
  ipProblems,
  pathSegmentProblems,
} from '../machinery/names.ts';
import {
  addInvalid,
  addProblems,
  addRequired,
  checkUnchanged,
  type Errors,
  eachAt,
  IMMUTABLE,
} from '../machinery/validation.ts';
import type { IPAddress, ServiceCIDR } from './v1.gen.ts';

export const serviceCidr = defineKind<ServiceCIDR>({
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'ServiceCIDR',
  validate: validateServiceCidr,
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    const [now, then] = [object.spec?.cidrs ?? [], old.spec?.cidrs ?? []];
    // A second family may be added.
    if (now.length !== then.length && !(then.length === 1 && now.length === 2))
      addInvalid(errors, 'spec.cidrs', now, IMMUTABLE);
    else
      then.forEach((range, index) => {
        if (range !== now[index]) addInvalid(errors, `spec.cidrs[${index}]`, now[index], IMMUTABLE);
      });
    return errors;
  },
  columns: [nameColumn, text('CIDRs', object => (object.spec?.cidrs ?? []).join(',')), ageColumn],
});

function validateServiceCidr(object: ServiceCIDR): Errors {
  const errors: Errors = [];
  const ranges = object.spec?.cidrs ?? [];
  if (ranges.length === 0) addRequired(errors, 'spec.cidrs', 'at least one CIDR required');
  else if (ranges.length > 2) addInvalid(errors, 'spec.cidrs', object.spec, 'may only hold up to 2 values');
  else if (ranges.length === 2 && ranges[0]!.includes(':') === ranges[1]!.includes(':'))
    addInvalid(
      errors,
      'spec.cidrs',
      object.spec,
      'may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64',
    );
  else eachAt(ranges, 'spec.cidrs', (range, at) => addProblems(errors, at, range, networkProblems(range)));
  return errors;
}

// Stricter than older fields: one spelling for each range.
function networkProblems(range: string): readonly string[] {
  const problems = cidrProblems(range);
  if (problems.length) return problems;
  const [address, length] = range.split('/') as [string, string];
  const canonical = `${canonicalIp(address)}/${Number(length)}`;
  return canonical === range ? [] : [`must be in canonical form ("${canonical}")`];
}

export const ipAddress = defineKind<IPAddress>({
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'IPAddress',
  validateName: name => {
    const problems = ipProblems(name);
    if (problems.length) return problems;
    const canonical = canonicalIp(name);
    return canonical === name ? [] : [`must be in canonical form ("${canonical}")`];
  },
  validate: object => {
    const errors: Errors = [];
    const path = 'spec.parentRef';
    const parent = object.spec?.parentRef;
    if (!parent) {
      addRequired(errors, path);
      return errors;
    }
    if (parent.group) addProblems(errors, `${path}.group`, parent.group, dnsSubdomainProblems(parent.group));
    for (const field of ['resource', 'name'] as const)
      if (parent[field]) addProblems(errors, `${path}.${field}`, parent[field], pathSegmentProblems(parent[field]));
      else addRequired(errors, `${path}.${field}`);
    if (parent.namespace)
      addProblems(errors, `${path}.namespace`, parent.namespace, pathSegmentProblems(parent.namespace));
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec.parentRef', object.spec?.parentRef, old.spec?.parentRef);
    return errors;
  },
  columns: [
    nameColumn,
    text('ParentRef', object => {
      const parent = object.spec?.parentRef;
      if (!parent) return '<none>';
      const resource = `${parent.resource ?? ''}${parent.group ? `.${parent.group}` : ''}`;
      return parent.namespace ? `${resource}/${parent.namespace}/${parent.name}` : `${resource}/${parent.name}`;
    }),
  ],
});
