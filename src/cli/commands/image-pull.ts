/** `cox image pull`: fetches images from their registries into the cluster's image store, over the network of the machine. */

import { pullIntoStore } from '../../app/image-store.ts';
import { failure, messageOf } from '../../base/errors.ts';
import type { PullProgress } from '../../kubelet/images/image-pull.ts';
import { type Command, printJson, usageError } from '../command.ts';

const MIB = 2 ** 20;

function show({ layers, layersDone, bytes, bytesTotal }: PullProgress): string {
  return `${layersDone}/${layers} layers, ${(bytes / MIB).toFixed(1)} of ${(bytesTotal / MIB).toFixed(1)} MiB`;
}

export const command: Command = {
  name: 'image pull',
  summary: 'fetch images from registries into a cluster',
  usage: 'NAME...',
  takesWords: true,
  options: {
    credentials: { type: 'string', value: 'FILE', help: 'a docker config.json with passwords of registries' },
  },
  examples: [
    'cox image pull nginx:1.27',
    'cox image pull --credentials ~/.docker/config.json registry.example/team/app:2',
  ],
  async run({ words, cluster, json, options }) {
    if (words.length === 0) usageError('image pull needs at least one image, such as nginx:1.27');
    const isTerminal = !json && process.stderr.isTTY;
    const stop = new AbortController();
    process.once('SIGINT', () => stop.abort(failure(500, 'InternalError', 'interrupted')));
    const pulled: { name: string; id: string; digest: string; bytes: number }[] = [];
    for (const name of words) {
      try {
        const { image, digest } = await pullIntoStore(cluster, {
          name,
          signal: stop.signal,
          ...(options['credentials'] === undefined ? {} : { credentialsFile: String(options['credentials']) }),
          onProgress: progress => isTerminal && process.stderr.write(`\r\x1b[K${name}: ${show(progress)}`),
        });
        if (isTerminal) process.stderr.write('\r\x1b[K');
        pulled.push({ name, id: image.id, digest, bytes: image.sizeBytes });
        if (!json) process.stdout.write(`${name}: ${digest}, ${(image.sizeBytes / MIB).toFixed(1)} MiB\n`);
      } catch (error) {
        if (isTerminal) process.stderr.write('\r\x1b[K');
        throw failure(422, 'Invalid', messageOf(error));
      }
    }
    if (json) printJson(pulled);
  },
};
