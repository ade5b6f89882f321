/** Service address ranges and the addresses handed out from them. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { cidrProblems, ipFamily } from '../machinery/names.ts';
import {
  addInvalid,
  addProblems,
  addRequired,
  checkUnchanged,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import type { IPAddress, ServiceCIDR } from './v1.gen.ts';

export const serviceCidr = defineKind<ServiceCIDR>({
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'ServiceCIDR',
  validate: object => {
    const errors: Errors = [];
    const ranges = object.spec?.cidrs ?? [];
    if (ranges.length === 0) addRequired(errors, 'spec.cidrs', 'at least one CIDR required');
    if (ranges.length > 2) addInvalid(errors, 'spec', object.spec, 'may only hold up to 2 values');
    if (ranges.length === 2 && ranges[0]!.includes(':') === ranges[1]!.includes(':'))
      addInvalid(
        errors,
        'spec',
        object.spec,
        'may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96',
      );
    eachAt(ranges, 'spec.cidrs', (range, at) => addProblems(errors, at, range, cidrProblems(range)));
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec.cidrs', object.spec?.cidrs, old.spec?.cidrs);
    return errors;
  },
  columns: [nameColumn, text('CIDRs', object => (object.spec?.cidrs ?? []).join(',')), ageColumn],
});

export const ipAddress = defineKind<IPAddress>({
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'IPAddress',
  validateName: name => (ipFamily(name) ? [] : ['must be a valid IP address in canonical form']),
  validate: object => {
    const errors: Errors = [];
    const parent = object.spec?.parentRef;
    if (!parent) addRequired(errors, 'spec.parentRef');
    else
      for (const field of ['resource', 'name'] as const) requireText(errors, `spec.parentRef.${field}`, parent[field]);
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
