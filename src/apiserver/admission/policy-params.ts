/**
 * Nobody reads by a policy what they may not read themselves: who writes a policy needs to get all objects of its `paramKind`, who
 * binds it those that `paramRef` means. Upstream does this in the storage of policies and their bindings.
 */

import type {
  MutatingAdmissionPolicy,
  MutatingAdmissionPolicyBinding,
  ParamKind,
} from '../../api/admissionregistration/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { fieldErrors, invalid } from '../../base/errors.ts';
import { PRIVILEGED_GROUP } from '../authz/authorizer.ts';
import type { AdmissionPlugin, AdmissionRequest, UserInfo } from '../request.ts';
import { splitApiVersion } from '../resource-table.ts';
import type { AdmissionContext } from './context.ts';

const GROUP = 'admissionregistration.k8s.io';
const POLICIES = ['validatingadmissionpolicies', 'mutatingadmissionpolicies'];

/** Of both kinds of policies, which say of parameters the same. */
type Policy = Pick<MutatingAdmissionPolicy, 'spec'>;
type Binding = Pick<MutatingAdmissionPolicyBinding, 'spec'>;

export function policyParams({ authorizer, reader }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'PolicyParamsAuthorization',
    validate(request) {
      const { attributes, object } = request;
      if (attributes.group !== GROUP || attributes.subresource || !object) return;
      if (attributes.user.groups.includes(PRIVILEGED_GROUP)) return;
      if (POLICIES.includes(attributes.resource)) return refuse(request, ofPolicy(request));
      if (POLICIES.some(policies => attributes.resource === bindingsOf(policies)))
        return refuse(request, ofBinding(request));
    },
  };

  async function refuse({ info, object }: AdmissionRequest, asked: ReturnType<typeof ofPolicy>): Promise<void> {
    const refusal = await asked;
    if (refusal) throw invalid(info, object!.metadata.name, [fieldErrors.forbidden(refusal.path, refusal.why)]);
  }

  async function ofPolicy({ attributes, object, oldObject }: AdmissionRequest) {
    const { paramKind } = (object as unknown as Policy).spec;
    if (!paramKind || semanticEqual((oldObject as Policy | undefined)?.spec.paramKind, paramKind)) return undefined;
    if (await mayGet(attributes, paramKind, { namespace: '*', name: '*' })) return undefined;
    const { kind, apiVersion } = paramKind;
    return {
      path: 'spec.paramKind',
      why: `user ${userText(attributes.user)} must have "get" permission on all objects of the referenced paramKind (kind=${kind}, apiVersion=${apiVersion})`,
    };
  }

  async function ofBinding({ attributes, object, oldObject }: AdmissionRequest) {
    const { paramRef, policyName = '' } = (object as unknown as Binding).spec;
    const before = (oldObject as Binding | undefined)?.spec;
    if (!paramRef || (semanticEqual(before?.paramRef, paramRef) && before?.policyName === policyName)) return undefined;
    const { group, version } = attributes;
    const resource = POLICIES.find(policies => attributes.resource === bindingsOf(policies))!;
    const policy = reader().get({ group, version, resource }, '', policyName) as Policy | undefined;
    const { namespace = '', name = '' } = paramRef;
    if (await mayGet(attributes, policy?.spec.paramKind, { namespace, name })) return undefined;
    return {
      path: 'spec.paramRef',
      why: `user ${userText(attributes.user)} does not have "get" permission on the object referenced by paramRef`,
    };
  }

  /** Of a kind that is not known, everything in its group or everything at all. */
  async function mayGet(
    attributes: AdmissionRequest['attributes'],
    kind: ParamKind | undefined,
    target: { readonly namespace: string; readonly name: string },
  ): Promise<boolean> {
    const { group, version } = kind ? splitApiVersion(kind.apiVersion ?? '') : { group: '*', version: '*' };
    const served = kind && reader().table?.ofKind(group, version, kind.kind ?? '');
    const resource = served?.info.resource ?? '*';
    const asked = { ...attributes, ...target, verb: 'get', group, version, resource, subresource: '' };
    return (await authorizer.authorize(asked)).allowed;
  }
}

function bindingsOf(policies: string): string {
  return policies.replace(/ies$/, 'ybindings');
}

/** As Go prints it. */
function userText({ name, uid = '', groups, extra = {} }: UserInfo): string {
  const more = Object.entries(extra).map(([key, values]) => `${key}:[${values.join(' ')}]`);
  return `&{${name} ${uid} [${groups.join(' ')}] map[${more.sort().join(' ')}]}`;
}
