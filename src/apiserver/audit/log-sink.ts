/**
 * Audit events as lines of a file, which is turned over as it grows: `audit.log` becomes `audit-TIME.log`. Invariant: lines are whole and
 * in order; a line is written before the one after it. Events that come faster than the disk takes them are dropped and counted.
 */

import { closeSync, fstatSync, mkdirSync, openSync, readdirSync, renameSync, rmSync, statSync, write } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import type { AuditSink } from './auditor.ts';
import type { AuditEvent } from './trail.ts';

const DAY_MS = 24 * 3_600_000;
/** Waiting lines: some seconds of a busy server at 2 KB each. */
const WAITING_BYTES_MAX = 64 * 1024 * 1024;

export const dropped = metrics.counter(
  'apiserver_audit_error_total',
  'Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.',
  ['plugin'],
);

export interface LogSinkOptions {
  /** `-` is the standard output. */
  readonly path: string;
  readonly format: 'json' | 'legacy';
  /** 0: the file is never turned over. */
  readonly bytesMax: number;
  /** Old files kept; 0: all. */
  readonly backupsMax: number;
  /** 0: old files are kept for ever. */
  readonly ageDaysMax: number;
  readonly clock: Clock;
  readonly log: Logger;
}

export class LogSink implements AuditSink {
  readonly #options: LogSinkOptions;
  #fd: number;
  #size = 0;
  #turnedMs = 0;
  #waiting: string[] = [];
  #waitingBytes = 0;
  #writing: Promise<void> | undefined;

  /** Throws when the file cannot be opened. */
  constructor(options: LogSinkOptions) {
    this.#options = options;
    this.#fd = this.#open();
  }

  record(event: AuditEvent): void {
    const line = this.#options.format === 'json' ? `${JSON.stringify(event)}\n` : legacyLine(event);
    if (this.#waitingBytes + line.length > WAITING_BYTES_MAX) return dropped.add(1, 'log');
    this.#waiting.push(line);
    this.#waitingBytes += line.length;
    this.#writing ??= this.#write();
  }

  async close(): Promise<void> {
    while (this.#writing) await this.#writing;
    if (this.#fd !== 1) closeSync(this.#fd);
  }

  #open(): number {
    const { path } = this.#options;
    if (path === '-') return 1;
    mkdirSync(dirname(path), { recursive: true });
    const fd = openSync(path, 'a', 0o600);
    this.#size = fstatSync(fd).size;
    return fd;
  }

  // Lines that gather while one part is written go with the next.
  async #write(): Promise<void> {
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const lines = this.#waiting;
      this.#waiting = [];
      this.#waitingBytes = 0;
      try {
        for (let from = 0; from < lines.length; ) {
          const { text, next } = this.#part(lines, from);
          await this.#append(Buffer.from(text));
          from = next;
        }
      } catch (error) {
        dropped.add(lines.length, 'log');
        this.#options.log.error('audit log cannot be written', { path: this.#options.path, error: messageOf(error) });
      }
    }
    this.#writing = undefined;
  }

  /** Lines that fit into the file as it is; it is turned over before one that does not. */
  #part(lines: readonly string[], from: number): { text: string; next: number } {
    const { bytesMax, path } = this.#options;
    if (bytesMax === 0 || path === '-') return { text: lines.join(''), next: lines.length };
    let room = bytesMax - this.#size;
    if (this.#size > 0 && Buffer.byteLength(lines[from]!) > room) {
      this.#turn();
      room = bytesMax;
    }
    let next = from;
    do room -= Buffer.byteLength(lines[next++]!);
    while (next < lines.length && Buffer.byteLength(lines[next]!) <= room);
    return { text: lines.slice(from, next).join(''), next };
  }

  #append(bytes: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      const on = (at: number) =>
        write(this.#fd, bytes, at, bytes.length - at, null, (error, written) => {
          if (error) return reject(error);
          this.#size += written;
          if (at + written < bytes.length) on(at + written);
          else resolve();
        });
      on(0);
    });
  }

  #turn(): void {
    const { path, clock } = this.#options;
    closeSync(this.#fd);
    const extension = extname(path);
    const stem = join(dirname(path), basename(path, extension));
    // Names tell the order of the files, also of those of one moment.
    this.#turnedMs = Math.max(clock.now(), this.#turnedMs + 1);
    const target = `${stem}-${new Date(this.#turnedMs).toISOString().replace(/:/g, '-').slice(0, -1)}${extension}`;
    renameSync(path, target);
    this.#fd = this.#open();
    this.#sweep();
  }

  #sweep(): void {
    const { path, backupsMax, ageDaysMax, clock } = this.#options;
    const extension = extname(path);
    const prefix = `${basename(path, extension)}-`;
    const old = readdirSync(dirname(path))
      .filter(name => name.startsWith(prefix) && name.endsWith(extension) && /-\d{4}-\d\d-\d\dT/.test(name))
      .map(name => ({ name, atMs: statSync(join(dirname(path), name)).mtimeMs }))
      .sort((a, b) => (a.name < b.name ? 1 : -1));
    for (const [at, { name, atMs }] of old.entries())
      if ((backupsMax > 0 && at >= backupsMax) || (ageDaysMax > 0 && clock.now() - atMs > ageDaysMax * DAY_MS))
        rmSync(join(dirname(path), name), { force: true });
  }
}

/** Upstream's one-line form of before JSON. */
function legacyLine(event: AuditEvent): string {
  const of = event as unknown as {
    user: { username?: string; groups?: readonly string[] };
    sourceIPs?: readonly string[];
    verb: string;
    requestURI: string;
    objectRef?: { namespace?: string };
    impersonatedUser?: { username?: string; groups?: readonly string[] };
    responseStatus?: { code?: number };
    stageTimestamp: string;
  };
  const groups = (list: readonly string[] | undefined) =>
    list?.length ? list.map(one => JSON.stringify(one)).join(',') : '<none>';
  const text = (value: string | undefined, fallback: string) => JSON.stringify(value || fallback);
  return `${of.stageTimestamp} AUDIT: id=${text(event.auditID, '')} stage=${text(event.stage, '')} ip=${text(of.sourceIPs?.[0], '<unknown>')} method=${text(of.verb, '')} user=${text(of.user.username, '<none>')} groups=${JSON.stringify(groups(of.user.groups))} as=${text(of.impersonatedUser?.username, '<self>')} asgroups=${JSON.stringify(of.impersonatedUser?.groups ? groups(of.impersonatedUser.groups) : '<lookup>')} user-agent=${text(event['userAgent'] as string, '')} namespace=${text(of.objectRef?.namespace, '<none>')} uri=${text(of.requestURI, '')} response=${text(of.responseStatus?.code === undefined ? '' : String(of.responseStatus.code), '<deferred>')}\n`;
}
