/** The folder that keeps a cluster's data: made where missing, or refused with the reason. */

import { existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { failure } from '../base/errors.ts';

/** Level by level: asked for all at once, Node never returns where the last folder cannot be made, as below /proc. */
export function makeStateFolder(path: string): void {
  const missing: string[] = [];
  let there = path;
  for (; !existsSync(there); there = dirname(there)) missing.push(there);
  if (!statSync(there).isDirectory())
    throw failure(422, 'Invalid', `--state-dir: Invalid value: "${path}": ${there} is not a folder`);
  try {
    for (const folder of missing.reverse()) mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    throw failure(422, 'Invalid', `--state-dir: Invalid value: "${path}": ${(error as Error).message}`);
  }
}
