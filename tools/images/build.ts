/**
 * Builds the images of tests and examples from Debian's packages, without Docker and without installing anything:
 *
 *   node26 tools/images/build.ts [--out DIR] [--fresh] [IMAGE…]
 *
 * Writes docker archives (`cox image load`, `docker load`) to `.cache/images`. An image that is there and whose recipe
 * has not changed is left alone, unless `--fresh` asks for the newest packages. Needs apt-get and dpkg-deb, which every
 * Debian has; what is downloaded is said and kept in `.cache/packages`.
 */

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { fetchPackages, readPackages } from './debian.ts';
import { tarOf } from './file-tree.ts';
import { BASE_PACKAGES, baseLayer, ENV, RECIPES, type Recipe } from './recipes.ts';

const root = join(import.meta.dirname, '..', '..');
const { values, positionals } = parseArgs({
  options: {
    out: { type: 'string', default: join(root, '.cache', 'images') },
    fresh: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
const out = values.out;
const cache = join(root, '.cache', 'packages');
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

const say = (line: string): void => console.log(line);
const sha256 = (data: Buffer | string): string => createHash('sha256').update(data).digest('hex');
const fileName = (tag: string): string => `${tag.replace(/[/:]/g, '-')}.tar`;

// The recipes and what applies them: a change of any of these files builds all images again.
const recipeKey = sha256(
  readdirSync(import.meta.dirname)
    .filter(name => name.endsWith('.ts'))
    .sort()
    .map(name => sha256(readFileSync(join(import.meta.dirname, name))))
    .join(),
);

async function build(recipe: Recipe, packages: ReadonlyMap<string, string>): Promise<Buffer> {
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

const chosen =
  positionals.length === 0
    ? RECIPES
    : positionals.map(name => {
        const recipe = RECIPES.find(({ tag }) => tag === name);
        if (!recipe) {
          console.error(`no recipe for ${name}; there are: ${RECIPES.map(({ tag }) => tag).join(' ')}`);
          process.exit(2);
        }
        return recipe;
      });
mkdirSync(out, { recursive: true });
const stale = chosen.filter(({ tag }) => {
  const [path, keyPath] = [join(out, fileName(tag)), join(out, `.${fileName(tag)}.key`)];
  const current =
    !values.fresh && existsSync(path) && existsSync(keyPath) && readFileSync(keyPath, 'utf8') === recipeKey;
  if (current) say(`${tag.padEnd(16)} is up to date: ${path}`);
  return !current;
});
if (stale.length > 0) {
  const packages = fetchPackages(
    [...new Set([BASE_PACKAGES, ...stale.map(recipe => recipe.packages)].flat())],
    cache,
    say,
  );
  for (const recipe of stale) {
    const path = join(out, fileName(recipe.tag));
    const archive = await build(recipe, packages);
    writeFileSync(`${path}.part`, archive);
    renameSync(`${path}.part`, path);
    writeFileSync(join(out, `.${fileName(recipe.tag)}.key`), recipeKey);
    say(
      `${recipe.tag.padEnd(16)} ${(archive.length / 1e6).toFixed(1)} MB  sha256:${sha256(archive).slice(0, 12)}  ${path}`,
    );
  }
}
