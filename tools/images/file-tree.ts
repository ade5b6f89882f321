/**
 * A root file system in memory, from Debian packages or by hand, and its one tar form: entries sorted, times zero,
 * numeric owners; the same content gives the same bytes. Paths are absolute without a final slash.
 */

import { pack } from 'tar-stream';

export type Node =
  | { readonly type: 'directory'; readonly mode: number; readonly uid: number }
  | { readonly type: 'file'; readonly mode: number; readonly uid: number; readonly data: Buffer }
  | { readonly type: 'symlink'; readonly target: string };

export class FileTree {
  readonly nodes = new Map<string, Node>();

  directory(path: string, mode = 0o755, uid = 0): this {
    this.#parents(path);
    this.nodes.set(path, { type: 'directory', mode, uid });
    return this;
  }
  file(path: string, data: string | Buffer, mode = 0o644): this {
    this.#parents(path);
    this.nodes.set(path, { type: 'file', mode, uid: 0, data: Buffer.from(data) });
    return this;
  }
  symlink(path: string, target: string): this {
    this.#parents(path);
    this.nodes.set(path, { type: 'symlink', target });
    return this;
  }
  add(path: string, node: Node): this {
    this.#parents(path);
    this.nodes.set(path, node);
    return this;
  }
  #parents(path: string): void {
    for (let slash = path.lastIndexOf('/'); slash > 0; slash = path.lastIndexOf('/', slash - 1)) {
      const parent = path.slice(0, slash);
      if (!this.nodes.has(parent)) this.nodes.set(parent, { type: 'directory', mode: 0o755, uid: 0 });
    }
  }

  toTar(): Promise<Buffer> {
    const entries: TarEntry[] = [...this.nodes]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([path, node]) => ({
        name: path.slice(1) + (node.type === 'directory' ? '/' : ''),
        type: node.type,
        mode: node.type === 'symlink' ? 0o777 : node.mode,
        uid: node.type === 'symlink' ? 0 : node.uid,
        ...(node.type === 'symlink' ? { linkname: node.target } : {}),
        ...(node.type === 'file' ? { data: node.data } : {}),
      }));
    return tarOf(entries);
  }
}

export interface TarEntry {
  readonly name: string;
  readonly type: 'directory' | 'file' | 'symlink';
  readonly mode: number;
  readonly uid: number;
  readonly linkname?: string;
  readonly data?: Buffer;
}

export async function tarOf(entries: readonly TarEntry[]): Promise<Buffer> {
  const stream = pack();
  for (const { data, ...header } of entries) {
    stream.entry({ ...header, gid: header.uid, mtime: new Date(0) }, data ?? Buffer.alloc(0));
  }
  stream.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
