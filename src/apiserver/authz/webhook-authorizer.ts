/**
 * Asks a webhook by SubjectAccessReview. Match conditions decide what it is asked at all; failures are no opinion or a denial, as its
 * failure policy says. Answers are remembered, so that one client does not become a stream of reviews.
 */

import { compile } from '../../api/cel/environment.ts';
import { Budget, type Program } from '../../api/cel/evaluator.ts';
import { fromJson } from '../../api/cel/values.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { ServerAccess } from '../../client/kubeconfig.ts';
import { TimedMemory } from '../authn/token-authenticator.ts';
import { durationMs } from '../configuration/document.ts';
import type { RequestAttributes } from '../request.ts';
import { type Dial, Remote } from '../webhooks/remote.ts';
import { patiently } from '../webhooks/retries.ts';
import type { WebhookConfiguration } from './authorization-configuration.ts';

export interface Opinion {
  readonly opinion: 'allow' | 'deny' | 'none';
  readonly reason: string;
}

const ALLOWED_MS = 5 * 60_000;
const REFUSED_MS = 30_000;
/** Verdicts remembered; those of very long requests are not. */
const REMEMBERED_MAX = 8192;
const REMEMBERED_LENGTH_MAX = 10_000;
const CONDITION_COST_MAX = 1_000_000;

export interface WebhookAuthorizerOptions {
  readonly name: string;
  readonly webhook: WebhookConfiguration;
  readonly access: ServerAccess;
  readonly dial?: Dial | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

interface ReviewStatus {
  readonly allowed?: boolean;
  readonly denied?: boolean;
  readonly reason?: string;
  readonly evaluationError?: string;
}

export class WebhookAuthorizer {
  readonly #options: WebhookAuthorizerOptions;
  readonly #remote: Remote;
  readonly #conditions: readonly Program[];
  readonly #verdicts = new TimedMemory<Opinion>(REMEMBERED_MAX);

  constructor(options: WebhookAuthorizerOptions) {
    this.#options = options;
    this.#remote = new Remote(options.access, options.dial);
    this.#conditions = (options.webhook.matchConditions ?? []).map(({ expression }) => compile(expression));
  }

  async authorize(attributes: RequestAttributes): Promise<Opinion> {
    const { webhook, access, clock, log, name } = this.#options;
    const spec = reviewSpec(attributes);
    const matching = this.#matches(spec);
    if (matching !== true) return matching === false ? { opinion: 'none', reason: '' } : this.#failed(matching);
    const id = JSON.stringify(spec);
    const known = this.#verdicts.get(id, clock.monotonic());
    if (known) return known;
    const version = webhook.subjectAccessReviewVersion;
    const body = {
      apiVersion: `authorization.k8s.io/${version}`,
      kind: 'SubjectAccessReview',
      metadata: {},
      spec: version === 'v1' ? spec : asBeta(spec),
      status: { allowed: false },
    };
    const timeoutMs = durationMs(webhook.timeout)!;
    let status: ReviewStatus;
    try {
      const { value } = await patiently(clock, () => this.#remote.json(access.server, { body, timeoutMs }));
      status = (value as { status?: ReviewStatus }).status ?? {};
    } catch (error) {
      log.warn('authorization webhook failed', { name, error: messageOf(error) });
      return this.#failed(messageOf(error));
    }
    const verdict = opinionOf(status);
    if ('error' in verdict) return this.#failed(verdict.error);
    const isAllowed = verdict.opinion === 'allow';
    const remembers = isAllowed
      ? webhook.cacheAuthorizedRequests !== false
      : webhook.cacheUnauthorizedRequests !== false;
    const forMs = isAllowed
      ? (durationMs(webhook.authorizedTTL ?? '') ?? ALLOWED_MS)
      : (durationMs(webhook.unauthorizedTTL ?? '') ?? REFUSED_MS);
    if (remembers && id.length <= REMEMBERED_LENGTH_MAX) this.#verdicts.set(id, verdict, clock.monotonic() + forMs);
    return verdict;
  }

  close(): void {
    this.#remote.close();
  }

  /** True when all conditions hold, false when one does not; otherwise what one of them said. */
  #matches(spec: object): boolean | string {
    let failure: string | undefined;
    const request = this.#conditions.length > 0 ? fromJson(spec) : undefined;
    for (const condition of this.#conditions)
      try {
        if (condition(name => (name === 'request' ? request : undefined), new Budget(CONDITION_COST_MAX)) !== true)
          return false;
      } catch (error) {
        failure ??= messageOf(error);
      }
    return failure ?? true;
  }

  #failed(reason: string): Opinion {
    return { opinion: this.#options.webhook.failurePolicy === 'Deny' ? 'deny' : 'none', reason };
  }
}

function opinionOf({ allowed, denied, reason = '' }: ReviewStatus): Opinion | { readonly error: string } {
  if (allowed && denied) return { error: 'webhook subject access review returned both allow and deny response' };
  return { opinion: allowed ? 'allow' : denied ? 'deny' : 'none', reason };
}

/** The request as a SubjectAccessReview asks about it. */
export function reviewSpec(attributes: RequestAttributes): Record<string, unknown> {
  const { user, verb, isResource, namespace, group, version, resource, subresource, name, path, fieldSelector } =
    attributes;
  const given = (fields: Readonly<Record<string, string>>) =>
    Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== ''));
  return {
    ...(isResource
      ? {
          resourceAttributes: {
            ...given({ namespace, verb, group, version, resource, subresource, name }),
            ...(fieldSelector ? { fieldSelector: selectorOf(fieldSelector) } : {}),
          },
        }
      : { nonResourceAttributes: given({ path, verb }) }),
    user: user.name,
    groups: [...user.groups],
    ...(user.uid ? { uid: user.uid } : {}),
    ...(user.extra ? { extra: user.extra } : {}),
  };
}

function selectorOf(text: string): object {
  const terms = text.split(',').map(term => /^([^=!]+)(!=|==?)(.*)$/.exec(term));
  if (terms.some(term => term === null)) return { rawSelector: text };
  return {
    requirements: terms.map(term => ({
      key: term![1],
      operator: term![2] === '!=' ? 'NotIn' : 'In',
      values: [term![3]],
    })),
  };
}

// v1beta1 spelled `groups` as `group`.
function asBeta({ groups, ...spec }: Record<string, unknown>): object {
  return { ...spec, group: groups };
}
