/** Prefers nodes that have the pod's images, the larger and the rarer spread the less. */

import type { NodeInfo } from '../node-info.ts';
import { type Plugin, SCORE_MAX } from '../plugin.ts';

const MEBIBYTE = 1024 * 1024;
/** Below this sum an image is fetched soon enough not to matter; above the limit more does not help. */
const BYTES_MIN = 23 * MEBIBYTE;
const BYTES_MAX_PER_CONTAINER = 1000 * MEBIBYTE;

/** `nginx` is listed by nodes as `nginx:latest`. */
export function normalizedImage(image: string): string {
  return image.lastIndexOf(':') <= image.lastIndexOf('/') && !image.includes('@') ? `${image}:latest` : image;
}

export const imageLocality: Plugin = {
  name: 'ImageLocality',
  weight: 1,
  wakesOn: [],
  score: ({ pod }, cluster, feasible) => {
    const { initContainers = [], containers = [], volumes = [] } = pod.spec ?? {};
    const names = [
      ...[...initContainers, ...containers].map(({ image }) => image),
      ...volumes.map(({ image }) => image?.reference),
    ];
    const images = names.flatMap(name => (name ? [normalizedImage(name)] : []));
    const spread = images.map(image => feasible.filter(node => node.imageBytes(image) > 0).length / cluster.nodes.size);
    if (spread.every(part => part === 0)) return undefined;
    const bytesMax = BYTES_MAX_PER_CONTAINER * images.length;
    return {
      normalize: 'none',
      score: (node: NodeInfo) => {
        const bytes = images.reduce((sum, image, i) => sum + node.imageBytes(image) * spread[i]!, 0);
        return Math.floor(
          (SCORE_MAX * (Math.min(Math.max(bytes, BYTES_MIN), bytesMax) - BYTES_MIN)) / (bytesMax - BYTES_MIN),
        );
      },
    };
  },
};
