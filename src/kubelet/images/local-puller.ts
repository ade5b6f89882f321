/** Pulls in this very process: for the puller's own process, the command line and tests. Unpacking holds the thread at times. */

import type { Clock } from '../../base/clock.ts';
import { type PulledImage, type PullProgress, type PullRequest, pullImage } from './image-pull.ts';
import { ImageStore } from './image-store.ts';
import type { ImagePuller } from './node-images.ts';
import type { RegistryNetwork } from './registry-connection.ts';

export class LocalPuller implements ImagePuller {
  readonly #store: ImageStore;
  readonly #folder: string;
  readonly #network: RegistryNetwork;
  readonly #clock: Clock | undefined;

  constructor(options: { readonly imageDir: string; readonly network?: RegistryNetwork; readonly clock?: Clock }) {
    this.#store = new ImageStore(options.imageDir);
    this.#folder = options.imageDir;
    this.#network = options.network ?? {};
    this.#clock = options.clock;
  }
  pull(
    request: PullRequest,
    options: { readonly signal: AbortSignal; readonly onProgress?: (progress: PullProgress) => void },
  ): Promise<PulledImage> {
    return pullImage(request, {
      store: this.#store,
      settingsDir: this.#folder,
      network: this.#network,
      ...(this.#clock ? { clock: this.#clock } : {}),
      ...options,
    });
  }
}
