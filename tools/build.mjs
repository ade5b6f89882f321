// Bundles the product into dist/: one entry, chunks shared between commands, native packages left outside.
// A start from the bundle costs a third of one from src, and only loads what the command needs.

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';
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

// Built beside and renamed file by file would leave mixed chunks; content-hashed chunk names make overwriting safe.
mkdirSync(out, { recursive: true });
const before = new Set(readdirSync(out));
const result = await build({
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
  metafile: true,
  logLevel: 'warning',
});
for (const name of readdirSync(resolve(root, 'src/api'))) {
  if (name.endsWith('.gen.json') || name === 'descriptions.txt')
    copyFileSync(resolve(root, 'src/api', name), resolve(out, name));
}
// Chunks of earlier builds go, unless a running cluster may still load them lazily: a day is plenty.
const kept = new Set(Object.keys(result.metafile.outputs).map(path => path.split('/').at(-1)));
for (const name of before) {
  if (kept.has(name) || name.endsWith('.gen.json') || name === 'descriptions.txt') continue;
  const { mtimeMs } = await import('node:fs').then(fs => fs.statSync(resolve(out, name)));
  if (Date.now() - mtimeMs > 24 * 3600 * 1000) rmSync(resolve(out, name));
}
