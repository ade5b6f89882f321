/**
 * Checks the layout that docs/architecture.md describes: a folder of `src` imports lower layers only and never a folder of
 * its own layer; files are kebab-case nouns that open with a comment. No exceptions list, by design.
 * Run: `node26 tools/tidy.ts`; prints each finding and exits 1 when there are any.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';

const LAYERS: Readonly<Record<string, number>> = {
  base: 0,
  api: 1,
  sys: 1,
  store: 2,
  client: 2,
  csi: 2,
  apiserver: 3,
  controllers: 3,
  scheduler: 3,
  kubelet: 3,
  localdriver: 3,
  proxy: 3,
  network: 3,
  dns: 3,
  ingress: 3,
  loadbalancer: 3,
  dashboard: 3,
  app: 4,
  cli: 5,
};

const VAGUE_WORDS = /(^|-)(util|utils|helper|helpers|manager|impl|misc|common)(-|$)/;
const IMPORT = /(?:^|\n)\s*(?:import|export)\b[^'";]*?from\s*['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)/g;

const root = resolve(import.meta.dirname, '..');
const source = join(root, 'src');
const findings: string[] = [];

function filesUnder(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter(entry => entry.isFile() && /\.tsx?$/.test(entry.name))
    .map(entry => join(entry.parentPath, entry.name));
}

function checkImports(file: string, text: string, folder: string): void {
  const layer = LAYERS[folder]!;
  for (const match of text.matchAll(IMPORT)) {
    const specifier = match[1] ?? match[2]!;
    if (!specifier.startsWith('.')) continue;
    const target = resolve(dirname(file), specifier);
    if (!target.startsWith(source + sep)) {
      findings.push(`${relative(root, file)}: imports ${specifier}, which is outside src`);
      continue;
    }
    const other = relative(source, target).split(sep)[0]!;
    if (other === folder) continue;
    const otherLayer = LAYERS[other];
    if (otherLayer === undefined) findings.push(`${relative(root, file)}: imports unknown folder src/${other}`);
    else if (otherLayer >= layer)
      findings.push(
        `${relative(root, file)}: layer ${layer} (${folder}) may not import layer ${otherLayer} (${other})`,
      );
  }
}

for (const entry of readdirSync(source, { withFileTypes: true })) {
  if (!entry.isDirectory()) findings.push(`src/${entry.name}: a file outside every layer`);
  else if (LAYERS[entry.name] === undefined) findings.push(`src/${entry.name}: a folder that no layer names`);
}

for (const file of filesUnder(source)) {
  const path = relative(root, file);
  const name = path
    .split(sep)
    .at(-1)!
    .replace(/(\.test|\.gen)?\.tsx?$/, '');
  if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)) findings.push(`${path}: file names are kebab-case`);
  if (VAGUE_WORDS.test(name)) findings.push(`${path}: name the noun instead of "${name}"`);
  const text = readFileSync(file, 'utf8');
  const folder = relative(source, file).split(sep)[0]!;
  if (LAYERS[folder] === undefined) continue;
  // Tests may look sideways (a store's contract suite, a fake of another layer); the product may not.
  if (!file.endsWith('.test.ts')) checkImports(file, text, folder);
  if (!/\.(test|gen)\.tsx?$/.test(file) && !/^(#!.*\n)?\s*\/[*/]/.test(text))
    findings.push(`${path}: open with a comment that says what the file owns`);
}

for (const finding of findings) console.log(finding);
console.log(findings.length === 0 ? 'tidy: layers and names are in order' : `tidy: ${findings.length} findings`);
process.exitCode = findings.length === 0 ? 0 : 1;
