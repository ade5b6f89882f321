/**
 * `GET /logs/`: logs of the node itself, as upstream's kubelet serves /var/log and answers node log queries (KEP 2258). Invariant:
 * a file is opened first and then seen to lie below what is shown, so that no link that a pod plants leads out. It reads ordinary
 * files only, and no journal.
 */

import { constants } from 'node:fs';
import { type FileHandle, open, readdir, readlink, realpath } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { failure } from '../../base/errors.ts';
import { type LineFilter, readNodeLogQuery } from './node-log-query.ts';

export interface NodeLogsOptions {
  /** Name at the root of `/logs/` to a file or folder of the node. */
  readonly entries: Readonly<Record<string, string>>;
  /** What is shown at the root beside the entries: `/var/log` where the node is a machine. */
  readonly folder?: string;
  /** Services with a log of Coxswain's own form, and its file; what was rotated away is beside it and ends in `.1`. */
  readonly services?: Readonly<Record<string, string>>;
}

const FILE_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
const TEXT = 'text/plain; charset=utf-8';
const TIME_LENGTH = '2026-01-01T00:00:00.000Z'.length;

export class NodeLogs {
  readonly #options: NodeLogsOptions;
  constructor(options: NodeLogsOptions) {
    this.#options = options;
  }

  /** `segments` are those after `/logs`, decoded. Throws ApiError before anything was sent. */
  async serve(
    request: IncomingMessage,
    response: ServerResponse,
    segments: readonly string[],
    url: URL,
  ): Promise<void> {
    const query = readNodeLogQuery(url.searchParams);
    const isHead = request.method === 'HEAD';
    if (query && segments.length > 0) throw failure(406, 'NotAcceptable', 'path not allowed in query mode');
    if (query && query.services.length > 0) {
      response.writeHead(200, { 'Content-Type': TEXT });
      if (isHead) return void response.end();
      return send(Readable.from(this.#query(query.services, query.filter)), response);
    }
    const path = query?.file === undefined ? segments : query.file.split(/[/\\]/).filter(Boolean);
    if (path.some(segment => segment === '..' || segment.includes('\0') || segment.includes('/')))
      throw failure(400, 'BadRequest', 'invalid URL path');
    const file = path.length === 0 ? undefined : await this.#open(path);
    try {
      const stats = await file?.stat();
      if (file && stats?.isFile()) {
        response.writeHead(200, {
          'Content-Type': TEXT,
          'Content-Length': String(stats.size),
          'Last-Modified': stats.mtime.toUTCString(),
        });
        if (isHead || stats.size === 0) return void response.end();
        return await send(file.createReadStream({ autoClose: false, start: 0, end: stats.size - 1 }), response);
      }
      if (file && !stats?.isDirectory()) throw notFound();
      if (!url.pathname.endsWith('/')) {
        response.writeHead(301, { Location: `${encodeURIComponent(path.at(-1) ?? 'logs')}/` });
        return void response.end();
      }
      const page = listing(file ? await namesIn(`/proc/self/fd/${file.fd}`) : await this.#rootNames());
      response.writeHead(200, {
        'Content-Type': 'text/html; charset=utf-8',
        'Content-Length': Buffer.byteLength(page),
      });
      response.end(isHead ? undefined : page);
    } finally {
      await file?.close();
    }
  }

  async #rootNames(): Promise<string[]> {
    const { entries, folder } = this.#options;
    const names = new Set(folder === undefined ? [] : await namesIn(folder));
    for (const [name, path] of Object.entries(entries)) {
      const file = await open(path, FILE_FLAGS).catch(() => undefined);
      if (file) names.add((await file.stat()).isDirectory() ? `${name}/` : name);
      await file?.close();
    }
    return [...names].sort();
  }

  /** Throws NotFound, also for what lies elsewhere. The caller closes it. */
  async #open(path: readonly string[]): Promise<FileHandle> {
    const { entries, folder } = this.#options;
    const [first, ...rest] = path as [string, ...string[]];
    const root = Object.hasOwn(entries, first) ? entries[first] : folder && join(folder, first);
    if (root === undefined) throw notFound();
    const file = await open(join(root, ...rest), FILE_FLAGS).catch(() => undefined);
    if (!file) throw notFound();
    const place = await readlink(`/proc/self/fd/${file.fd}`);
    const shown = [...Object.values(entries), ...(folder === undefined ? [] : [folder])];
    for (const one of shown) {
      const real = await realpath(one).catch(() => undefined);
      if (real !== undefined && (place === real || place.startsWith(`${real}/`))) return file;
    }
    await file.close();
    throw notFound();
  }

  async *#query(services: readonly string[], filter: LineFilter): AsyncGenerator<string | Buffer> {
    const { services: own = {} } = this.#options;
    const ofFiles = services.filter(service => !Object.hasOwn(own, service));
    if (ofFiles.length > 0 && Object.keys(filter).length > 0) {
      yield `\noptions present and query resolved to log files for [${ofFiles.join(' ')}]\ntry without specifying options\n`;
      return;
    }
    for (const service of services)
      if (Object.hasOwn(own, service)) yield* chosenLines(own[service]!, filter);
      else yield* this.#fileOf(service);
  }

  /** `NAME`, `NAME.log` or `NAME/NAME.log`. */
  async *#fileOf(service: string): AsyncGenerator<string | Buffer> {
    for (const path of [[service], [`${service}.log`], [service, `${service}.log`]]) {
      const file = path.includes('..') ? undefined : await this.#open(path).catch(() => undefined);
      if (!file) continue;
      try {
        if (!(await file.stat()).isFile()) continue;
        yield* file.createReadStream({ autoClose: false });
        return;
      } finally {
        await file.close();
      }
    }
    yield `\nlog not found for ${service}\n`;
  }
}

/** Lines of the log, and of what was rotated away before it. A line without a time has that of the one before. */
async function* chosenLines(path: string, filter: LineFilter): AsyncGenerator<string> {
  const { sinceMs = -Infinity, untilMs = Infinity, tailLines, pattern } = filter;
  const last: string[] = [];
  let atMs = -Infinity;
  for (const one of [`${path}.1`, path]) {
    const file = await open(one, FILE_FLAGS).catch(() => undefined);
    if (!file) continue;
    try {
      for await (const line of createInterface({ input: file.createReadStream({ autoClose: false }) })) {
        const writtenMs = Date.parse(line.slice(0, TIME_LENGTH));
        if (!Number.isNaN(writtenMs)) atMs = writtenMs;
        if (atMs < sinceMs || atMs > untilMs || (pattern && !pattern.test(line))) continue;
        if (tailLines === undefined) yield `${line}\n`;
        else if (tailLines > 0) {
          last.push(line);
          // Twice as many before half are dropped: each line is moved once at most.
          if (last.length >= 2 * tailLines) last.splice(0, last.length - tailLines);
        }
      }
    } finally {
      await file.close();
    }
  }
  if (tailLines !== undefined && tailLines > 0) for (const line of last.slice(-tailLines)) yield `${line}\n`;
}

async function namesIn(folder: string): Promise<string[]> {
  const found = await readdir(folder, { withFileTypes: true });
  return found.map(one => (one.isDirectory() ? `${one.name}/` : one.name)).sort();
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&#34;',
  "'": '&#39;',
};

/** As Go's file server shows a folder. */
function listing(names: readonly string[]): string {
  const links = names.map(name => {
    const target = name.replace(/[^/]+/g, encodeURIComponent);
    const href = target.split('/')[0]!.includes(':') ? `./${target}` : target;
    return `<a href="${href}">${name.replace(/[&<>"']/g, one => ESCAPES[one]!)}</a>\n`;
  });
  return `<!doctype html>\n<meta name="viewport" content="width=device-width">\n<pre>\n${links.join('')}</pre>\n`;
}

const notFound = () => failure(404, 'NotFound', '404 page not found');

/** A client that is gone, or a file that cannot be read on, breaks the answer off. */
async function send(from: Readable, response: ServerResponse): Promise<void> {
  await pipeline(from, response).catch(() => response.destroy());
}
