/** The chain: `system:masters` may do everything, then the Node authorizer, then RBAC. The first that allows decides. */

import type { PolicyRule } from '../../api/rbac/v1.gen.ts';
import type { Authorizer, Decision, Reader, RequestAttributes, UserInfo } from '../request.ts';
import { nodeRules } from './bootstrap-policy.ts';
import { NodeAuthorizer, nodeNameOf } from './node-authorizer.ts';
import { RbacAuthorizer } from './rbac.ts';

export const PRIVILEGED_GROUP = 'system:masters';
const PRIVILEGED: Decision = { allowed: true, reason: '' };
const EVERYTHING: readonly PolicyRule[] = [
  { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
  { verbs: ['*'], nonResourceURLs: ['*'] },
];

export class AuthorizerChain implements Authorizer {
  readonly rbac: RbacAuthorizer;
  readonly #node: NodeAuthorizer;

  constructor(reader: () => Reader) {
    this.rbac = new RbacAuthorizer(reader);
    this.#node = new NodeAuthorizer(reader, nodeRules);
  }

  authorize(given: RequestAttributes): Decision {
    if (given.user.groups.includes(PRIVILEGED_GROUP)) return PRIVILEGED;
    const attributes = named(given);
    let reason = '';
    if (nodeNameOf(attributes.user) !== undefined) {
      const decision = this.#node.authorize(attributes);
      if (decision.allowed) return decision;
      reason = decision.reason;
    }
    const decision = this.rbac.authorize(attributes);
    if (decision.allowed || reason === '') return decision;
    return { allowed: false, reason: decision.reason ? `${reason}; ${decision.reason}` : reason };
  }

  rulesFor(
    user: UserInfo,
    namespace: string,
  ): { resourceRules: unknown[]; nonResourceRules: unknown[]; incomplete: boolean } {
    const result = this.rbac.rulesFor(user, namespace);
    if (!user.groups.includes(PRIVILEGED_GROUP))
      return nodeNameOf(user) === undefined ? result : { ...result, incomplete: true };
    const [resources, urls] = EVERYTHING;
    return {
      resourceRules: [resources, ...result.resourceRules],
      nonResourceRules: [urls, ...result.nonResourceRules],
      incomplete: false,
    };
  }
}

// A list of exactly one object is decided on by its name, as upstream's request info does.
function named(attributes: RequestAttributes): RequestAttributes {
  if (
    attributes.name !== '' ||
    !attributes.fieldSelector ||
    !['list', 'watch', 'deletecollection'].includes(attributes.verb)
  )
    return attributes;
  const term = attributes.fieldSelector.split(',').find(part => /^metadata\.name==?[^=]/.test(part));
  return term ? { ...attributes, name: term.slice(term.lastIndexOf('=') + 1) } : attributes;
}
