/** Nodes. */

import { defineKind } from '../kind.ts';
import { warnOfRange } from '../machinery/address-forms.ts';
import { ageColumn, nameColumn, text, wideText } from '../machinery/columns.ts';
import { cidrProblems } from '../machinery/names.ts';
import { addDuplicate, addForbidden, addInvalid, addProblems, type Errors, eachAt } from '../machinery/validation.ts';
import { canonicalList } from './pod-defaults.ts';
import { checkResourceQuantity } from './resource-validation.ts';
import { checkTaints } from './scheduling-validation.ts';
import type { Node, Taint } from './v1.gen.ts';

const ROLE_PREFIX = 'node-role.kubernetes.io/';
const ROLE_LABEL = 'kubernetes.io/role';
const TAINTS_ANNOTATION = 'scheduler.alpha.kubernetes.io/taints';
const FEATURE_NAME_BYTES_MAX = 253;
const FEATURE_NAME = /^[A-Z][a-zA-Z0-9]*(\/[a-zA-Z][a-zA-Z0-9]*)*$/;

export const node = defineKind<Node>({
  group: '',
  version: 'v1',
  kind: 'Node',
  warnings: ({ spec }) => {
    const found = spec?.externalID ? ['spec.externalID: this field is deprecated, and is unused by Kubernetes'] : [];
    eachAt(spec?.podCIDRs, 'spec.podCIDRs', (range, at) => warnOfRange(found, at, range));
    return found;
  },
  defaults: object => {
    const spec = (object.spec ??= {});
    // podCIDR mirrors the first of podCIDRs; who changes only it changes both.
    if (spec.podCIDR && spec.podCIDR !== spec.podCIDRs?.[0]) spec.podCIDRs = [spec.podCIDR];
    else if (spec.podCIDRs?.length) spec.podCIDR = spec.podCIDRs[0]!;
    // Kubelets take their configuration from files only; what names another source is dropped, as upstream does.
    delete spec.configSource;
    const status = object.status;
    if (status?.capacity) canonicalList(status.capacity);
    if (status?.allocatable) canonicalList(status.allocatable);
    // What a kubelet does not say about allocatable is all there is.
    else if (status?.capacity) status.allocatable = { ...status.capacity };
  },
  // Kubelets register with their status.
  prepareCreate: () => {},
  prepareStatusUpdate: (object, old) => {
    object.spec = old.spec!;
  },
  validate: object => {
    const errors: Errors = [];
    checkAnnotatedTaints(errors, object.metadata.annotations?.[TAINTS_ANNOTATION]);
    checkTaints(errors, 'metadata.taints', object.spec?.taints);
    checkResources(errors, object);
    const swap = object.status?.nodeInfo?.swap?.capacity;
    if (swap !== undefined && swap <= 0)
      addInvalid(errors, 'metadata.nodeSwapStatus.capacity', swap, 'must be greater than zero');
    checkFeatures(errors, object.status?.declaredFeatures ?? []);
    const ranges = object.spec?.podCIDRs ?? [];
    eachAt(ranges, 'spec.podCIDRs', (range, at) => addProblems(errors, at, range, cidrProblems(range)));
    if (ranges.length > 1) {
      const families = new Set(ranges.map(range => range.includes(':')));
      if (families.size < 2 || ranges.length > 2)
        addInvalid(errors, 'spec.podCIDRs', ranges, 'may specify no more than one CIDR for each IP family');
    }
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors = validateStatus(object);
    const before = old.spec?.podCIDRs ?? [];
    const now = object.spec?.podCIDRs ?? [];
    if (before.length > 0 && (before.length !== now.length || before.some((range, index) => range !== now[index])))
      addForbidden(errors, 'spec.podCIDRs', 'node updates may not change podCIDR except from "" to valid');
    if (old.spec?.providerID && old.spec.providerID !== object.spec?.providerID)
      addForbidden(errors, 'spec.providerID', 'node updates may not change providerID except from "" to valid');
    if ((object.spec?.externalID ?? '') !== (old.spec?.externalID ?? ''))
      addForbidden(errors, 'spec.externalID', 'may not be updated');
    return errors;
  },
  validateStatusUpdate: validateStatus,
  selectableFields: { 'spec.unschedulable': object => String(object.spec?.unschedulable ?? false) },
  columns: [
    nameColumn,
    text('Status', status),
    text('Roles', object => roles(object).join(',') || '<none>'),
    ageColumn,
    text('Version', object => object.status?.nodeInfo?.kubeletVersion ?? ''),
    wideText('Internal-IP', object => address(object, 'InternalIP')),
    wideText('External-IP', object => address(object, 'ExternalIP')),
    wideText('OS-Image', object => object.status?.nodeInfo?.osImage || '<unknown>'),
    wideText('Kernel-Version', kernel),
    wideText('Container-Runtime', object => object.status?.nodeInfo?.containerRuntimeVersion || '<unknown>'),
  ],
});

/** Where taints were before they had a field. */
function checkAnnotatedTaints(errors: Errors, text: string | undefined): void {
  if (!text) return;
  let taints: unknown;
  try {
    taints = JSON.parse(text);
  } catch (error) {
    addInvalid(errors, 'metadata.annotations', TAINTS_ANNOTATION, (error as Error).message);
    return;
  }
  if (Array.isArray(taints)) checkTaints(errors, `metadata.annotations.${TAINTS_ANNOTATION}`, taints as Taint[]);
  else if (taints !== null)
    addInvalid(
      errors,
      'metadata.annotations',
      TAINTS_ANNOTATION,
      'json: cannot unmarshal into Go value of type []core.Taint',
    );
}

/** Names in order, each once. */
function checkFeatures(errors: Errors, features: readonly string[]): void {
  features.forEach((feature, index) => {
    const at = `status.declaredFeatures[${index}]`;
    const invalid = `invalid feature name ${JSON.stringify(feature)}: must`;
    if (feature.length > FEATURE_NAME_BYTES_MAX)
      addInvalid(errors, at, feature, `${invalid} be no more than ${FEATURE_NAME_BYTES_MAX} characters`);
    else if (!FEATURE_NAME.test(feature))
      addInvalid(
        errors,
        at,
        feature,
        `${invalid} start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes`,
      );
    const before = features[index - 1];
    if (before === feature) addDuplicate(errors, at, feature);
    else if (before !== undefined && before > feature)
      addInvalid(errors, at, feature, 'list must be sorted alphabetically');
  });
}

function checkResources(errors: Errors, object: Node): void {
  for (const list of ['capacity', 'allocatable'] as const) {
    const resources = object.status?.[list];
    for (const name in resources) checkResourceQuantity(errors, `status.${list}.${name}`, name, resources[name]!);
  }
}

function validateStatus(object: Node): Errors {
  const errors: Errors = [];
  checkResources(errors, object);
  checkFeatures(errors, object.status?.declaredFeatures ?? []);
  const seen = new Set<string>();
  eachAt(object.status?.addresses, 'status.addresses', (item, at) => {
    const key = `${item.type}/${item.address}`;
    if (seen.has(key)) addDuplicate(errors, at, item);
    seen.add(key);
  });
  return errors;
}

/** With the architecture, since 1.36. */
function kernel(object: Node): string {
  const { kernelVersion, architecture } = object.status?.nodeInfo ?? {};
  if (!kernelVersion) return '<unknown>';
  return architecture ? `${kernelVersion} (${architecture})` : kernelVersion;
}

function status(object: Node): string {
  const ready = object.status?.conditions?.find(condition => condition.type === 'Ready');
  const text = ready ? (ready.status === 'True' ? 'Ready' : 'NotReady') : 'Unknown';
  return object.spec?.unschedulable ? `${text},SchedulingDisabled` : text;
}

/** From `node-role.kubernetes.io/<role>` and `kubernetes.io/role` labels, sorted. */
function roles(object: Node): string[] {
  const found = new Set<string>();
  for (const [key, value] of Object.entries(object.metadata.labels ?? {})) {
    if (key.startsWith(ROLE_PREFIX)) {
      if (key.length > ROLE_PREFIX.length) found.add(key.slice(ROLE_PREFIX.length));
    } else if (key === ROLE_LABEL && value) found.add(value);
  }
  return [...found].sort();
}

function address(object: Node, type: string): string {
  return object.status?.addresses?.find(item => item.type === type)?.address ?? '<none>';
}
