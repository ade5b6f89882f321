/** `cox image load`: puts image archives into the cluster's image store, from which all its nodes run containers. */

import { imageStore } from '../../app/image-store.ts';
import { failure, messageOf } from '../../base/errors.ts';
import type { ImageStore, ListedImage } from '../../kubelet/images/image-store.ts';
import { type Command, printJson, usageError } from '../command.ts';

/** What is wrong with a file is the user's to mend: a sentence, not a stack. */
async function load(store: ImageStore, file: string): Promise<readonly ListedImage[]> {
  try {
    return await store.load(file);
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' && path === file ? 'no such file' : messageOf(error);
    throw failure(
      422,
      'Invalid',
      `${file}: ${why}; image load takes docker-archive and OCI tar files, also .tar.gz and .tar.zst`,
    );
  }
}

export const command: Command = {
  name: 'image load',
  summary: 'load docker-archive or OCI tar files into a cluster',
  usage: 'FILE...',
  takesWords: true,
  examples: ['cox image load web.tar db.tar.zst'],
  async run({ words, cluster, json }) {
    if (words.length === 0) usageError('image load needs at least one file (.tar, .tar.gz or .tar.zst)');
    const store = imageStore(cluster);
    const loaded: { file: string; references: readonly string[]; id: string }[] = [];
    for (const file of words) {
      for (const image of await load(store, file)) {
        loaded.push({ file, references: image.references, id: image.id });
        if (!json) process.stdout.write(`${file}: ${image.references.join(', ') || image.id}\n`);
      }
    }
    if (json) printJson(loaded);
  },
};
