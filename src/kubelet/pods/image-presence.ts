/**
 * Whether the images of one pod's containers are there. Invariant: asking never waits for a pull; a pull that is needed begins, and the
 * pod is called again when it has ended. Of each container at most one pull is under way. What an image needs to be usable, and how
 * all that is told, `images/node-images` knows.
 */

import type { Container, Secret } from '../../api/core/v1.gen.ts';
import { messageOf } from '../../base/errors.ts';
import { SECRETS } from '../../client/resources.ts';
import type { Image } from '../images/image-store.ts';
import { ImageUnavailable, type PullPolicy } from '../images/node-images.ts';
import type { PodSubject } from './pod-subject.ts';
import type { Waiting } from './status.ts';

export type Presence =
  | { readonly image: Image }
  | { readonly waiting: Waiting; readonly retryMs: number }
  | { readonly isPulling: true };

const RETRY_MS = 10_000;

export class ImagePresence {
  readonly #subject: PodSubject;
  /** By container; undefined while the pull is under way. */
  readonly #outcomes = new Map<string, Presence | undefined>();
  readonly #end = new AbortController();

  constructor(subject: PodSubject) {
    this.#subject = subject;
  }

  /** The image when it can be used at once, without a pull or a secret. */
  known(container: Container): Image | undefined {
    return this.#subject.context.nodeImages.known(container.image ?? '', policyOf(container));
  }
  /** The pod ends: pulls under way are given up. */
  abort(): void {
    this.#end.abort();
  }

  ensure(container: Container): Presence {
    const { nodeImages, references } = this.#subject.context;
    const name = container.image ?? '';
    const pod = this.#subject.pod;
    const tell = (type: 'Normal' | 'Warning', reason: string, message: string) =>
      this.#subject.event(type, reason, message, container);
    const key = `${container.name} ${name}`;
    const outcome = this.#outcomes.get(key);
    if (outcome) {
      // Told once: the next start asks anew.
      this.#outcomes.delete(key);
      return outcome;
    }
    if (this.#outcomes.has(key)) return { isPulling: true };
    const image = this.known(container);
    if (image) {
      nodeImages.tellPresent({ name, policy: policyOf(container), tell });
      return { image };
    }
    this.#outcomes.set(key, undefined);
    void nodeImages
      .bring({
        pod,
        name,
        policy: policyOf(container),
        readSecret: secret => {
          const { namespace = '' } = pod.metadata;
          references.hold(this.#subject.uid, SECRETS, namespace, secret, () => this.#subject.wake());
          return references.get<Secret>(SECRETS, namespace, secret);
        },
        tell,
        signal: this.#end.signal,
      })
      .then(
        (brought): Presence => ({ image: brought }),
        (error: unknown): Presence =>
          error instanceof ImageUnavailable
            ? { waiting: { reason: error.reason, message: error.message }, retryMs: error.retryMs }
            : { waiting: { reason: 'ErrImagePull', message: messageOf(error) }, retryMs: RETRY_MS },
      )
      .then(found => {
        this.#outcomes.set(key, found);
        if (!this.#end.signal.aborted) this.#subject.wake();
      });
    return { isPulling: true };
  }
}

function policyOf({ imagePullPolicy }: Container): PullPolicy {
  return (imagePullPolicy as PullPolicy | undefined) ?? 'IfNotPresent';
}
