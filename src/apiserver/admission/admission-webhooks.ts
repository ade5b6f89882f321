/**
 * MutatingAdmissionWebhook and ValidatingAdmissionWebhook. Mutating ones are called one after another and see what came
 * before; validating ones all at once. Whoever asked to be called again, is, when a later one changed the object. A webhook that
 * fails decides nothing: its failure policy does.
 */

import type { AdmissionResponse } from '../../api/admission/v1.gen.ts';
import type {
  MutatingWebhook,
  MutatingWebhookConfiguration,
  ValidatingWebhook,
  ValidatingWebhookConfiguration,
} from '../../api/admissionregistration/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { ApiError, badRequest, failure, internalError, messageOf, type StatusReason } from '../../base/errors.ts';
import { activeSpan, traced } from '../../base/tracing/active.ts';
import { jsonPatch } from '../json-patch.ts';
import { countFailOpen, countWebhook, type WebhookOutcome } from '../metrics/admission-metrics.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { type WebhookClient, WebhookStatusError } from '../webhooks/client.ts';
import type { AdmissionContext } from './context.ts';
import { Decisions } from './decisions.ts';
import { Expressions, scopeOf } from './expressions.ts';
import { matchConditions } from './match-conditions.ts';
import { isExempt, matchedResource } from './request-rules.ts';
import { inVersion, reviewOf } from './review.ts';
import { StoredList } from './stored-list.ts';

type Webhook = MutatingWebhook | ValidatingWebhook;
type Configuration = MutatingWebhookConfiguration | ValidatingWebhookConfiguration;

const resource = (name: string) => ({ group: 'admissionregistration.k8s.io', version: 'v1', resource: name });
const TIMEOUT_SECONDS = 10;
const EFFECTLESS = ['None', 'NoneOnDryRun'];

interface Chosen {
  readonly webhook: Webhook;
  readonly info: ResourceInfo;
  /** Name of the configuration, and the webhook's place among those of all. */
  readonly configuration: string;
  readonly index: number;
}
type Choice = readonly Chosen[] | undefined;

/** Plugins that answer at once must not cost a turn. */
function then(
  choice: Choice | Promise<Choice>,
  run: (chosen: readonly Chosen[]) => Promise<void>,
): void | Promise<void> {
  if (choice instanceof Promise) return choice.then(chosen => chosen && run(chosen));
  return choice && run(choice);
}

class Webhooks {
  readonly #context: AdmissionContext;
  readonly #client: WebhookClient;
  readonly #configurations: StoredList<Configuration>;
  readonly #expressions = new WeakMap<Webhook, Expressions>();
  readonly #type: WebhookOutcome['type'];

  constructor(context: AdmissionContext, client: WebhookClient, kind: string) {
    this.#type = kind.startsWith('mutating') ? 'admit' : 'validating';
    this.#context = context;
    this.#client = client;
    this.#configurations = new StoredList(context.reader, resource(kind));
  }

  /** Those that are to be called, in order; undefined when there are none at all. */
  choose(request: AdmissionRequest): Choice | Promise<Choice> {
    if (this.#configurations.items.length === 0 || isExempt(request)) return undefined;
    const decisions = new Decisions(this.#context.authorizer);
    return decisions.settle(() => this.#choose(request, decisions));
  }

  #choose(request: AdmissionRequest, decisions: Decisions): Choice {
    const chosen: Chosen[] = [];
    let index = -1;
    for (const { metadata, webhooks = [] } of this.#configurations.items)
      for (const webhook of webhooks as readonly Webhook[]) {
        index++;
        const info = this.#match(webhook, request, decisions);
        if (info) chosen.push({ webhook, info, configuration: metadata.name, index });
      }
    return chosen.length > 0 ? chosen : undefined;
  }

  #match(webhook: Webhook, request: AdmissionRequest, decisions: Decisions): ResourceInfo | undefined {
    const reader = this.#context.reader();
    const info = matchedResource({ ...webhook, rules: webhook.rules ?? [] }, request, reader);
    if (!info || !webhook.matchConditions?.length) return info;
    let expressions = this.#expressions.get(webhook);
    if (!expressions) this.#expressions.set(webhook, (expressions = new Expressions()));
    const { object, oldObject, ...rest } = reviewOf(request, info, '', reader);
    const scope = scopeOf(
      { object: object ?? null, oldObject: oldObject ?? null, request: rest },
      decisions.variable(request),
    );
    const matching = matchConditions(webhook.matchConditions, expressions, scope);
    if ('matches' in matching) return matching.matches ? info : undefined;
    if (webhook.failurePolicy === 'Ignore') return undefined;
    throw failure(403, 'Forbidden', matching.error);
  }

  /** The verdict; undefined when the webhook failed and may be ignored, which is noted under `failedOpen`. Throws its refusal. */
  async call(
    { webhook, info, configuration }: Chosen,
    request: AdmissionRequest,
    failedOpen: string,
  ): Promise<AdmissionResponse | undefined> {
    if (request.dryRun && !EFFECTLESS.includes(webhook.sideEffects))
      throw badRequest(`admission webhook ${JSON.stringify(webhook.name)} does not support dry run`);
    const { clock } = this.#context;
    const sinceMs = clock.monotonic();
    const count = (code: number, rejection?: WebhookOutcome['rejection']) => {
      const ms = clock.monotonic() - sinceMs;
      if (this.#type === 'admit') request.spent?.('mutating-webhook', ms);
      countWebhook({
        name: webhook.name,
        type: this.#type,
        operation: request.operation,
        seconds: ms / 1000,
        code,
        ...(rejection ? { rejection } : {}),
      });
    };
    let response: AdmissionResponse;
    try {
      response = await this.#review({ webhook, info, configuration }, request);
    } catch (error) {
      count(codeOf(error), webhook.failurePolicy === 'Ignore' ? undefined : 'calling_webhook_error');
      this.failed(webhook, request, failedOpen, error);
      return undefined;
    }
    for (const warning of response.warnings ?? []) request.warn(warning);
    for (const [key, value] of Object.entries(response.auditAnnotations ?? {}))
      request.annotate?.(`${webhook.name}/${key}`, value);
    if (!response.allowed) {
      const refusal = refusalOf(webhook.name, response);
      count(refusal.code, 'no_error');
      throw refusal;
    }
    count(200);
    return response;
  }

  /** Throws, or notes that the webhook may fail. */
  failed(webhook: Webhook, request: AdmissionRequest, failedOpen: string, error: unknown): void {
    const { log } = this.#context;
    if (webhook.failurePolicy !== 'Ignore')
      throw internalError(`failed calling webhook ${JSON.stringify(webhook.name)}: ${messageOf(error)}`);
    log.warn('admission webhook failed and is ignored', { webhook: webhook.name, error: messageOf(error) });
    request.annotate?.(failedOpen, webhook.name);
    countFailOpen(webhook.name, this.#type);
  }

  async #review(
    { webhook, info, configuration }: Omit<Chosen, 'index'>,
    request: AdmissionRequest,
  ): Promise<AdmissionResponse> {
    const version = webhook.admissionReviewVersions.find(one => one === 'v1' || one === 'v1beta1');
    if (!version) throw new Error('webhook does not accept known AdmissionReview versions (v1, v1beta1)');
    const uid = this.#context.random.uuid();
    const apiVersion = `admission.k8s.io/${version}`;
    const review = {
      kind: 'AdmissionReview',
      apiVersion,
      request: reviewOf(request, info, uid, this.#context.reader()),
    };
    const timeoutMs = (webhook.timeoutSeconds ?? TIMEOUT_SECONDS) * 1000;
    let reply: { kind?: string; apiVersion?: string; response?: AdmissionResponse };
    try {
      const asking = () => this.#client.call(webhook.clientConfig, review, timeoutMs);
      reply = (await traced(
        this.#type === 'admit' ? 'Call mutating webhook' : 'Call validating webhook',
        () => ({
          configuration,
          webhook: webhook.name,
          resource: `${info.group}/${info.version}, Resource=${info.resource}`,
          subresource: request.attributes.subresource,
          operation: request.operation,
          UID: uid,
        }),
        async () => {
          const answer = await asking();
          activeSpan()?.event('Request completed');
          return answer;
        },
      )) as typeof reply;
    } catch (error) {
      throw new Error(`failed to call webhook: ${messageOf(error)}`, { cause: error });
    }
    const response = reply?.response;
    const refuse = (why: string) => new Error(`received invalid webhook response: ${why}`);
    if (!response) throw refuse('expected response.uid');
    if (version === 'v1') {
      if (reply.apiVersion !== apiVersion || reply.kind !== 'AdmissionReview')
        throw refuse(
          `expected webhook response of ${apiVersion}, Kind=AdmissionReview, got ${reply.apiVersion ?? ''}, Kind=${reply.kind ?? ''}`,
        );
      if (response.uid !== uid)
        throw refuse(`expected response.uid=${JSON.stringify(uid)}, got ${JSON.stringify(response.uid ?? '')}`);
      if (response.patch && response.patchType !== 'JSONPatch')
        throw refuse(
          response.patchType
            ? `invalid response.patchType ${response.patchType}`
            : 'webhook returned response.patch but not response.patchType',
        );
    }
    return response;
  }
}

/** Of a call that failed: what the webhook's server answered, or 503 where it did not. */
function codeOf(error: unknown): number {
  const { cause } = error as Error;
  return cause instanceof WebhookStatusError ? cause.status : 503;
}

function refusalOf(name: string, { status }: AdmissionResponse): ApiError {
  const {
    code = 0,
    reason = '',
    message = '',
    details,
  } = (status ?? {}) as {
    code?: number;
    reason?: string;
    message?: string;
    details?: object;
  };
  const denied = `admission webhook ${JSON.stringify(name)} denied the request`;
  const says = message ? `${denied}: ${message}` : reason ? `${denied}: ${reason}` : `${denied} without explanation`;
  const { status: made } = failure(Math.max(400, code), reason as StatusReason, says);
  return new ApiError({ ...made, ...(details ? { details } : {}) });
}

export function validatingWebhooks(context: AdmissionContext, client: WebhookClient): AdmissionPlugin {
  const webhooks = new Webhooks(context, client, 'validatingwebhookconfigurations');
  return {
    name: 'ValidatingAdmissionWebhook',
    validate(request) {
      return then(webhooks.choose(request), async chosen => {
        // They are asked at once: what counts is the slowest.
        const sinceMs = context.clock.monotonic();
        try {
          await validateAll(webhooks, chosen, request);
        } finally {
          request.spent?.('validating-webhook', context.clock.monotonic() - sinceMs);
        }
      });
    },
  };
}

async function validateAll(webhooks: Webhooks, chosen: readonly Chosen[], request: AdmissionRequest): Promise<void> {
  const outcomes = await Promise.allSettled(
    chosen.map((one, at) =>
      webhooks.call(one, request, `failed-open.validating.webhook.admission.k8s.io/round_0_index_${at}`),
    ),
  );
  const refused = outcomes.find(outcome => outcome.status === 'rejected');
  if (refused) throw refused.reason;
}

/** `earlier` are the plugins before it, which run again over what a webhook added: a sidecar gets its token too. */
export function mutatingWebhooks(
  context: AdmissionContext,
  client: WebhookClient,
  earlier: readonly AdmissionPlugin[],
): AdmissionPlugin {
  const webhooks = new Webhooks(context, client, 'mutatingwebhookconfigurations');
  return {
    name: 'MutatingAdmissionWebhook',
    mutate(request) {
      return then(webhooks.choose(request), chosen => mutateInTurn(webhooks, chosen, request, earlier));
    },
  };
}

async function mutateInTurn(
  webhooks: Webhooks,
  chosen: readonly Chosen[],
  request: AdmissionRequest,
  earlier: readonly AdmissionPlugin[],
): Promise<void> {
  /** Called so far and willing to be called again. */
  const willing: Chosen[] = [];
  let again = new Set<Chosen>();
  let changedAtAll = false;
  for (const one of chosen) {
    const changed = await mutateOnce(webhooks, one, { request, round: 0 });
    if (changed) for (const before of willing) again.add(before);
    changedAtAll ||= changed;
    if ((one.webhook as MutatingWebhook).reinvocationPolicy === 'IfNeeded') willing.push(one);
  }
  if (!changedAtAll) return;
  const before = JSON.stringify(request.object);
  for (const plugin of earlier) await plugin.mutate?.(request);
  if (JSON.stringify(request.object) !== before) again = new Set(willing);
  for (const one of again) await mutateOnce(webhooks, one, { request, round: 1 });
}

/** True when the webhook changed the object. */
async function mutateOnce(
  webhooks: Webhooks,
  one: Chosen,
  { request, round }: { readonly request: AdmissionRequest; readonly round: number },
): Promise<boolean> {
  const { webhook, info, configuration } = one;
  const place = `webhook.admission.k8s.io/round_${round}_index_${one.index}`;
  const note = (kind: string, more: object, least?: 'Request') =>
    request.annotate?.(`${kind}.${place}`, JSON.stringify({ configuration, webhook: webhook.name, ...more }), least);
  const failedOpen = `failed-open.mutating.${place}`;
  const response = await webhooks.call(one, request, failedOpen);
  if (!response) return false;
  if (!response.patch || !request.object || !request.replace) {
    note('mutation', { mutated: false });
    return false;
  }
  const seen = inVersion(request.object, request.info, info)!;
  let patched: KubeObject;
  let patch: unknown;
  try {
    patch = decodePatch(response.patch);
  } catch (error) {
    webhooks.failed(webhook, request, failedOpen, error);
    return false;
  }
  try {
    patched = jsonPatch(seen, patch);
  } catch (error) {
    throw internalError(`webhook ${JSON.stringify(webhook.name)} returned a bad patch: ${messageOf(error)}`);
  }
  const before = JSON.stringify(request.object);
  request.replace(inVersion(patched, info, request.info)!);
  const mutated = JSON.stringify(request.object) !== before;
  note('mutation', { mutated });
  note('patch', { patch, patchType: 'JSONPatch' }, 'Request');
  return mutated;
}

/** A patch that cannot be read is a webhook that failed (since 1.34); one that does not fit is an error, whatever the policy. */
function decodePatch(text: string): unknown {
  let patch: unknown;
  try {
    patch = JSON.parse(Buffer.from(text, 'base64').toString());
  } catch (error) {
    throw new Error(`received undecodable patch in webhook response: ${messageOf(error)}`);
  }
  if (!Array.isArray(patch) || patch.some(operation => typeof operation !== 'object' || !operation))
    throw new Error('received undecodable patch in webhook response: expected a list of operations');
  return patch;
}
