/**
 * The way to the relay process (`relay-process.ts`): starts one when there is a first port, finds the one that an earlier process of ours
 * started, tells it each new table, and starts another when it dies. Closing leaves it alone with what it was last told.
 */

import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Clock, systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { RELAY_VERSION, type RelayAnswer, type RelayEntry, type RelayTable, relaySocket } from './relay-process.ts';

const RETRY_MS_MIN = 10;
const RETRY_MS_MAX = 2000;

interface Connection {
  readonly socket: Socket;
  answer: ((answer: RelayAnswer | undefined) => void) | undefined;
}

/** How the process is started: it is given its folder as one more argument. */
export interface RelayStart {
  readonly command: readonly string[];
  /** Its only inherited descriptor, as number 3. */
  readonly descriptor?: number;
}

export class RelayDoor {
  readonly #start: RelayStart;
  readonly #folder: string;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #onRefused: (refused: RelayAnswer['refused']) => void;
  readonly #stop = new AbortController();
  /** What it is to be told, and was last. */
  #line = '';
  #told: string | undefined;
  #isEmpty = true;
  #connection: Connection | undefined;
  #hasRefused = false;
  #isBusy = false;
  /** A relay was started and neither answers yet nor has ended. */
  #isStarting = false;

  constructor(options: {
    readonly start: RelayStart;
    /** The relay's own; taken away, it ends the relay. */
    readonly folder: string;
    readonly log: Logger;
    readonly clock?: Clock;
    /** Called after each table that was taken. */
    readonly onRefused?: (refused: RelayAnswer['refused']) => void;
  }) {
    this.#start = options.start;
    this.#folder = options.folder;
    this.#log = options.log.with({ part: 'relay' });
    this.#clock = options.clock ?? systemClock;
    this.#onRefused = options.onRefused ?? (() => {});
  }

  /** Replaces all that was given before, soon. Ports that were refused are tried again even if nothing changed. */
  apply(entries: readonly RelayEntry[]): void {
    const table: RelayTable = { version: RELAY_VERSION, entries };
    this.#line = `${JSON.stringify(table)}\n`;
    this.#isEmpty = entries.length === 0;
    void this.#tell();
  }

  close(): void {
    this.#stop.abort();
    this.#connection?.socket.destroy();
  }

  // Until the relay has the newest table: one at a time.
  async #tell(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    if (this.#hasRefused) this.#told = undefined;
    const { signal } = this.#stop;
    let retryMs = RETRY_MS_MIN;
    while (!signal.aborted && this.#told !== this.#line) {
      const line = this.#line;
      const answer = await this.#ask(line);
      if (answer?.version === RELAY_VERSION) {
        this.#told = line;
        this.#hasRefused = answer.refused.length > 0;
        this.#onRefused(answer.refused);
        retryMs = RETRY_MS_MIN;
        continue;
      }
      // A relay of another version has given its ports up; with none there is nothing to open.
      if (this.#isEmpty) {
        this.#told = this.#line;
        continue;
      }
      if (!this.#isStarting) this.#spawn();
      await this.#clock.sleep(retryMs, signal);
      retryMs = Math.min(retryMs * 1.5, RETRY_MS_MAX);
    }
    this.#isBusy = false;
  }

  async #ask(line: string): Promise<RelayAnswer | undefined> {
    const connection = this.#connection ?? (await this.#connect());
    if (!connection) return undefined;
    return new Promise(resolve => {
      connection.answer = answer => {
        connection.answer = undefined;
        resolve(answer);
      };
      connection.socket.write(line);
    });
  }

  #connect(): Promise<Connection | undefined> {
    return new Promise(resolve => {
      const socket = connect(relaySocket(this.#folder));
      const connection: Connection = { socket, answer: undefined };
      socket.on('connect', () => {
        this.#connection = connection;
        this.#isStarting = false;
        resolve(connection);
      });
      socket.on('error', () => {});
      socket.on('close', () => {
        resolve(undefined);
        connection.answer?.(undefined);
        if (this.#connection !== connection) return;
        this.#connection = undefined;
        this.#told = undefined;
        if (!this.#isEmpty) void this.#tell();
      });
      createInterface({ input: socket })
        .on('line', line => connection.answer?.(JSON.parse(line) as RelayAnswer))
        .on('error', () => {});
    });
  }

  #spawn(): void {
    const [program, ...args] = this.#start.command;
    const { descriptor } = this.#start;
    try {
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
      const log = openSync(join(this.#folder, 'log'), 'a', 0o600);
      try {
        const child = spawn(program!, [...args, this.#folder], {
          detached: true,
          cwd: '/',
          stdio: ['ignore', log, log, ...(descriptor === undefined ? [] : [descriptor])],
        });
        this.#isStarting = true;
        const ended = () => {
          this.#isStarting = false;
        };
        child.on('exit', ended).on('error', error => {
          ended();
          this.#log.warn('relay does not start', { error: messageOf(error) });
        });
        child.unref();
      } finally {
        closeSync(log);
      }
    } catch (error) {
      this.#log.warn('relay does not start', { error: messageOf(error) });
    }
  }
}
