/** `cox image list`: the images that a cluster's nodes can run without a registry. */

import { imageStore } from '../../app/image-store.ts';
import { type Command, printJson, printTable } from '../command.ts';

export const command: Command = {
  name: 'image list',
  summary: 'list the images of a cluster',
  usage: '',
  async run({ cluster, json }) {
    const images = await imageStore(cluster).list();
    if (json) return printJson(images);
    printTable(
      ['IMAGE', 'ID', 'SIZE'],
      images.flatMap(image =>
        (image.references.length ? image.references : ['<none>']).map(reference => [
          reference,
          image.id.replace('sha256:', '').slice(0, 12),
          `${(image.sizeBytes / 2 ** 20).toFixed(1)} MiB`,
        ]),
      ),
    );
  },
};
