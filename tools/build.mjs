// Bundles the product into dist/: one entry, chunks shared between commands, native packages left outside.
// A start from the bundle costs a third of one from src, and only loads what the command needs.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { build } from 'esbuild';

/**
 * node:http and node:https without their ESM face: making it reads every export, and one of them loads undici, which nobody here
 * wants (a fifth of a server's start, and its memory).
 */
const httpWithoutUndici = {
  name: 'http-without-undici',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^(node:)?https?$/ }, ({ path }) => ({
      path: path.replace('node:', ''),
      namespace: 'builtin',
    }));
    onLoad({ filter: /.*/, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule('node:${path}');`,
    }));
  },
};

const root = resolve(import.meta.dirname, '..');
const commit = spawnSync('git', ['-C', root, 'rev-parse', 'HEAD'], { encoding: 'utf8' }).stdout?.trim() ?? '';
const out = resolve(root, 'dist');

const startedMs = Date.now();
mkdirSync(out, { recursive: true });
const before = new Set(readdirSync(out));

/** Each file is whole from its first moment on, since another command may be starting from this folder, or building it. */
function put(name, content) {
  const path = resolve(out, name);
  const pending = `${path}.${process.pid}`;
  writeFileSync(pending, content);
  renameSync(pending, path);
  return path;
}

const result = await build({
  write: false,
  entryPoints: { cox: resolve(root, 'src/cli/main.ts') },
  outdir: out,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node24',
  chunkNames: '[name]-[hash]',
  sourcemap: 'linked',
  sourcesContent: false,
  plugins: [httpWithoutUndici],
  legalComments: 'none',
  define: { COX_COMMIT: JSON.stringify(commit) },
  external: ['lmdb', 'koffi'],
  // Its CommonJS build has no named exports when it is loaded on demand from a chunk; this is the same library as a module.
  alias: { yaml: resolve(root, 'node_modules/yaml/browser/index.js') },
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  logLevel: 'warning',
});
const isData = name => name.endsWith('.gen.json') || name.endsWith('descriptions.txt');
const data = readdirSync(resolve(root, 'src/api')).filter(isData);
for (const name of data) put(name, readFileSync(resolve(root, 'src/api', name)));
// The entry comes last, when all that it names is there. It is as old as the sources it was read from.
const isEntry = ({ path }) => basename(path) === 'cox.mjs';
for (const file of result.outputFiles.filter(file => !isEntry(file))) put(basename(file.path), file.contents);
const entry = put('cox.mjs', result.outputFiles.find(isEntry).contents);
utimesSync(entry, startedMs / 1000, startedMs / 1000);

// Chunks of earlier builds go, unless a running cluster may still load them lazily: a day is plenty.
const kept = new Set([...data, ...result.outputFiles.map(({ path }) => basename(path))]);
for (const name of before) {
  const stat = kept.has(name) ? undefined : statSync(resolve(out, name), { throwIfNoEntry: false });
  if (stat && Date.now() - stat.mtimeMs > 24 * 3600 * 1000) rmSync(resolve(out, name), { force: true });
}
