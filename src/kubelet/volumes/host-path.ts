/** hostPath: a file or folder of the node itself. Nothing is mounted or removed here; types are checked as upstream does. */

import { chmodSync, closeSync, mkdirSync, openSync, statSync } from 'node:fs';
import type { HostPathVolumeSource } from '../../api/core/v1.gen.ts';
import type { VolumePlugin } from './volume.ts';

export const hostPathVolume: VolumePlugin<HostPathVolumeSource> = {
  source: 'hostPath',
  folder: 'kubernetes.io~host-path',
  async mount({ path, type = '' }) {
    const stat = statSync(path, { throwIfNoEntry: false });
    const fail = (what: string): never => {
      throw new Error(`hostPath type check failed: ${path} is not ${what}`);
    };
    switch (type) {
      case '':
        // As container runtimes do for a source that is missing.
        if (!stat) mkdirSync(path, { recursive: true, mode: 0o755 });
        return;
      case 'DirectoryOrCreate':
        if (!stat) {
          mkdirSync(path, { recursive: true });
          chmodSync(path, 0o755);
        } else if (!stat.isDirectory()) fail('a directory');
        return;
      case 'Directory':
        if (!stat?.isDirectory()) fail('a directory');
        return;
      case 'FileOrCreate':
        if (!stat) {
          closeSync(openSync(path, 'a', 0o644));
          chmodSync(path, 0o644);
        } else if (!stat.isFile()) fail('a file');
        return;
      case 'File':
        if (!stat?.isFile()) fail('a file');
        return;
      case 'Socket':
        if (!stat?.isSocket()) fail('a socket file');
        return;
      case 'CharDevice':
        if (!stat?.isCharacterDevice()) fail('a character device');
        return;
      case 'BlockDevice':
        if (!stat?.isBlockDevice()) fail('a block device');
        return;
      default:
        throw new Error(`${type} is an invalid volume type`);
    }
  },
  async unmount() {},
  contentPath: ({ path }) => path,
};
