/** An image of a recipe as a docker archive: the same recipe and packages give the same bytes. */

import { createHash } from 'node:crypto';
import { readPackages } from './debian.ts';
import { tarOf } from './file-tree.ts';
import { BASE_PACKAGES, baseLayer, ENV, type Recipe } from './recipes.ts';

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

/** Hexadecimal. */
export const sha256 = (data: Buffer | string): string => createHash('sha256').update(data).digest('hex');

/** The image as `docker load` and `cox image load` take it; `packages` are the paths of the Debian packages by name. */
export async function dockerArchive(recipe: Recipe, packages: ReadonlyMap<string, string>): Promise<Buffer> {
  const files = (names: readonly string[]) => readPackages(names.map(name => packages.get(name)!));
  const layers = [await baseLayer(await files(BASE_PACKAGES)).toTar()];
  if (recipe.layer) layers.push(await recipe.layer(await files(recipe.packages)).toTar());
  const names = layers.map(sha256);
  const config = Buffer.from(
    JSON.stringify({
      created: '1970-01-01T00:00:00Z',
      architecture: ARCHITECTURES[process.arch],
      os: 'linux',
      config: { Env: ENV, ...recipe.config },
      rootfs: { type: 'layers', diff_ids: names.map(name => `sha256:${name}`) },
      history: names.map((_, index) => ({
        created: '1970-01-01T00:00:00Z',
        created_by: index === 0 ? 'busybox-static' : recipe.packages.join(' '),
      })),
    }),
  );
  const manifest = [
    { Config: `${sha256(config)}.json`, RepoTags: [recipe.tag], Layers: names.map(name => `${name}/layer.tar`) },
  ];
  const file = (name: string, data: Buffer) => ({ name, type: 'file' as const, mode: 0o644, uid: 0, data });
  return tarOf([
    file('manifest.json', Buffer.from(JSON.stringify(manifest))),
    file(manifest[0]!.Config, config),
    ...layers.map((layer, index) => file(manifest[0]!.Layers[index]!, layer)),
  ]);
}
