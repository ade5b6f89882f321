/**
 * Whether a container's image is there, in upstream's events and reasons. There is no registry yet: a pull always fails, with
 * a message that names the command which loads an image; a present image is used whatever the pull policy wants.
 */

import type { Container, Pod } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import type { EventRecorder } from '../../client/event-recorder.ts';
import type { Image, ImageStore } from '../images/image-store.ts';
import { parseReference } from '../images/reference.ts';
import type { Waiting } from './status.ts';

const BACKOFF_MS_MIN = 10_000;
const BACKOFF_MS_MAX = 300_000;

export type Presence = { readonly image: Image } | { readonly waiting: Waiting; readonly retryMs: number };

export class ImagePresence {
  readonly #images: ImageStore;
  readonly #events: EventRecorder;
  readonly #clock: Clock;
  /** By image name, for one pod. */
  readonly #failed = new Map<string, { untilMs: number; delayMs: number; isTold: boolean; message: string }>();

  constructor(options: { images: ImageStore; events: EventRecorder; clock: Clock }) {
    this.#images = options.images;
    this.#events = options.events;
    this.#clock = options.clock;
  }

  ensure(pod: Pod, container: Container, fieldPath: string): Presence {
    const name = container.image ?? '';
    const tell = (type: 'Normal' | 'Warning', reason: string, message: string) =>
      this.#events.event(pod, type, reason, message, { fieldPath });
    if (!parseReference(name)) {
      const message = `Failed to apply default image tag "${name}": couldn't parse image name "${name}": invalid reference format`;
      tell('Warning', 'InspectFailed', message);
      tell('Warning', 'Failed', 'Error: InvalidImageName');
      return { waiting: { reason: 'InvalidImageName', message }, retryMs: BACKOFF_MS_MIN };
    }
    const image = this.#images.find(name);
    if (image) {
      this.#failed.delete(name);
      tell('Normal', 'Pulled', `Container image "${name}" already present on machine and can be accessed by the pod`);
      return { image };
    }
    if (container.imagePullPolicy === 'Never') {
      const message = `Container image "${name}" is not present with pull policy of Never`;
      tell('Warning', 'ErrImageNeverPull', message);
      tell('Warning', 'Failed', 'Error: ErrImageNeverPull');
      return { waiting: { reason: 'ErrImageNeverPull', message }, retryMs: BACKOFF_MS_MIN };
    }
    const nowMs = this.#clock.monotonic();
    const known = this.#failed.get(name);
    if (known && nowMs < known.untilMs) {
      if (!known.isTold) {
        known.isTold = true;
        tell('Normal', 'BackOff', `Back-off pulling image "${name}"`);
        tell('Warning', 'Failed', 'Error: ImagePullBackOff');
      }
      return {
        waiting: {
          reason: 'ImagePullBackOff',
          message: `Back-off pulling image "${name}": ErrImagePull: ${known.message}`,
        },
        retryMs: known.untilMs - nowMs,
      };
    }
    const message = `image "${name}" is not in this machine's store and pulling from registries is not supported yet; load it with: cox image load FILE`;
    const delayMs = known ? Math.min(known.delayMs * 2, BACKOFF_MS_MAX) : BACKOFF_MS_MIN;
    this.#failed.set(name, { untilMs: nowMs + delayMs, delayMs, isTold: false, message });
    tell('Normal', 'Pulling', `Pulling image "${name}"`);
    tell('Warning', 'Failed', `Failed to pull image "${name}": ${message}`);
    tell('Warning', 'Failed', 'Error: ErrImagePull');
    return { waiting: { reason: 'ErrImagePull', message }, retryMs: Math.min(delayMs, 1000) };
  }
}
