/**
 * Conversion of custom resources by the webhook of their definition. What was converted is remembered for as long as the
 * stored object lives. Invariant: a converted object is the same object, in another version: its name, uid and namespace stand.
 */

import type { CustomResourceDefinition } from '../../api/apiextensions/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { internalError, messageOf } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import { traced } from '../../base/tracing/active.ts';
import { deepFreeze } from '../entry.ts';
import type { WebhookClient } from '../webhooks/client.ts';

const TIMEOUT_MS = 30_000;
/** Objects in one review: a list is converted in a few calls, none of which is endless. */
const BATCH_MAX = 500;
const KEPT = ['name', 'namespace', 'uid', 'resourceVersion', 'creationTimestamp'] as const;

export class WebhookConverter {
  readonly #definition: CustomResourceDefinition;
  readonly #client: WebhookClient;
  readonly #random: Random;
  readonly #converted = new WeakMap<KubeObject, Map<string, KubeObject>>();

  constructor(definition: CustomResourceDefinition, { client, random }: { client: WebhookClient; random: Random }) {
    this.#definition = definition;
    this.#client = client;
    this.#random = random;
  }

  /** What is known of the object in a version; the object itself when it is in it. */
  known(object: KubeObject, apiVersion: string): KubeObject | undefined {
    return object.apiVersion === apiVersion ? object : this.#converted.get(object)?.get(apiVersion);
  }

  /** Makes everything known; undefined when it is. */
  learn(objects: readonly KubeObject[], apiVersion: string): Promise<void> | undefined {
    const missing = objects.filter(object => this.known(object, apiVersion) === undefined);
    return missing.length === 0 ? undefined : this.#learn(missing, apiVersion);
  }
  async #learn(missing: readonly KubeObject[], apiVersion: string): Promise<void> {
    for (let at = 0; at < missing.length; at += BATCH_MAX) {
      const batch = missing.slice(at, at + BATCH_MAX);
      const converted = await this.convert(batch, apiVersion);
      for (const [index, object] of batch.entries()) {
        let versions = this.#converted.get(object);
        if (!versions) this.#converted.set(object, (versions = new Map()));
        versions.set(apiVersion, deepFreeze(converted[index]!));
      }
    }
  }

  /** Throws InternalError with what the webhook did wrong. */
  async convert(objects: readonly KubeObject[], apiVersion: string): Promise<KubeObject[]> {
    const { group, names, conversion } = this.#definition.spec;
    const { webhook } = conversion!;
    const fail = (why: string) =>
      internalError(`conversion webhook for ${objects[0]?.apiVersion}, Kind=${names.kind} failed: ${why}`);
    const version = webhook!.conversionReviewVersions.find(one => one === 'v1' || one === 'v1beta1');
    if (!version) throw fail(`no supported conversion review version of ${group}`);
    const uid = this.#random.uuid();
    const review = {
      kind: 'ConversionReview',
      apiVersion: `apiextensions.k8s.io/${version}`,
      request: { uid, desiredAPIVersion: apiVersion, objects },
    };
    let reply: {
      response?: { uid?: string; result?: { status?: string; message?: string }; convertedObjects?: KubeObject[] };
    };
    try {
      reply = (await traced(
        'Call conversion webhook',
        () => ({
          'custom-resource-definition': this.#definition.metadata.name,
          'desired-api-version': apiVersion,
          'object-count': objects.length,
          UID: uid,
        }),
        () => this.#client.call(webhook!.clientConfig!, review, TIMEOUT_MS),
      )) as typeof reply;
    } catch (error) {
      throw fail(messageOf(error));
    }
    const { response } = reply ?? {};
    if (!response) throw fail('the reply has no response');
    if (version === 'v1' && response.uid !== uid)
      throw fail(`expected response.uid=${JSON.stringify(uid)}, got ${JSON.stringify(response.uid ?? '')}`);
    if (response.result?.status !== 'Success') throw fail(response.result?.message || 'the webhook gave no reason');
    const converted = response.convertedObjects ?? [];
    if (converted.length !== objects.length)
      throw fail(`webhook returned ${converted.length} objects, expected ${objects.length}`);
    return converted.map((object, index) => checked(object, objects[index]!, { apiVersion, fail }));
  }
}

/** The webhook may change labels and annotations; the rest of the metadata is the object's own. */
function checked(
  object: KubeObject,
  original: KubeObject,
  { apiVersion, fail }: { apiVersion: string; fail: (why: string) => Error },
): KubeObject {
  if (typeof object !== 'object' || object === null || object.apiVersion !== apiVersion)
    throw fail(
      `webhook returned an object of version ${JSON.stringify(object?.apiVersion ?? '')}, expected ${JSON.stringify(apiVersion)}`,
    );
  if (object.kind !== original.kind) throw fail(`webhook returned an object of kind ${JSON.stringify(object.kind)}`);
  for (const name of KEPT)
    if ((object.metadata?.[name] ?? '') !== (original.metadata[name] ?? ''))
      throw fail(`webhook changed metadata.${name}, which it must not`);
  const { labels, annotations } = object.metadata;
  const { labels: _, annotations: __, ...metadata } = original.metadata;
  return {
    ...object,
    metadata: { ...metadata, ...(labels ? { labels } : {}), ...(annotations ? { annotations } : {}) },
  };
}
