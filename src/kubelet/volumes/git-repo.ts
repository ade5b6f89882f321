/**
 * gitRepo: a folder with a clone of a Git repository, made once, before the pod's containers start. The repository is a
 * stranger's, so Git runs as nobody, without capabilities, in a sandbox where it can write the volume and nothing else; with no hooks,
 * templates, submodules, helpers or redirects; over http, https and git only, and never to the node's own or
 * link-local addresses. It refuses everything else by name.
 */

import { lookup } from 'node:dns/promises';
import { chmodSync, chownSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { isIP } from 'node:net';
import type { GitRepoVolumeSource } from '../../api/core/v1.gen.ts';
import { parseAddress } from '../../sys/address.ts';
import { CommandError, runCommand } from '../../sys/command.ts';
import { runInSandbox, SANDBOX_USER } from './sandbox.ts';
import type { VolumePlugin } from './volume.ts';

const CLONE_SECONDS_MAX = 120;
const PROTOCOLS: Readonly<Record<string, number>> = { 'http:': 80, 'https:': 443, 'git:': 9418 };

const GIT_SETTINGS = {
  'core.hooksPath': '/dev/null',
  'core.fsmonitor': 'false',
  'core.symlinks': 'true',
  'credential.helper': '',
  'http.followRedirects': 'false',
  'protocol.allow': 'never',
  'protocol.git.allow': 'always',
  'protocol.http.allow': 'always',
  'protocol.https.allow': 'always',
  'submodule.recurse': 'false',
  'transfer.fsckObjects': 'true',
  'safe.directory': '*',
} as const;

const GIT_ENVIRONMENT = {
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_TERMINAL_PROMPT: '0',
  GIT_ASKPASS: '/bin/false',
  GIT_ALLOW_PROTOCOL: 'git:http:https',
  GIT_LFS_SKIP_SMUDGE: '1',
} as const;

interface Clone {
  /** What git is told: for git:// with the address in place of the name. */
  readonly url: string;
  readonly settings: Readonly<Record<string, string>>;
  /** Where inside the volume; '.' is the volume itself. */
  readonly directory: string;
}

/** Checks what a pod says. Throws with field, value and rule. */
export async function planClone({ repository, directory = '' }: GitRepoVolumeSource): Promise<Clone> {
  const refuse = (why: string): never => {
    throw new Error(`gitRepo.repository: Invalid value: ${JSON.stringify(repository)}: ${why}`);
  };
  let url: URL;
  try {
    url = new URL(repository);
  } catch {
    return refuse('must be a URL: https://HOST/PATH, http:// or git://');
  }
  if (!Object.hasOwn(PROTOCOLS, url.protocol)) return refuse('must begin with https://, http:// or git://');
  if (url.username || url.password) return refuse('must not hold credentials');
  if (/[\s\\]|%0[0-9a-f]/i.test(repository)) return refuse('must not hold blanks, backslashes or control characters');
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const { address } = isIP(host) ? { address: host } : await lookup(host);
  // Asked once, and pinned: the name cannot mean another address when Git connects.
  if (isOwn(address)) return refuse(`${address} is an address of the node itself`);
  const port = Number(url.port) || PROTOCOLS[url.protocol]!;
  const shown = address.includes(':') ? `[${address}]` : address;
  const pinned =
    url.protocol === 'git:'
      ? `git://${shown}:${port}${url.pathname}`
      : `${url.protocol}//${url.host}${url.pathname}${url.search}`;
  return {
    url: pinned,
    settings: url.protocol === 'git:' || isIP(host) ? {} : { 'http.curloptResolve': `${host}:${port}:${shown}` },
    directory: cloneFolder(directory, url.pathname),
  };
}

function cloneFolder(directory: string, pathname: string): string {
  const name = directory || (pathname.split('/').findLast(part => part !== '') ?? '').replace(/\.git$/, '');
  const parts = name.split('/').filter(part => part !== '' && part !== '.');
  const bad =
    name.startsWith('/') ||
    parts.some(part => part === '..' || /^\.?git(~\d+)?$/i.test(part) || /[^\w.+@-]/.test(part));
  if (bad || name === '')
    throw new Error(
      `gitRepo.directory: Invalid value: ${JSON.stringify(name)}: must be a relative path of plain names, without ".." and ".git"`,
    );
  return parts.join('/') || '.';
}

/** Loopback, unspecified, link-local; also as an IPv4 address inside an IPv6 one. */
function isOwn(text: string): boolean {
  let bytes = parseAddress(text);
  if (bytes.length === 16 && bytes.subarray(0, 10).every(byte => byte === 0) && bytes.readUInt16BE(10) === 0xffff)
    bytes = bytes.subarray(12);
  if (bytes.length === 4) return bytes[0] === 127 || bytes[0] === 0 || (bytes[0] === 169 && bytes[1] === 254);
  return bytes.subarray(0, 12).every(byte => byte === 0) || (bytes[0] === 0xfe && (bytes[1]! & 0xc0) === 0x80);
}

function checkRevision(revision: string): void {
  if (!/^[\w][\w./+@-]*$/.test(revision) || revision.includes('..') || revision.includes('@{'))
    throw new Error(
      `gitRepo.revision: Invalid value: ${JSON.stringify(revision)}: must be a commit, a branch or a tag`,
    );
}

export const gitRepoVolume: VolumePlugin<GitRepoVolumeSource> = {
  source: 'gitRepo',
  folder: 'kubernetes.io~git-repo',
  isRelabelled: true,
  ownsFiles: true,
  async mount(source, target, { signal }) {
    if (existsSync(target.path)) return;
    if (source.revision) checkRevision(source.revision);
    const clone = await planClone(source);
    // Beside the target, so that a clone that was interrupted is never taken for a whole one.
    const unfinished = `${target.path}.cloning`;
    rmSync(unfinished, { recursive: true, force: true });
    mkdirSync(unfinished, { mode: 0o700 });
    chownSync(unfinished, SANDBOX_USER, SANDBOX_USER);
    const git = (...args: string[]) => runGit(unfinished, clone.settings, args, signal);
    try {
      await git(
        'clone',
        '--quiet',
        '--no-local',
        '--no-recurse-submodules',
        '--template=',
        '--',
        clone.url,
        clone.directory,
      );
      if (source.revision) {
        await git('-C', clone.directory, 'checkout', '--quiet', '--detach', source.revision, '--');
        await git('-C', clone.directory, 'reset', '--quiet', '--hard');
      }
      // No link is followed: -h changes links themselves, and -R without -L or -H walks none.
      await runCommand('chown', ['-hR', '0:0', unfinished], { signal });
      chmodSync(unfinished, 0o777);
      renameSync(unfinished, target.path);
    } catch (error) {
      rmSync(unfinished, { recursive: true, force: true });
      throw withoutCommandLine(error, source.repository);
    }
  },
  async unmount({ path }) {
    rmSync(path, { recursive: true, force: true });
    rmSync(`${path}.cloning`, { recursive: true, force: true });
  },
};

async function runGit(
  volume: string,
  settings: Readonly<Record<string, string>>,
  args: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const all = Object.entries({ ...GIT_SETTINGS, ...settings }).flatMap(([key, value]) => ['-c', `${key}=${value}`]);
  await runInSandbox({ volume, env: GIT_ENVIRONMENT, timeoutMs: CLONE_SECONDS_MAX * 1000, signal }, [
    'git',
    ...all,
    ...args,
  ]);
}

function withoutCommandLine(error: unknown, repository: string): unknown {
  if (!(error instanceof CommandError)) return error;
  const said = error.stderr.trim();
  if (/setpriv: .*git.*No such file/.test(said))
    return new Error('git is not installed on this node: apt-get install git');
  return new Error(`cloning ${JSON.stringify(repository)}: ${said || error.message.split(': ').at(-1)}`);
}
