/** What is counted of images and their pulls, under upstream's names, labels and bounds. */

import { metrics } from '../../base/metrics.ts';
import type { Image } from './image-store.ts';

const MIB = 1 << 20;
const GIB = 1 << 30;
/** Sizes from so many bytes on. */
const SIZES: readonly (readonly [number, string])[] = [
  [100 * GIB, 'GT100GB'],
  [60 * GIB, '60GB-100GB'],
  [40 * GIB, '40GB-60GB'],
  [30 * GIB, '30GB-40GB'],
  [20 * GIB, '20GB-30GB'],
  [10 * GIB, '10GB-20GB'],
  [5 * GIB, '5GB-10GB'],
  [GIB, '1GB-5GB'],
  [500 * MIB, '500MB-1GB'],
  [100 * MIB, '100MB-500MB'],
  [10 * MIB, '10MB-100MB'],
  [0, '0-10MB'],
];
const PULL_SECONDS = [1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600];
/** Prometheus' own. */
export const DEFAULT_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

const pulls = metrics.histogram(
  'kubelet_image_pull_duration_seconds',
  'Duration in seconds to pull an image.',
  PULL_SECONDS,
  ['image_size_in_bytes'],
);
const requests = metrics.counter(
  'kubelet_image_manager_ensure_image_requests_total',
  'Number of ensure-image requests processed by the kubelet.',
  ['pull_policy', 'present_locally', 'pull_required'],
);
/** How often it was asked whether a pod may use an image, by `credentialPolicyAllowed`, `credentialRecordFound` or `mustAuthenticate`. */
export const pullChecks = metrics.counter(
  'kubelet_imagemanager_image_mustpull_checks_total',
  'Counter for how many times kubelet checked whether credentials need to be re-verified to access an image',
  ['result'],
);
export const pulledRecords = metrics.gauge(
  'kubelet_imagemanager_ondisk_pulledrecords',
  'Number of ImagePulledRecords stored on disk.',
);
/** By `age` or `space`. */
export const collected = metrics.counter(
  'kubelet_image_garbage_collected_total',
  'Total number of images garbage collected by the kubelet, whether through disk usage or image age.',
  ['reason'],
);

export function countPull({ sizeBytes }: Pick<Image, 'sizeBytes'>, durationMs: number): void {
  pulls.observe(durationMs / 1000, SIZES.find(([from]) => sizeBytes >= from)![1]);
}

export function countRequest({
  policy,
  isPresent,
  isPullRequired,
}: {
  readonly policy: string;
  readonly isPresent: boolean;
  readonly isPullRequired: boolean;
}): void {
  requests.add(1, policy.toLowerCase(), String(isPresent), String(isPullRequired));
}
