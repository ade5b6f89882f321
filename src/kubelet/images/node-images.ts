/**
 * Images for the pods of one node: decides by pull policy and by who may use what was pulled with a secret whether the registry is to
 * be asked, queues pulls, remembers back-off, and tells it all in upstream's events, reasons and messages. Invariant: whoever gets an
 * image here may use it. It fetches nothing itself: an ImagePuller does, mostly in a process of its own.
 */

import type { Pod, Secret } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { type CredentialProviderPaths, readCredentialProviders } from './credential-provider-config.ts';
import { CredentialProviders, type ServiceAccountSource } from './credential-providers.ts';
import { countPull, countRequest } from './image-metrics.ts';
import type { PulledImage, PullProgress, PullRequest } from './image-pull.ts';
import { type ImageSettings, readImageSettings } from './image-settings.ts';
import type { Image, ImageStore } from './image-store.ts';
import { isNodeTools, nodeTools } from './node-tools.ts';
import { PullQueue } from './pull-queue.ts';
import { PullRecords } from './pull-records.ts';
import { podCredentials } from './pull-secrets.ts';
import { type ImageReference, parseReference } from './reference.ts';

export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never';

export interface ImagePuller {
  /** Rejects with PullError, or with the signal's reason. */
  pull(
    request: PullRequest,
    options: { readonly signal: AbortSignal; readonly onProgress?: (progress: PullProgress) => void },
  ): Promise<PulledImage>;
}

export interface ImageWish {
  readonly pod: Pod;
  /** As the pod writes it. */
  readonly name: string;
  readonly policy: PullPolicy;
  /** A Secret of the pod's namespace. */
  readSecret(name: string): Promise<Secret | undefined>;
  /** Tells an event of the pod. */
  tell(type: 'Normal' | 'Warning', reason: string, message: string): void;
  /** The pod ends. */
  readonly signal: AbortSignal;
}

export type WaitingReason =
  | 'InvalidImageName'
  | 'ErrImageNeverPull'
  | 'ErrImagePull'
  | 'ImagePullBackOff'
  | 'ImageInspectError';

/** Why a pod does not get its image, for a container's waiting state. */
export class ImageUnavailable extends Error {
  override name = 'ImageUnavailable';
  readonly reason: WaitingReason;
  readonly retryMs: number;
  constructor(reason: WaitingReason, message: string, retryMs: number) {
    super(message);
    this.reason = reason;
    this.retryMs = retryMs;
  }
}

/** What programs of the node that know passwords need. */
export interface CredentialPlugins {
  /** Instead of those that `images.yaml` names. */
  readonly paths?: CredentialProviderPaths | undefined;
  readonly accounts: ServiceAccountSource;
  readonly log: Logger;
}

const BACKOFF_MS_MIN = 10_000;
const BACKOFF_MS_MAX = 300_000;
const SOON_MS = 1000;

interface Failure {
  untilMs: number;
  delayMs: number;
  isTold: boolean;
  message: string;
}

export class NodeImages {
  readonly #store: ImageStore;
  readonly #folder: string;
  readonly #puller: ImagePuller;
  readonly #clock: Clock;
  readonly #records: PullRecords;
  readonly #plugins: CredentialPlugins | undefined;
  #providers: { readonly of: string; readonly are: CredentialProviders } | undefined;
  #verification: ImageSettings['verification'] = 'NeverVerifyPreloadedImages';
  readonly #queue = new PullQueue();
  /** By pod and image. */
  readonly #failures = new Map<string, Failure>();

  constructor(options: {
    readonly store: ImageStore;
    readonly folder: string;
    readonly puller: ImagePuller;
    readonly clock: Clock;
    readonly plugins?: CredentialPlugins;
  }) {
    this.#plugins = options.plugins;
    this.#store = options.store;
    this.#folder = options.folder;
    this.#puller = options.puller;
    this.#clock = options.clock;
    this.#records = new PullRecords(options.folder);
  }
  get store(): ImageStore {
    return this.#store;
  }
  get records(): PullRecords {
    return this.#records;
  }

  /** Read once before `known` is asked. Throws Invalid when `images.yaml` says something that is not known. */
  async readSettings(): Promise<ImageSettings> {
    const settings = await readImageSettings(this.#folder);
    this.#verification = settings.verification;
    return settings;
  }

  /** Reads which credential providers there are, unless they are known. Throws Invalid when that says something that is not known. */
  async openProviders(settings: Pick<ImageSettings, 'credentialProviders'>): Promise<void> {
    const paths = this.#plugins?.paths ?? settings.credentialProviders;
    const of = JSON.stringify(paths);
    if (this.#providers?.of === of) return;
    this.#providers = undefined;
    if (!paths || !this.#plugins) return;
    const providers = await readCredentialProviders(paths);
    const { accounts, log } = this.#plugins;
    const are = new CredentialProviders({ providers, binDir: paths.binDir, accounts, clock: this.#clock, log });
    this.#providers = { of, are };
  }

  /** The image when it is there and anybody may use it without the registry being asked. Quick, and tells nothing. */
  known(name: string, policy: PullPolicy): Image | undefined {
    if (policy === 'Always') return undefined;
    const reference = parseReference(name);
    const image = reference && this.#store.find(name);
    if (!image) return undefined;
    const open = { credentials: [], policy: this.#verification };
    return this.#records.isAccessible(image.id, reference.repository, open) ? image : undefined;
  }
  /** The event of an image that need not be pulled. */
  tellPresent({ name, policy, tell }: Pick<ImageWish, 'name' | 'policy' | 'tell'>): void {
    countRequest({ policy, isPresent: true, isPullRequired: false });
    tell('Normal', 'Pulled', presentMessage(name));
  }

  /** Resolves with the image once the pod may use it; rejects with ImageUnavailable, or with the signal's reason. */
  async bring(wish: ImageWish): Promise<Image> {
    const { pod, name, policy, tell, signal } = wish;
    const reference = parseReference(name);
    if (!reference) {
      const message = `Failed to apply default image tag "${name}": couldn't parse image name "${name}": invalid reference format`;
      tell('Warning', 'InspectFailed', message);
      return refuse(tell, 'InvalidImageName', message, BACKOFF_MS_MIN);
    }
    if (isNodeTools(name)) {
      const image = await nodeTools(this.#store).catch(error =>
        refuse(tell, 'ErrImagePull', `Failed to make image "${name}": ${messageOf(error)}`, BACKOFF_MS_MIN),
      );
      this.tellPresent(wish);
      return image;
    }
    let settings: ImageSettings;
    try {
      settings = await this.readSettings();
      await this.openProviders(settings);
    } catch (error) {
      const message = `Failed to inspect image "${name}": ${messageOf(error)}`;
      tell('Warning', 'InspectFailed', message);
      return refuse(tell, 'ImageInspectError', message, BACKOFF_MS_MIN);
    }
    const { credentials: own, problems } = await podCredentials(pod, reference.repository, wish.readSecret);
    let credentials = own;
    const usable = (): Image | undefined => {
      const image = this.#store.find(name);
      const may = { credentials, policy: settings.verification };
      return image && this.#records.isAccessible(image.id, reference.repository, may) ? image : undefined;
    };
    const present = policy === 'Always' ? undefined : usable();
    if (present) {
      this.tellPresent(wish);
      return present;
    }
    // A registry that refused is left alone for a while, and so are those who know its passwords.
    if (policy !== 'Never') this.#refuseBackingOff(wish);
    const provided =
      policy !== 'Never' || this.#store.find(name) ? await this.#provided(pod, reference.repository) : [];
    if (provided.length > 0) {
      credentials = [...own, ...provided];
      const opened = policy === 'Always' ? undefined : usable();
      if (opened) {
        this.tellPresent(wish);
        return opened;
      }
    }
    countRequest({ policy, isPresent: this.#store.find(name) !== undefined, isPullRequired: policy !== 'Never' });
    if (policy === 'Never') {
      const message = this.#store.find(name)
        ? `Container image "${name}" is present with pull policy of Never but the pod has no credentials that give access to it`
        : `Container image "${name}" is not present with pull policy of Never`;
      tell('Warning', 'ErrImageNeverPull', message);
      return refuse(tell, 'ErrImageNeverPull', message, BACKOFF_MS_MIN);
    }
    const key = keyOf(wish);
    const failure = this.#failures.get(key);
    for (const { secret, why } of problems)
      tell(
        'Warning',
        'FailedToRetrieveImagePullSecret',
        `Unable to retrieve some image pull secrets (${secret}); attempting to pull the image may not succeed.${why ? ` ${secret}: ${why}` : ''}`,
      );
    tell('Normal', 'Pulling', `Pulling image "${name}"`);
    const askedMs = this.#clock.monotonic();
    try {
      return await this.#queue.run(
        async () => {
          // Another pod's pull may have brought it meanwhile.
          const brought = policy === 'Always' ? undefined : usable();
          if (brought) {
            tell('Normal', 'Pulled', presentMessage(name));
            return brought;
          }
          const beganMs = this.#clock.monotonic();
          const image = await this.#pull(reference, wish, credentials);
          const endedMs = this.#clock.monotonic();
          countPull(image, endedMs - beganMs);
          tell(
            'Normal',
            'Pulled',
            `Successfully pulled image "${name}" in ${goMilliseconds(endedMs - beganMs)} (${goMilliseconds(endedMs - askedMs)} including waiting). Image size: ${image.sizeBytes} bytes.`,
          );
          this.#failures.delete(key);
          return image;
        },
        { pullsMax: settings.pullsMax, signal },
      );
    } catch (error) {
      signal.throwIfAborted();
      const loaded = (error as { isUnreachable?: boolean }).isUnreachable ? this.#loaded(name) : undefined;
      if (loaded) {
        tell('Normal', 'Pulled', presentMessage(name));
        return loaded;
      }
      const message = messageOf(error);
      tell('Warning', 'Failed', `Failed to pull image "${name}": ${message}`);
      this.#sweep();
      const delayMs = failure ? Math.min(failure.delayMs * 2, BACKOFF_MS_MAX) : BACKOFF_MS_MIN;
      this.#failures.set(key, { untilMs: this.#clock.monotonic() + delayMs, delayMs, isTold: false, message });
      return refuse(tell, 'ErrImagePull', message, SOON_MS);
    }
  }

  #refuseBackingOff(wish: ImageWish): void {
    const { name, tell } = wish;
    const failure = this.#failures.get(keyOf(wish));
    const leftMs = failure ? failure.untilMs - this.#clock.monotonic() : 0;
    if (!failure || leftMs <= 0) return;
    const message = `Back-off pulling image "${name}": ErrImagePull: ${failure.message}`;
    if (failure.isTold) throw new ImageUnavailable('ImagePullBackOff', message, leftMs);
    failure.isTold = true;
    tell('Normal', 'BackOff', `Back-off pulling image "${name}"`);
    refuse(tell, 'ImagePullBackOff', message, leftMs);
  }

  async #provided(pod: Pod, repository: string): Promise<PullRequest['credentials']> {
    return (await this.#providers?.are.credentials(pod, repository)) ?? [];
  }

  async #pull(
    reference: ImageReference,
    { name, signal }: ImageWish,
    credentials: PullRequest['credentials'],
  ): Promise<Image> {
    const pulled = await this.#puller.pull({ reference: name, credentials }, { signal });
    const credential = pulled.credential === undefined ? undefined : credentials[pulled.credential];
    this.#records.add(pulled.image.id, reference.repository, credential);
    return pulled.image;
  }

  /** An image that was never pulled but loaded by hand: it serves where no registry can be reached, whatever the policy. */
  #loaded(name: string): Image | undefined {
    const image = this.#store.find(name);
    const { repository } = parseReference(name)!;
    const may = { credentials: [], policy: 'NeverVerifyPreloadedImages' as const };
    return image && this.#records.isAccessible(image.id, repository, may) ? image : undefined;
  }

  // Of pods that are gone, or whose pull was long ago.
  #sweep(): void {
    const nowMs = this.#clock.monotonic();
    for (const [key, { untilMs }] of this.#failures)
      if (nowMs - untilMs > 2 * BACKOFF_MS_MAX) this.#failures.delete(key);
  }
}

function presentMessage(name: string): string {
  return `Container image "${name}" already present on machine and can be accessed by the pod`;
}

function keyOf({ pod, name }: ImageWish): string {
  return `${pod.metadata.uid}_${name}`;
}

function refuse(tell: ImageWish['tell'], reason: WaitingReason, message: string, retryMs: number): never {
  tell('Warning', 'Failed', `Error: ${reason}`);
  throw new ImageUnavailable(reason, message, retryMs);
}

/** Go's way to print whole milliseconds: 453ms, 1.2s, 1m2.5s. */
export function goMilliseconds(ms: number): string {
  const whole = Math.floor(ms);
  if (whole < 1000) return whole === 0 ? '0s' : `${whole}ms`;
  const hours = Math.floor(whole / 3_600_000);
  const minutes = Math.floor(whole / 60_000) % 60;
  const seconds = `${(whole % 60_000) / 1000}s`;
  return hours > 0 ? `${hours}h${minutes}m${seconds}` : minutes > 0 ? `${minutes}m${seconds}` : seconds;
}
