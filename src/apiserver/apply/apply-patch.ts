/**
 * PATCH with `application/apply-patch+yaml`: checks the configuration, applies it to the newest state of the object, and
 * creates the object when there is none. Like any write it goes through the registry, so admission and validation see it.
 */

import type { KubeObject } from '../../api/meta.ts';
import { normalize } from '../../api/structural.ts';
import { badRequest, conflict, invalid, isReason, notFound, unknownFailure } from '../../base/errors.ts';
import { nameMismatch, type Operation, type Outcome, type Registry } from '../registry.ts';
import { applyConfiguration } from './apply.ts';
import { isMap } from './comparison.ts';
import { configurationProblems } from './configuration.ts';
import { entriesOf, identityOf } from './field-tracker.ts';
import { decodeManagers } from './managers.ts';

/** Whether the object is there may change while it is applied. */
const APPLY_ATTEMPTS = 5;

export interface ApplyOptions {
  readonly force: boolean;
  /** Throws Forbidden when the user may not create the object. */
  readonly authorizeCreate: () => void | Promise<void>;
}

/** Applies `patch`; `created` says that the object was not there before. */
export async function applyPatch(
  registry: Registry,
  request: Operation,
  patch: unknown,
  options: ApplyOptions,
): Promise<{ outcome: Outcome; created: boolean }> {
  if (!request.fieldManager)
    throw invalid({ group: 'meta.k8s.io', kind: 'PatchOptions' }, '', [
      { type: 'FieldValueRequired', field: 'fieldManager', message: 'Required value: is required for apply patch' },
    ]);
  const operation: Operation = { ...request, applied: true };
  const { served, attributes } = operation;
  const configuration = configurationOf(registry, operation, patch);
  for (let attempt = 1; ; attempt++) {
    try {
      if (registry.cacheOf(served).entries.has(registry.keyOf(operation))) {
        const outcome = await registry.modify(operation, current =>
          merged(registry, operation, { current, configuration, force: options.force }),
        );
        return { outcome, created: false };
      }
      if (attributes.subresource) throw notFound(served.info, attributes.name);
      const waiting = options.authorizeCreate();
      if (waiting) await waiting;
      return { outcome: await create(registry, operation, configuration), created: true };
    } catch (error) {
      if (attributes.subresource || attempt >= APPLY_ATTEMPTS || !isReason(error, 'AlreadyExists', 'NotFound'))
        throw error;
      const exists = registry.cacheOf(served).entries.has(registry.keyOf(operation));
      if (exists !== isReason(error, 'AlreadyExists')) throw error;
    }
  }
}

/** Whatever a client wrote where a text belongs. */
const shown = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

// The patch as a configuration of the resource's kind. A Scale becomes one of the object it scales.
function configurationOf(registry: Registry, operation: Operation, patch: unknown): KubeObject {
  const { served, attributes } = operation;
  if (!isMap(patch)) throw badRequest('error decoding YAML: the configuration is not an object');
  const versions = registry.fields.versions(operation);
  const isScale = attributes.subresource === 'scale';
  const expected = isScale ? 'autoscaling/v1' : versions.apiVersion;
  const apiVersion = patch['apiVersion'] ?? '';
  if (apiVersion !== expected)
    throw badRequest(
      `Incorrect version specified in apply patch. Specified patch version: ${shown(apiVersion)}, expected: ${expected}`,
    );
  const { info } = served;
  const kind = isScale ? 'Scale' : info.kind;
  if (patch['kind'] !== kind)
    throw badRequest(
      patch['kind']
        ? `${shown(patch['kind'])} in version "${info.version}" cannot be handled as a ${kind}: converting (${shown(patch['kind'])}) to (${kind}): unknown conversion`
        : `Object 'Kind' is missing in '${JSON.stringify(patch)}'`,
    );
  const configuration = (isScale ? scaled(versions.apiVersion, info.kind, patch) : patch) as unknown as KubeObject;
  const { metadata } = configuration;
  if (isMap(metadata)) {
    if (metadata.managedFields) throw badRequest('metadata.managedFields must be nil');
    if (metadata.name && metadata.name !== attributes.name)
      throw badRequest(nameMismatch(metadata.name, attributes.name));
  }
  const problems = configurationProblems(versions.table, configuration);
  if (problems.length > 0) {
    const name = `${attributes.namespace ? `${attributes.namespace}/` : ''}${attributes.name}`;
    const what = `${name}; ${versions.apiVersion}, Kind=${info.kind}`;
    throw unknownFailure(`failed to create typed patch object (${what}): ${listed(problems)}`);
  }
  if (isMap(metadata)) return configuration;
  return { ...configuration, metadata: { name: attributes.name } };
}

function scaled(apiVersion: string, kind: string, patch: Readonly<Record<string, unknown>>): object {
  const spec = patch['spec'];
  const metadata = isMap(patch['metadata']) ? patch['metadata'] : {};
  const replicas = isMap(spec) ? (spec['replicas'] ?? 0) : 0;
  const { name, namespace, uid, resourceVersion } = metadata;
  const kept = Object.entries({ name, namespace, uid, resourceVersion }).filter(([, value]) => value !== undefined);
  return { apiVersion, kind, metadata: Object.fromEntries(kept), spec: { replicas } };
}

function listed(problems: readonly string[]): string {
  return problems.length === 1 ? problems[0]! : ['errors:', ...problems.map(problem => `  ${problem}`)].join('\n');
}

function merged(
  registry: Registry,
  operation: Operation,
  { current, configuration, force }: { current: KubeObject; configuration: KubeObject; force: boolean },
): KubeObject {
  const next = applyTo(registry, operation, { live: current, configuration, force });
  const { resourceVersion } = configuration.metadata;
  if (resourceVersion) next.metadata.resourceVersion = resourceVersion;
  else delete next.metadata.resourceVersion;
  return next;
}

async function create(registry: Registry, operation: Operation, configuration: KubeObject): Promise<Outcome> {
  const { served, attributes } = operation;
  const { uid, resourceVersion } = configuration.metadata;
  if (uid)
    throw conflict(
      served.info,
      attributes.name,
      `uid mismatch: the provided object specified uid ${uid}, and no existing object was found`,
    );
  if (resourceVersion && resourceVersion !== '0') throw notFound(served.info, attributes.name);
  const next = applyTo(registry, operation, { live: undefined, configuration, force: false });
  next.metadata.name ||= attributes.name;
  return registry.createDecoded(operation, next);
}

/** The object in stored form with its new managers. */
function applyTo(
  registry: Registry,
  operation: Operation,
  options: { live: KubeObject | undefined; configuration: KubeObject; force: boolean },
): KubeObject {
  const { fields } = registry;
  const versions = fields.versions(operation);
  const { configuration, force } = options;
  const live = options.live ? versions.shown(options.live) : versions.empty;
  const { object, managers } = applyConfiguration({
    versions,
    live,
    configuration,
    managers: decodeManagers(live.metadata.managedFields) ?? [],
    identity: identityOf(operation, versions, 'Apply'),
    force,
    time: fields.now(),
    settle: candidate => {
      const { info, custom } = operation.served;
      registry.checkBody({ ...operation, fieldValidation: 'Ignore' }, info, candidate);
      return custom ? custom.decode(candidate) : normalize(info.type, candidate);
    },
  });
  const { managedFields: _, ...metadata } = object.metadata;
  const next = registry.decode({ ...operation, trusted: false, fieldValidation: 'Ignore' }, { ...object, metadata });
  next.metadata.managedFields = entriesOf(managers);
  return next;
}
