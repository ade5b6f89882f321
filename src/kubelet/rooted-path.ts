/** Paths inside a folder whose content is not trusted: links resolve as if the folder were `/`, so none leads out of it. */

import { lstatSync, readlinkSync, type Stats } from 'node:fs';
import { join } from 'node:path';

const LINKS_MAX = 40;

/**
 * The real path of `path` below `root`; undefined when there are too many links in it. Each component that is no link is shown
 * to `enter` before the next one is looked at; false ends it with undefined.
 */
export function resolveBelow(
  root: string,
  path: string,
  enter: (at: string, found: Stats | undefined) => boolean,
): string | undefined {
  const todo = path.split('/');
  const done: string[] = [];
  for (let links = 0; todo.length > 0; ) {
    const part = todo.shift()!;
    if (part === '' || part === '.') continue;
    if (part === '..') {
      done.pop();
      continue;
    }
    const at = join(root, ...done, part);
    const found = lstatSync(at, { throwIfNoEntry: false });
    if (found?.isSymbolicLink()) {
      if (++links > LINKS_MAX) return undefined;
      const to = readlinkSync(at);
      if (to.startsWith('/')) done.length = 0;
      todo.unshift(...to.split('/'));
      continue;
    }
    if (!enter(at, found)) return undefined;
    done.push(part);
  }
  return join(root, ...done);
}
