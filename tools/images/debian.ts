/**
 * Debian packages as trees of files: downloads with apt-get (which verifies them) into a cache and reads them with
 * dpkg-deb. It never installs a package nor changes what apt knows, except that it refreshes apt's lists when they lack one.
 */

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { extract } from 'tar-stream';
import { elfNeeds } from './elf.ts';
import { FileTree, type Node } from './file-tree.ts';

const APT = ['-q', '-o', 'APT::Sandbox::User=root'];

/** Each package's file, downloaded where the cache lacks it; `say` hears what is downloaded. */
export function fetchPackages(
  names: readonly string[],
  cache: string,
  say: (line: string) => void,
): ReadonlyMap<string, string> {
  mkdirSync(cache, { recursive: true });
  const wanted = listPackages(names, say);
  const missing = wanted.filter(({ file }) => !existsSync(join(cache, file)));
  if (missing.length > 0) {
    const megabytes = missing.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6;
    say(
      `downloading ${missing.length} Debian packages (${megabytes.toFixed(1)} MB): ${missing.map(({ file }) => file.split('_')[0]).join(' ')}`,
    );
    execFileSync('apt-get', [...APT, 'download', ...missing.map(({ name }) => name)], {
      cwd: cache,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  }
  return new Map(wanted.map(({ name, file }) => [name, join(cache, file)]));
}

interface Package {
  readonly name: string;
  readonly file: string;
  readonly bytes: number;
}

function listPackages(names: readonly string[], say: (line: string) => void): Package[] {
  const list = (): Package[] => {
    const lines = execFileSync('apt-get', [...APT, 'download', '--print-uris', ...names], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return lines
      .trim()
      .split('\n')
      .map(line => {
        const [, file, bytes] = line.split(' ');
        return { name: file!.split('_')[0]!, file: file!, bytes: Number(bytes) };
      });
  };
  try {
    return list();
  } catch {
    say('refreshing the package lists: apt-get update');
    execFileSync('apt-get', [...APT, 'update'], { stdio: ['ignore', 'ignore', 'inherit'] });
    return list();
  }
}

/** All files of the packages in one tree. */
export async function readPackages(files: readonly string[]): Promise<FileTree> {
  const tree = new FileTree();
  for (const file of files) {
    let nodes = unpacked.get(file);
    if (!nodes) unpacked.set(file, (nodes = (await unpack(file)).nodes));
    for (const [path, node] of nodes) tree.add(path, node);
  }
  return tree;
}

const unpacked = new Map<string, ReadonlyMap<string, Node>>();

async function unpack(file: string): Promise<FileTree> {
  const tree = new FileTree();
  const program = spawn('dpkg-deb', ['--fsys-tarfile', file], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = new Promise<number | null>((resolve, reject) => program.on('error', reject).on('close', resolve));
  for await (const entry of program.stdout.pipe(extract())) {
    const path = entry.header.name.replace(/^\.?\/*/, '/').replace(/\/$/, '');
    const chunks: Buffer[] = [];
    for await (const chunk of entry) chunks.push(chunk as Buffer);
    const node = nodeOf(entry.header, Buffer.concat(chunks), tree);
    if (path !== '' && node) tree.add(path, node);
  }
  if ((await exited) !== 0) throw new Error(`dpkg-deb cannot read ${file}`);
  return tree;
}

function nodeOf(
  header: { type?: string | null; mode?: number; linkname?: string | null },
  data: Buffer,
  tree: FileTree,
): Node | undefined {
  const mode = (header.mode ?? 0o644) & 0o7777;
  if (header.type === 'directory') return { type: 'directory', mode, uid: 0 };
  if (header.type === 'file') return { type: 'file', mode, uid: 0, data };
  if (header.type === 'symlink') return { type: 'symlink', target: header.linkname ?? '' };
  if (header.type === 'link') return tree.nodes.get(`/${header.linkname!.replace(/^\.?\/*/, '')}`);
  return undefined;
}

const LIBRARY_FOLDERS = ['x86_64', 'aarch64'].flatMap(cpu => [`/lib/${cpu}-linux-gnu`, `/usr/lib/${cpu}-linux-gnu`]);

/** Copies paths from `source` to `target`, links followed, and with programs every shared library that they need. */
export function copyWithLibraries(source: FileTree, target: FileTree, paths: readonly string[]): void {
  const pending = [...paths];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    if (target.nodes.has(path)) continue;
    const node = source.nodes.get(path);
    if (!node) throw new Error(`no package has ${path}`);
    target.add(path, node);
    if (node.type === 'symlink') pending.push(resolveLink(path, node.target));
    if (node.type !== 'file') continue;
    const needs = elfNeeds(node.data);
    if (needs?.interpreter) pending.push(needs.interpreter);
    for (const library of needs?.libraries ?? []) {
      const found = LIBRARY_FOLDERS.map(folder => `${folder}/${library}`).find(candidate =>
        source.nodes.has(candidate),
      );
      if (!found) throw new Error(`${path} needs ${library}, which none of the recipe's packages has`);
      pending.push(found);
    }
  }
}

function resolveLink(path: string, target: string): string {
  return new URL(target, `file://${path}`).pathname;
}
