/** Role bindings and cluster role bindings. */

import { fieldErrors } from '../../base/errors.ts';
import { type Column, defineKind, type Kind } from '../kind.ts';
import { ageColumn, nameColumn, text, wideText } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { dnsSubdomainProblems, pathSegmentName, pathSegmentProblems } from '../machinery/names.ts';
import { addInvalid, addProblems, addRequired, type Errors, eachAt, requireText } from '../machinery/validation.ts';
import type { ClusterRoleBinding, RoleBinding, Subject } from './v1.gen.ts';

const GROUP = 'rbac.authorization.k8s.io';

type Binding = RoleBinding | ClusterRoleBinding;

function bindingRules(
  roleKinds: readonly string[],
): Pick<Kind<Binding>, 'createOnUpdate' | 'validateName' | 'defaults' | 'validate' | 'validateUpdate' | 'columns'> {
  return {
    createOnUpdate: true,
    validateName: pathSegmentName,
    defaults: object => {
      if (object.roleRef) object.roleRef.apiGroup ||= GROUP;
      for (const subject of object.subjects ?? [])
        if (subject.kind === 'User' || subject.kind === 'Group') subject.apiGroup ||= GROUP;
    },
    validate: object => validate(object, roleKinds),
    validateUpdate: (object, old) => {
      const errors: Errors = [];
      if (!semanticEqual(object.roleRef, old.roleRef))
        addInvalid(errors, 'roleRef', object.roleRef, 'cannot change roleRef');
      return errors;
    },
    columns: [
      nameColumn,
      text('Role', object => `${object.roleRef?.kind ?? ''}/${object.roleRef?.name ?? ''}`),
      ageColumn,
      subjectColumn('Users', 'User'),
      subjectColumn('Groups', 'Group'),
      subjectColumn('ServiceAccounts', 'ServiceAccount'),
    ],
  };
}

export const roleBinding = defineKind<RoleBinding>({
  group: GROUP,
  version: 'v1',
  kind: 'RoleBinding',
  ...bindingRules(['Role', 'ClusterRole']),
});

export const clusterRoleBinding = defineKind<ClusterRoleBinding>({
  group: GROUP,
  version: 'v1',
  kind: 'ClusterRoleBinding',
  ...bindingRules(['ClusterRole']),
});

function subjectColumn(name: string, kind: string): Column<Binding> {
  return wideText(name, object =>
    (object.subjects ?? [])
      .filter(subject => subject.kind === kind)
      .map(subject => (kind === 'ServiceAccount' ? `${subject.namespace ?? ''}/${subject.name}` : subject.name))
      .join(', '),
  );
}

function validate(object: Binding, roleKinds: readonly string[]): Errors {
  const errors: Errors = [];
  const { apiGroup = '', kind = '', name = '' } = object.roleRef ?? {};
  if (apiGroup !== GROUP) errors.push(fieldErrors.notSupported('roleRef.apiGroup', apiGroup, [GROUP]));
  if (!roleKinds.includes(kind)) errors.push(fieldErrors.notSupported('roleRef.kind', kind, roleKinds));
  if (requireText(errors, 'roleRef.name', name)) addProblems(errors, 'roleRef.name', name, pathSegmentProblems(name));
  eachAt(object.subjects, 'subjects', (subject, at) => checkSubject(errors, at, subject, roleKinds.includes('Role')));
  return errors;
}

/** Without a namespace, a service account in a RoleBinding is nobody: upstream lets it be written all the same. */
function checkSubject(errors: Errors, path: string, subject: Subject, namespaced: boolean): void {
  requireText(errors, `${path}.name`, subject.name);
  const group = subject.apiGroup ?? '';
  switch (subject.kind) {
    case 'ServiceAccount':
      if (subject.name) addProblems(errors, `${path}.name`, subject.name, dnsSubdomainProblems(subject.name));
      if (group) errors.push(fieldErrors.notSupported(`${path}.apiGroup`, group, ['']));
      if (!subject.namespace && !namespaced) addRequired(errors, `${path}.namespace`);
      break;
    case 'User':
    case 'Group':
      if (group !== GROUP) errors.push(fieldErrors.notSupported(`${path}.apiGroup`, group, [GROUP]));
      break;
    default:
      errors.push(fieldErrors.notSupported(`${path}.kind`, subject.kind ?? '', ['ServiceAccount', 'User', 'Group']));
  }
}
