/** `cox image rm`: takes images out of the cluster's image store, unless a container or volume uses them. */

import { imageStore } from '../../app/image-store.ts';
import { failure, messageOf } from '../../base/errors.ts';
import { type Command, printJson, usageError } from '../command.ts';

export const command: Command = {
  name: 'image rm',
  summary: 'remove images from a cluster',
  usage: 'NAME...',
  takesWords: true,
  examples: ['cox image rm nginx:1.22', 'cox image rm sha256:0123…'],
  run({ words, cluster, json }) {
    if (words.length === 0) usageError('image rm needs at least one image; see: cox image list');
    const store = imageStore(cluster);
    for (const name of words) {
      let isKnown: boolean;
      try {
        isKnown = store.remove(name);
      } catch (error) {
        throw failure(409, 'Conflict', `${messageOf(error)}; delete the pods that use it first`);
      }
      if (!isKnown) throw failure(404, 'NotFound', `cluster "${cluster}" has no image ${name}; see: cox image list`);
      if (!json) process.stdout.write(`${name}: removed\n`);
    }
    if (json) printJson(words.map(name => ({ removed: name })));
  },
};
