/** `cox image load`: puts image archives into the cluster's image store, from which all its nodes run containers. */

import { imageStore } from '../../app/image-store.ts';
import { type Command, printJson, usageError } from '../command.ts';

export const command: Command = {
  name: 'image load',
  summary: 'load docker-archive or OCI tar files into a cluster',
  usage: 'FILE...',
  examples: ['cox image load web.tar db.tar.zst'],
  async run({ words, cluster, json }) {
    if (words.length === 0) usageError('image load needs at least one file (.tar, .tar.gz or .tar.zst)');
    const store = imageStore(cluster);
    const loaded: { file: string; references: readonly string[]; id: string }[] = [];
    for (const file of words) {
      for (const image of await store.load(file)) {
        loaded.push({ file, references: image.references, id: image.id });
        if (!json) process.stdout.write(`${file}: ${image.references.join(', ') || image.id}\n`);
      }
    }
    if (json) printJson(loaded);
  },
};
