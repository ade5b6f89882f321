/** Custom resource definitions: names and columns of the definition itself. What it defines is served elsewhere. */

import { formatTime } from '../../base/clock.ts';
import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { nameColumn } from '../machinery/columns.ts';
import { dns1035LabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import {
  addInvalid,
  addProblems,
  addRequired,
  checkUnchanged,
  type Errors,
  eachAt,
  requireOneOf,
  requireText,
} from '../machinery/validation.ts';
import type { CustomResourceDefinition, CustomResourceDefinitionSpec } from './v1.gen.ts';

/** Held until no instance is left. */
export const CLEANUP = 'customresourcecleanup.apiextensions.k8s.io';

export const customResourceDefinition = defineKind<CustomResourceDefinition>({
  group: 'apiextensions.k8s.io',
  version: 'v1',
  kind: 'CustomResourceDefinition',
  unconditionalUpdate: false,
  defaults: object => {
    const spec = object.spec;
    if (!spec) return;
    const names = (spec.names ??= {} as CustomResourceDefinitionSpec['names']);
    if (names.kind) {
      names.singular ||= names.kind.toLowerCase();
      names.listKind ||= `${names.kind}List`;
    }
    (spec.conversion ??= { strategy: 'None' }).strategy ||= 'None';
    const service = spec.conversion.webhook?.clientConfig?.service;
    if (service) service.port ??= 443;
  },
  prepareCreate: object => {
    object.metadata.generation = 1;
    const stored = object.spec?.versions?.find(version => version.storage)?.name;
    object.status = {
      conditions: [],
      acceptedNames: { plural: '', kind: '' },
      storedVersions: stored ? [stored] : [],
    } as NonNullable<CustomResourceDefinition['status']>;
  },
  prepareUpdate: (object, old) => {
    const changed = JSON.stringify(object.spec) !== JSON.stringify(old.spec);
    object.metadata.generation = (old.metadata.generation ?? 0) + (changed ? 1 : 0);
    const stored = object.spec?.versions?.find(version => version.storage)?.name;
    const before = old.status?.storedVersions ?? [];
    object.status = (
      stored && !before.includes(stored) ? { ...old.status, storedVersions: [...before, stored] } : old.status
    ) as NonNullable<CustomResourceDefinition['status']>;
  },
  prepareDelete: (object, nowMs) => {
    object.metadata.finalizers = [...(object.metadata.finalizers ?? []), CLEANUP];
    const terminating = {
      lastTransitionTime: formatTime(nowMs),
      message: 'CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon',
      reason: 'InstanceDeletionPending',
      status: 'True',
      type: 'Terminating',
    };
    const conditions = object.status?.conditions ?? [];
    object.status = {
      ...object.status,
      conditions: [...conditions.filter(({ type }) => type !== 'Terminating'), terminating],
    };
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? ({} as CustomResourceDefinitionSpec);
    const { plural = '', kind = '', singular, listKind, shortNames } = spec.names ?? {};
    const wanted = `${plural}.${spec.group ?? ''}`;
    if (object.metadata.name !== wanted)
      addInvalid(errors, 'metadata.name', object.metadata.name, `must be spec.names.plural+"."+spec.group`);
    if (requireText(errors, 'spec.group', spec.group)) {
      addProblems(errors, 'spec.group', spec.group, dnsSubdomainProblems(spec.group));
      if (!spec.group.includes('.'))
        addInvalid(errors, 'spec.group', spec.group, 'should be a domain with at least one dot');
    }
    requireOneOf(errors, 'spec.scope', spec.scope, ['Cluster', 'Namespaced']);
    if (requireText(errors, 'spec.names.plural', plural))
      addProblems(errors, 'spec.names.plural', plural, dns1035LabelProblems(plural));
    if (singular) addProblems(errors, 'spec.names.singular', singular, dns1035LabelProblems(singular));
    if (requireText(errors, 'spec.names.kind', kind))
      for (const problem of dns1035LabelProblems(kind.toLowerCase()))
        addInvalid(errors, 'spec.names.kind', kind, `may have mixed case, but should otherwise match: ${problem}`);
    if (listKind && listKind === kind)
      addInvalid(errors, 'spec.names.listKind', listKind, 'kind and listKind may not be the same');
    eachAt(shortNames, 'spec.names.shortNames', (name, at) =>
      addProblems(errors, at, name, dns1035LabelProblems(name)),
    );
    const versions = spec.versions ?? [];
    const storage = versions.filter(version => version.storage).length;
    if (versions.length === 0 || storage !== 1)
      addInvalid(errors, 'spec.versions', versions, 'must have exactly one version marked as storage version');
    const seen = new Set<string>();
    eachAt(versions, 'spec.versions', (version, at) => {
      addProblems(errors, `${at}.name`, version.name ?? '', dns1035LabelProblems(version.name ?? ''));
      if (seen.has(version.name))
        errors.push(fieldErrors.invalid('spec.versions', version.name, 'must contain unique version names'));
      seen.add(version.name);
      if (!version.schema?.openAPIV3Schema) addRequired(errors, `${at}.schema.openAPIV3Schema`, 'schemas are required');
    });
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec.group', object.spec?.group, old.spec?.group);
    const established = old.status?.conditions?.some(
      condition => condition.type === 'Established' && condition.status === 'True',
    );
    if (!established) return errors;
    checkUnchanged(errors, 'spec.scope', object.spec?.scope, old.spec?.scope);
    checkUnchanged(errors, 'spec.names.kind', object.spec?.names?.kind, old.spec?.names?.kind);
    checkUnchanged(errors, 'spec.names.plural', object.spec?.names?.plural, old.spec?.names?.plural);
    return errors;
  },
  columns: [
    nameColumn,
    { name: 'Created At', type: 'date', cell: object => object.metadata.creationTimestamp ?? null },
  ],
});
