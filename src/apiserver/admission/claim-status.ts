/**
 * Who may write what of a ResourceClaim's status (KEP 4817, on in 1.36), beside the right to write it at all: its allocation and
 * for whom it is reserved needs `resourceclaims/binding`; the devices of a driver need `resourceclaims/driver` of that name, by
 * verbs that say whether any node's claims are meant or those of the writer's own node. Upstream does this in the storage of claims.
 */

import { semanticEqual } from '../../api/machinery/equality.ts';
import type { AllocatedDeviceStatus, AllocationResult, ResourceClaim } from '../../api/resource/v1.gen.ts';
import { type FieldError, fieldErrors, invalid } from '../../base/errors.ts';
import { PRIVILEGED_GROUP } from '../authz/authorizer.ts';
import { denialText } from '../authz/denial.ts';
import type { AdmissionPlugin, AdmissionRequest, RequestAttributes, UserInfo } from '../request.ts';
import type { AdmissionContext } from './context.ts';

const GROUP = 'resource.k8s.io';
const NODE_NAME = 'authentication.kubernetes.io/node-name';

export function claimStatus({ authorizer }: Pick<AdmissionContext, 'authorizer'>): AdmissionPlugin {
  return {
    name: 'ResourceClaimStatusAuthorization',
    validate(request) {
      const { attributes, operation, object, oldObject } = request;
      if (operation !== 'UPDATE' || attributes.group !== GROUP || attributes.resource !== 'resourceclaims') return;
      if (attributes.subresource !== 'status' || attributes.user.groups.includes(PRIVILEGED_GROUP)) return;
      return judge(request, object as ResourceClaim, oldObject as ResourceClaim);
    },
  };

  /** Undefined when one of the verbs is allowed; else why the first is not. */
  async function problemOf(of: RequestAttributes, verbs: readonly string[]): Promise<string | undefined> {
    let problem: string | undefined;
    for (const verb of verbs) {
      const asked = { ...of, verb };
      if ((await authorizer.authorize(asked)).allowed) return undefined;
      problem ??= denialText(asked);
    }
    return problem;
  }

  async function judge({ attributes }: AdmissionRequest, claim: ResourceClaim, old: ResourceClaim): Promise<void> {
    const errors: FieldError[] = [];
    const { verb, user } = attributes;
    const { status } = claim;
    if (
      !semanticEqual(status?.allocation, old.status?.allocation) ||
      !semanticEqual(status?.reservedFor, old.status?.reservedFor)
    ) {
      const problem = await problemOf({ ...attributes, subresource: 'binding', namespace: '', name: '' }, [verb]);
      if (problem)
        errors.push(
          fieldErrors.forbidden(
            'status',
            `changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="${verb}" permission: ${problem}`,
          ),
        );
    }
    const any = `arbitrary-node:${verb}`;
    const verbs = isOn(user, nodeOf(status?.allocation)) ? [`associated-node:${verb}`, any] : [any];
    for (const driver of changedDrivers(status?.devices ?? [], old.status?.devices ?? [])) {
      const problem = await problemOf({ ...attributes, subresource: 'driver', name: driver }, verbs);
      if (problem)
        errors.push(
          fieldErrors.forbidden(
            'status.devices',
            `changing status.devices requires resource="resourceclaims/driver", verb="${verbs[0]}" permission for driver ${JSON.stringify(driver)}: ${problem}`,
          ),
        );
    }
    if (errors.length > 0) throw invalid({ group: GROUP, kind: 'ResourceClaim' }, claim.metadata.name, errors);
  }
}

/** Drivers any of whose devices came, went or changed. */
function changedDrivers(now: readonly AllocatedDeviceStatus[], before: readonly AllocatedDeviceStatus[]): Set<string> {
  const keyOf = ({ driver, pool, device, shareID = '' }: AllocatedDeviceStatus) =>
    [driver, pool, device, shareID].join('\0');
  const left = new Map(before.map(one => [keyOf(one), one]));
  const changed = new Set<string>();
  for (const one of now) {
    if (!semanticEqual(left.get(keyOf(one)), one)) changed.add(one.driver);
    left.delete(keyOf(one));
  }
  for (const { driver } of left.values()) changed.add(driver);
  return changed;
}

/** The one node that an allocation is for. */
function nodeOf(allocation: AllocationResult | undefined): string | undefined {
  const terms = allocation?.nodeSelector?.nodeSelectorTerms ?? [];
  const [{ matchExpressions = [], matchFields = [] } = {}] = terms;
  const [field] = matchFields;
  if (terms.length !== 1 || matchExpressions.length > 0 || matchFields.length !== 1 || !field) return undefined;
  if (field.key !== 'metadata.name' || field.operator !== 'In' || field.values?.length !== 1) return undefined;
  return field.values[0];
}

function isOn({ name, extra }: UserInfo, node: string | undefined): boolean {
  const nodes = extra?.[NODE_NAME] ?? [];
  return (
    /^system:serviceaccount:[^:]+:[^:]+$/.test(name) && nodes.length === 1 && node !== undefined && nodes[0] === node
  );
}
