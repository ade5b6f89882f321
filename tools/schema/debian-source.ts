/**
 * Fetches the Go sources of Kubernetes' API types, as Debian testing packages them, into `.cache/`.
 * The mirror is the one that this machine's own apt uses; nothing is installed and apt's own state is not touched.
 * Refuses any package that is not of the wanted Kubernetes release.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Version prefix of the wanted release: Debian numbers the libraries 0.x for Kubernetes 1.x. */
const RELEASE = '0.36.';
const PACKAGES = ['golang-k8s-api-dev', 'golang-k8s-apimachinery-dev'] as const;

interface Mirror {
  readonly uri: string;
  readonly signedBy?: string;
}

/** Folder that holds `api` and `apimachinery` (Go's `k8s.io`), downloaded on first use. */
export function fetchGoSources(cache: string): string {
  const unpacked = join(cache, 'unpacked');
  const sources = join(unpacked, 'usr/share/gocode/src/k8s.io');
  if (existsSync(sources)) return sources;
  mkdirSync(cache, { recursive: true });
  const errors: string[] = [];
  for (const mirror of aptMirrors()) {
    try {
      const staging = join(cache, 'staging');
      rmSync(staging, { recursive: true, force: true });
      for (const archive of download(mirror, cache)) execFileSync('dpkg-deb', ['-x', archive, staging]);
      rmSync(unpacked, { recursive: true, force: true });
      renameSync(staging, unpacked);
      return sources;
    } catch (error) {
      errors.push(`${mirror.uri}: ${error instanceof Error ? error.message : error}`);
    }
  }
  throw new Error(`no apt mirror of this machine has ${PACKAGES.join(', ')} ${RELEASE}x:\n${errors.join('\n')}`);
}

/** Debian archives among the machine's apt sources, both the one-line and the deb822 form. */
function aptMirrors(): Mirror[] {
  const mirrors = new Map<string, Mirror>();
  const add = (uri: string, components: string, signedBy: string | undefined) => {
    if (/\bmain\b/.test(components) && !/security/.test(uri)) mirrors.set(uri, { uri, signedBy });
  };
  const folder = '/etc/apt/sources.list.d';
  const files = existsSync(folder) ? readdirSync(folder).map(name => join(folder, name)) : [];
  for (const file of ['/etc/apt/sources.list', ...files]) {
    if (!existsSync(file)) continue;
    const text = readFileSync(file, 'utf8').replace(/^#.*\n/gm, '');
    if (file.endsWith('.sources')) {
      for (const stanza of text.split(/\n\s*\n/)) {
        const value = (key: string) => new RegExp(`^${key}:\\s*(.*)$`, 'm').exec(stanza)?.[1]?.trim();
        for (const uri of value('URIs')?.split(/\s+/) ?? []) add(uri, value('Components') ?? '', value('Signed-By'));
      }
    } else {
      for (const [, options, uri, components] of text.matchAll(/^deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+\S+\s+(.*)$/gm)) {
        add(uri!, components!, /signed-by=(\S+)/.exec(options ?? '')?.[1]);
      }
    }
  }
  return [...mirrors.values()];
}

function download(mirror: Mirror, cache: string): string[] {
  const state = join(cache, 'apt');
  for (const folder of ['lists/partial', 'archives/partial']) mkdirSync(join(state, folder), { recursive: true });
  const list = join(state, 'sources.list');
  const keyring = mirror.signedBy ?? '/usr/share/keyrings/debian-archive-keyring.gpg';
  writeFileSync(list, `deb [signed-by=${keyring}] ${mirror.uri} testing main\n`);
  const options = [
    `Dir::Etc::sourcelist=${list}`,
    'Dir::Etc::sourceparts=/dev/null',
    `Dir::State::lists=${join(state, 'lists')}`,
    `Dir::Cache=${state}`,
    'APT::Sandbox::User=root',
    'Acquire::Languages=none',
  ].flatMap(option => ['-o', option]);
  const run = (command: string, args: string[], cwd = state) =>
    execFileSync(command, [...options, ...args], { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  run('apt-get', ['update', '-q']);
  for (const name of PACKAGES) {
    const version = /Candidate:\s*(\S+)/.exec(run('apt-cache', ['policy', name]))?.[1];
    if (!version?.startsWith(RELEASE)) throw new Error(`${name} is ${version ?? 'absent'}, wanted ${RELEASE}x`);
  }
  const archives = join(state, 'archives');
  run('apt-get', ['download', '-q', ...PACKAGES], archives);
  return readdirSync(archives)
    .filter(name => name.endsWith('.deb'))
    .map(name => join(archives, name));
}
