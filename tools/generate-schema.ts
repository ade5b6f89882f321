/**
 * Generates `src/api/schema.gen.json` and `src/api/<group>/<version>.gen.ts` from Kubernetes' Go packages.
 *
 *   node26 tools/generate-schema.ts           writes the files
 *   node26 tools/generate-schema.ts --check   compares with the committed files, exits 1 when they differ
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fetchGoSources } from './schema/debian-source.ts';
import { renderInterfaces } from './schema/interfaces.ts';
import { buildTables, type Tables } from './schema/model.ts';

const root = join(import.meta.dirname, '..');
const output = join(root, 'src/api');

/** One type a line, so that a change of Kubernetes reads as a change of lines. */
function renderTables(tables: Tables): string {
  const rows = (table: object) =>
    Object.entries(table).map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  return `{"packages":{\n${rows(tables.packages).join(',\n')}\n},"types":{\n${rows(tables.types).join(',\n')}\n}}\n`;
}

const tables = buildTables(fetchGoSources(join(root, '.cache/k8s-sources')));
const files = renderInterfaces(tables).set('schema.gen.json', renderTables(tables));
const stale: string[] = [];
for (const [path, text] of files) {
  const file = join(output, path);
  if (existsSync(file) && readFileSync(file, 'utf8') === text) continue;
  stale.push(path);
  if (process.argv.includes('--check')) continue;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}
console.log(
  `${Object.keys(tables.types).length} types, ${files.size} files, ${stale.length} ${process.argv.includes('--check') ? 'stale' : 'written'}`,
);
if (process.argv.includes('--check') && stale.length > 0) {
  console.error(stale.join('\n'));
  process.exitCode = 1;
}
