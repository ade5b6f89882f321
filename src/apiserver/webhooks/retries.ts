/** Calls to configured webhooks are tried again while the failure may pass: no reply, 429, 5xx. As upstream, five times in about 4 s. */

import type { Clock } from '../../base/clock.ts';
import { RemoteStatusError } from './remote.ts';

const ATTEMPTS = 5;
const FIRST_WAIT_MS = 500;
const FACTOR = 1.5;

export async function patiently<T>(clock: Clock, call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      const passing = !(error instanceof RemoteStatusError) || error.status === 429 || error.status >= 500;
      if (!passing || attempt >= ATTEMPTS) throw error;
    }
    await clock.sleep(FIRST_WAIT_MS * FACTOR ** (attempt - 1));
  }
}
