/**
 * Whether one pod's volumes are there: mounts them once for all containers, tries again with growing pauses, and brings their
 * contents up to date when an object they come from changes. Invariant: at most one mount is under way, and `isReady` holds only
 * after all volumes were mounted. It does not say who must wait for them; what a volume is, `volumes` knows.
 */

import type { PersistentVolumeClaim } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { PERSISTENT_VOLUME_CLAIMS } from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import { hasUserNamespaces } from '../../sys/user-namespace.ts';
import { ImageUnavailable } from '../images/node-images.ts';
import { AttachLimitExceeded } from '../volumes/csi/attachment.ts';
import { type PodVolumeContext, PodVolumes, VolumeError } from '../volumes/pod-volumes.ts';
import { forgetUsage, recordUsage } from '../volumes/volume-stats.ts';
import type { PodContext } from './context.ts';
import type { PodSubject } from './pod-subject.ts';
import type { Refusal } from './refusals.ts';
import type { Waiting } from './status.ts';

const REFRESH_MS = 60_000;
/** Claims may be asked to grow, which a node is not told. */
const CLAIM_REFRESH_MS = 10_000;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 122_000;
const IMAGE_RETRY_MS_MAX = 2000;

export class PodMounts {
  readonly volumes: PodVolumes;
  readonly #context: PodContext;
  readonly #subject: PodSubject;
  #isReady = false;
  #missingImage: { readonly volume: string; readonly waiting: Waiting } | undefined;
  #refusal: Refusal | undefined;
  #isChanged = false;
  #retryMs = RETRY_MS_MIN;
  #nextRefreshMs = 0;
  #mounting: Promise<boolean> | undefined;
  readonly #end = new AbortController();

  constructor(subject: PodSubject) {
    const { context, uid } = subject;
    this.#context = context;
    this.#subject = subject;
    this.volumes = new PodVolumes({
      disk: context.paths.pod(uid),
      memory: context.paths.memory(uid),
      node: context.volumes,
    });
  }
  /** The image of a volume is not to be had; its containers wait as for their own. */
  get missingImage(): { readonly volume: string; readonly waiting: Waiting } | undefined {
    return this.#missingImage;
  }
  /** The volumes will not come to this node: the pod cannot run here. */
  get refusal(): Refusal | undefined {
    return this.#refusal;
  }
  /** Nothing to wait for but requests to the API server. */
  get isQuick(): boolean {
    const { pod } = this.#subject;
    return this.volumes.isLocatable(pod) && !this.volumes.isWaitingForServer(pod);
  }
  /** The pod ends: a mount under way is given up. */
  abort(): void {
    this.#end.abort();
  }
  get isReady(): boolean {
    return this.#isReady;
  }
  /** What the pod or an object of its volumes says has changed. */
  changed(): void {
    this.#isChanged = true;
  }

  mount(): Promise<boolean> {
    if (this.#isReady) return Promise.resolve(true);
    this.#mounting ??= this.#mountAll().finally(() => {
      this.#mounting = undefined;
    });
    return this.#mounting;
  }
  async #mountAll(): Promise<boolean> {
    try {
      await this.volumes.mountAll(this.#source());
      this.#isReady = true;
      this.#missingImage = undefined;
      this.#isChanged = false;
      this.#nextRefreshMs = this.#context.clock.monotonic() + this.#refreshMs;
      this.#subject.wakeAfter(this.#refreshMs);
      this.#retryMs = RETRY_MS_MIN;
      return true;
    } catch (error) {
      if (this.#end.signal.aborted) return false;
      if (error instanceof VolumeError && error.cause instanceof ImageUnavailable) {
        // Its events are told already, and it keeps its own pauses.
        const { reason, message, retryMs } = error.cause;
        this.#missingImage = { volume: error.volume, waiting: { reason, message } };
        this.#subject.wakeAfter(Math.min(retryMs, IMAGE_RETRY_MS_MAX));
        return false;
      }
      if (error instanceof VolumeError && error.cause instanceof AttachLimitExceeded) {
        const message = `Node has reached its volume attachment limit, rejecting pod. ${error.message}`;
        this.#refusal = { reason: 'VolumeAttachmentLimitExceeded', message };
        this.#subject.wake();
        return false;
      }
      this.#subject.event('Warning', 'FailedMount', error instanceof VolumeError ? error.message : messageOf(error));
      this.#subject.wakeAfter(this.#retryMs);
      this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX);
      return false;
    }
  }
  async refresh(): Promise<void> {
    const nowMs = this.#context.clock.monotonic();
    if (!this.#subject.pod.spec.volumes?.length || (!this.#isChanged && nowMs < this.#nextRefreshMs)) return;
    this.#isChanged = false;
    this.#nextRefreshMs = nowMs + this.#refreshMs;
    this.#subject.wakeAfter(this.#refreshMs);
    for (const error of await this.volumes.refresh(this.#source()))
      this.#subject.event('Warning', 'FailedMount', error.message);
    for (const complaint of await recordUsage(this.volumes, this.#context.volumes))
      this.#subject.event('Warning', 'VolumeConditionAbnormal', complaint);
  }

  /** Unmounts all, and lets go of the objects and tokens that the contents came from. */
  async release(): Promise<void> {
    const { references, tokens, volumes } = this.#context;
    references.release(this.#subject.uid);
    tokens.forget(this.#subject.uid);
    volumes.certificates.forget(this.#subject.uid);
    this.#isReady = false;
    this.abort();
    await this.#mounting;
    forgetUsage(this.volumes);
    await this.volumes.unmountAll(this.#subject.uid);
  }

  get #refreshMs(): number {
    const isClaim = [...this.volumes.mounted.values()].some(({ use }) => use.persistent?.claim !== undefined);
    return isClaim ? CLAIM_REFRESH_MS : REFRESH_MS;
  }
  #source(): PodVolumeContext {
    const { clock, node, references, tokens, nodeIps, transport, volumes, userIds } = this.#context;
    const pod = this.#subject.pod;
    const namespace = pod.metadata.namespace!;
    const changed = () => {
      this.#isChanged = true;
      this.#subject.wake();
    };
    return {
      pod,
      clock,
      changed,
      node,
      addresses: () => ({ podIps: this.#subject.podIps, hostIps: nodeIps }),
      read: (of, name) => {
        references.hold(this.#subject.uid, of, namespace, name, changed);
        return references.get(of, namespace, name);
      },
      fetch: async <T extends KubeObject>(
        of: ResourceId,
        key: { readonly namespace?: string; readonly name: string },
      ) => {
        try {
          return (await transport.get({ of, ...key })) as T;
        } catch (error) {
          if (isReason(error, 'NotFound')) return undefined;
          throw error;
        }
      },
      list: async <T extends KubeObject>(of: ResourceId, fieldSelector: string) => {
        try {
          return (await transport.list({ of }, { fieldSelector })).items as T[];
        } catch (error) {
          if (isReason(error, 'NotFound')) return undefined;
          throw error;
        }
      },
      token: request => tokens.get(pod, request),
      userIds: () => (pod.spec.hostUsers === false && hasUserNamespaces ? userIds.claim(this.#subject.uid) : undefined),
      volumes,
      event: (type, reason, message) => this.#subject.event(type, reason, message),
      updateClaimStatus: async (claim, status) => {
        const { namespace: of = '', name } = claim.metadata;
        const target = { of: PERSISTENT_VOLUME_CLAIMS, namespace: of, name, subresource: 'status' };
        await transport.update(target, { ...claim, status } as PersistentVolumeClaim);
      },
      signal: this.#end.signal,
    };
  }
}
