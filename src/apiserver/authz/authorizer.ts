/**
 * The chain: `system:masters` may do everything, then the configured authorizers in their order, by default Node and RBAC. The first
 * that allows or denies decides. Answers at once where no webhook has to be asked.
 */

import type { PolicyRule } from '../../api/rbac/v1.gen.ts';
import type { Authorizer, Decision, Reader, RequestAttributes, UserInfo } from '../request.ts';
import { onlyName } from '../request-path.ts';
import { nodeRules } from './bootstrap-policy.ts';
import { NodeAuthorizer, nodeNameOf } from './node-authorizer.ts';
import { RbacAuthorizer } from './rbac.ts';
import type { Opinion, WebhookAuthorizer } from './webhook-authorizer.ts';

export const PRIVILEGED_GROUP = 'system:masters';
const PRIVILEGED: Decision = { allowed: true, reason: '' };
const EVERYTHING: readonly PolicyRule[] = [
  { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
  { verbs: ['*'], nonResourceURLs: ['*'] },
];

/** One place in the chain. */
export type Link = 'Node' | 'RBAC' | 'AlwaysAllow' | 'AlwaysDeny' | WebhookAuthorizer;

const DEFAULT_LINKS: readonly Link[] = ['Node', 'RBAC'];

export class AuthorizerChain implements Authorizer {
  readonly rbac: RbacAuthorizer;
  readonly #node: NodeAuthorizer;
  #links: readonly Link[] = DEFAULT_LINKS;

  constructor(reader: () => Reader) {
    this.rbac = new RbacAuthorizer(reader);
    this.#node = new NodeAuthorizer(reader, nodeRules);
  }

  /** The links of a configuration in the place of those before. */
  use(links: readonly Link[]): void {
    for (const link of this.#links) if (typeof link !== 'string' && !links.includes(link)) link.close();
    this.#links = links;
  }

  close(): void {
    for (const link of this.#links) if (typeof link !== 'string') link.close();
  }

  authorize(given: RequestAttributes): Decision | Promise<Decision> {
    if (given.user.groups.includes(PRIVILEGED_GROUP)) return PRIVILEGED;
    return this.#ask(named(given), 0, '');
  }

  #ask(attributes: RequestAttributes, from: number, before: string): Decision | Promise<Decision> {
    let reason = before;
    for (let at = from; at < this.#links.length; at++) {
      const link = this.#links[at]!;
      if (typeof link !== 'string') {
        const links = this.#links;
        return link.authorize(attributes).then(({ opinion, reason: why }) => {
          if (opinion !== 'none') return { allowed: opinion === 'allow', reason: why };
          // A chain that was replaced meanwhile starts over.
          return this.#links === links
            ? this.#ask(attributes, at + 1, joined(reason, why))
            : this.#ask(attributes, 0, '');
        });
      }
      if (link === 'RBAC') {
        const decision = this.rbac.authorize(attributes);
        if (decision.allowed) return decision;
        reason = joined(reason, decision.reason);
        continue;
      }
      const { opinion, reason: why } = this.#opinionOf(link, attributes);
      if (opinion !== 'none') return { allowed: opinion === 'allow', reason: why };
      reason = joined(reason, why);
    }
    return { allowed: false, reason };
  }

  #opinionOf(link: Link & string, attributes: RequestAttributes): Opinion {
    switch (link) {
      case 'AlwaysAllow':
        return { opinion: 'allow', reason: '' };
      case 'AlwaysDeny':
        return { opinion: 'none', reason: 'Everything is forbidden.' };
      case 'Node': {
        if (nodeNameOf(attributes.user) === undefined) return NONE;
        const { allowed, reason } = this.#node.authorize(attributes);
        return { opinion: allowed ? 'allow' : 'none', reason };
      }
      default: {
        const { allowed, reason } = this.rbac.authorize(attributes);
        return { opinion: allowed ? 'allow' : 'none', reason };
      }
    }
  }

  rulesFor(
    user: UserInfo,
    namespace: string,
  ): { resourceRules: unknown[]; nonResourceRules: unknown[]; incomplete: boolean; evaluationError?: string } {
    const webhook = this.#links.some(link => typeof link !== 'string');
    const result = {
      ...(this.#links.includes('RBAC')
        ? this.rbac.rulesFor(user, namespace)
        : { resourceRules: [], nonResourceRules: [], incomplete: false }),
      ...(webhook
        ? { incomplete: true, evaluationError: 'webhook authorizer does not support user rule resolution' }
        : {}),
    };
    if (!this.#links.includes('AlwaysAllow'))
      return nodeNameOf(user) === undefined ? result : { ...result, incomplete: true };
    const [resources, urls] = EVERYTHING;
    return {
      resourceRules: [resources, ...result.resourceRules],
      nonResourceRules: [urls, ...result.nonResourceRules],
      incomplete: false,
    };
  }
}

const NONE: Opinion = { opinion: 'none', reason: '' };

function joined(before: string, reason: string): string {
  if (before === '' || reason === '') return before || reason;
  return `${before}; ${reason}`;
}

/** A list of exactly one object is decided on by its name, as upstream's request info does. */
function named(attributes: RequestAttributes): RequestAttributes {
  const name = attributes.name === '' && onlyName(attributes);
  return name ? { ...attributes, name } : attributes;
}
