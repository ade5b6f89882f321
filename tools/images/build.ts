/**
 * Builds the images of tests and examples from Debian's packages, without Docker and without installing anything:
 *
 *   node26 tools/images/build.ts [--out DIR] [--fresh] [IMAGE…]
 *
 * Writes docker archives (`cox image load`, `docker load`) to `.cache/images`. An image that is there and whose recipe
 * has not changed is left alone, unless `--fresh` asks for the newest packages. Needs apt-get and dpkg-deb, which every
 * Debian has; what is downloaded is said and kept in `.cache/packages`.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { dockerArchive, sha256 } from './archive.ts';
import { fetchPackages } from './debian.ts';
import { BASE_PACKAGES, RECIPES } from './recipes.ts';

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
const say = (line: string): void => console.log(line);
const fileName = (tag: string): string => `${tag.replace(/[/:]/g, '-')}.tar`;

// The recipes and what applies them: a change of any of these files builds all images again.
const recipeKey = sha256(
  readdirSync(import.meta.dirname)
    .filter(name => name.endsWith('.ts'))
    .sort()
    .map(name => sha256(readFileSync(join(import.meta.dirname, name))))
    .join(),
);

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
    const archive = await dockerArchive(recipe, packages);
    writeFileSync(`${path}.part`, archive);
    renameSync(`${path}.part`, path);
    writeFileSync(join(out, `.${fileName(recipe.tag)}.key`), recipeKey);
    say(
      `${recipe.tag.padEnd(16)} ${(archive.length / 1e6).toFixed(1)} MB  sha256:${sha256(archive).slice(0, 12)}  ${path}`,
    );
  }
}
