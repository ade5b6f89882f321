/**
 * The process that carries connections through ports of 127.0.0.1 where the kernel may not (`route_localnet` stays off). It outlives
 * who started it: a table of ports arrives on a socket file, each replacing the one before, and holds until the next; in between
 * it needs nobody. It ends when it has no ports and no open streams, or when its folder is taken away, as `cox down` does.
 * A table of another version makes it give up its ports, so that a newer relay can have them; its open streams go on.
 */

import { chmodSync, rmSync, statSync, watch } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { messageOf } from '../base/errors.ts';
import type { NetnsRef } from '../sys/netns.ts';
import { type RelayPort, type RelayTarget, relayTcp, relayUdp } from './relay-sockets.ts';

const FOLDER_LOOK_MS = 500;

/** Of what is said on the socket file. */
export const RELAY_VERSION = 1;

export interface RelayEntry {
  readonly protocol: 'TCP' | 'UDP';
  readonly port: number;
  /** None: connections are refused. */
  readonly targets: readonly RelayTarget[];
}

/** One line each way. */
export interface RelayTable {
  readonly version: number;
  readonly entries: readonly RelayEntry[];
}

export interface RelayAnswer {
  readonly version: number;
  /** What could not be opened, and why; tried again with the next table. */
  readonly refused: readonly { readonly protocol: 'TCP' | 'UDP'; readonly port: number; readonly message: string }[];
}

export interface RelayOptions {
  /** Its own, which goes when it is to go; with its socket file in it. */
  readonly folder: string;
  /** Where its ports are; where the process is when absent. */
  readonly namespace?: NetnsRef;
}

export const relaySocket = (folder: string): string => join(folder, 'socket');

/** Resolves when there is nothing left to do. */
export function runRelay({ folder, namespace }: RelayOptions): Promise<void> {
  const socket = relaySocket(folder);
  return new Promise((resolve, reject) => {
    const ports = new Map<string, RelayPort>();
    const closing = new Set<RelayPort>();
    const clients = new Set<Socket>();
    let isRetired = false;
    // The kernel tells of a folder's end once nothing of it is held, which its own open log may be: so it is looked for.
    const giveUp = () => {
      isRetired = true;
      setInterval(() => inodeOf(folder) === undefined && process.exit(0), FOLDER_LOOK_MS).unref();
    };
    const retire = () => {
      if (!isRetired) {
        giveUp();
        // The file goes first: who comes from now on starts another.
        rmSync(socket, { force: true });
        server.close();
      }
      endWhenIdle();
    };
    const endWhenIdle = () => {
      for (const port of closing) if (port.open === 0) closing.delete(port);
      if (!isRetired || ports.size > 0 || closing.size > 0) return;
      folderWatch.close();
      resolve();
    };
    const closePort = (key: string, port: RelayPort) => {
      port.close();
      ports.delete(key);
      closing.add(port);
    };
    const apply = (entries: readonly RelayEntry[]): RelayAnswer['refused'] => {
      const wanted = new Map(entries.map(entry => [`${entry.protocol}/${entry.port}`, entry]));
      for (const [key, port] of ports) if (!wanted.has(key)) closePort(key, port);
      return [...wanted].flatMap(([key, { protocol, port, targets }]) => {
        const open = ports.get(key);
        if (open) {
          open.targets = targets;
          return [];
        }
        try {
          const options = { port, targets, onIdle: endWhenIdle, ...(namespace === undefined ? {} : { namespace }) };
          ports.set(key, protocol === 'TCP' ? relayTcp(options) : relayUdp(options));
          return [];
        } catch (error) {
          return [{ protocol, port, message: messageOf(error) }];
        }
      });
    };
    const answer = (line: string): RelayAnswer => {
      const table = JSON.parse(line) as RelayTable;
      const entries = table.version === RELAY_VERSION ? table.entries : [];
      const refused = apply(entries);
      if (entries.length === 0) retire();
      else endWhenIdle();
      return { version: RELAY_VERSION, refused };
    };
    const server = createServer(client => {
      clients.add(client);
      client.on('close', () => clients.delete(client)).on('error', () => client.destroy());
      createInterface({ input: client }).on('line', line => {
        try {
          client.write(`${JSON.stringify(answer(line))}\n`);
          if (isRetired) for (const each of clients) each.end();
        } catch {
          client.destroy();
        }
      });
    });
    let own: number | undefined;
    const listen = () =>
      server.listen(socket, () => {
        chmodSync(socket, 0o600);
        own = inodeOf(socket);
      });
    server.once('error', async error => {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') return reject(error);
      server.once('error', reject);
      // Somebody was quicker: then there is nothing to do here. Or a dead one left its file.
      if (!(await isAnswered(socket))) {
        rmSync(socket, { force: true });
        listen();
      } else {
        folderWatch.close();
        resolve();
      }
    });
    listen();
    const folderWatch = watch(folder, () => {
      const now = inodeOf(socket);
      if (inodeOf(folder) === undefined || (now === undefined && own !== undefined && !isRetired)) process.exit(0);
      // Another took this one for dead: it is told all there is to do. Closing the server would take that one's file away.
      if (now !== own && own !== undefined && !isRetired) {
        giveUp();
        server.unref();
        apply([]);
        for (const client of clients) client.end();
        endWhenIdle();
      }
    });
  });
}

function isAnswered(socket: string): Promise<boolean> {
  return new Promise(resolve => {
    const probe = connect(socket, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}
