/** What the tests of pulls share: image stores of their own, a pull into one, and registries that a test answers for. */

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import type { Credential } from '../../src/kubelet/images/credentials.ts';
import { pullImage } from '../../src/kubelet/images/image-pull.ts';
import { ImageStore } from '../../src/kubelet/images/image-store.ts';
import { type BuiltImage, FakeRegistry } from './registry.ts';

export const work = mkdtempSync(join(tmpdir(), 'cox-pull-'));
/** Run in reverse order after the tests. */
export const stops: (() => Promise<void>)[] = [];
after(async () => {
  for (const stop of stops.reverse()) await stop();
  rmSync(work, { recursive: true, force: true });
});

let stores = 0;
export function freshStore(settings?: string): { store: ImageStore; dir: string } {
  const dir = join(work, `store${stores++}`);
  const store = new ImageStore(dir);
  if (settings) writeFileSync(join(dir, 'images.yaml'), settings);
  return { store, dir };
}
export function pull(
  reference: string,
  { store, dir }: { store: ImageStore; dir: string },
  options: { credentials?: readonly Credential[]; signal?: AbortSignal; onProgress?: (bytes: number) => void } = {},
) {
  return pullImage(
    { reference, credentials: options.credentials ?? [] },
    {
      store,
      settingsDir: dir,
      network: {},
      signal: options.signal ?? new AbortController().signal,
      ...(options.onProgress ? { onProgress: ({ bytes }) => options.onProgress!(bytes) } : {}),
    },
  );
}
export const nothingLeft = ({ store, dir }: { store: ImageStore; dir: string }) => {
  assert.deepEqual(store.list(), []);
  for (const folder of ['layers', 'scratch', 'claims', 'names'])
    assert.deepEqual(readdirSync(join(dir, folder)), [], folder);
};
export const fileIn = (store: ImageStore, layer: string, name: string) =>
  readFileSync(join(store.layersDir, layer, name), 'utf8');

export async function hostile(image: BuiltImage): Promise<FakeRegistry> {
  const registry = await new FakeRegistry(image).start();
  stops.push(() => registry.stop());
  return registry;
}
