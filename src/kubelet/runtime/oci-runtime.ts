/**
 * The programs that make containers by the OCI's runtime specification, crun and runc: which one a machine's pods get, and how a
 * container that is made begins to run its program. Invariant: what is asked of a container is asked of the program that made it.
 */

import { constants, existsSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { mixedHierarchies } from '../../sys/cgroup.ts';
import { isNullDeviceKept } from '../../sys/null-device.ts';
import { FIFO } from './folders.ts';

export type OciName = 'crun' | 'runc';

/** A container whose init waits; its state lies in a folder of the program's root. */
export interface Waiting {
  readonly id: string;
  /** Whether its first process lives. */
  isAlive(): boolean;
}

export interface OciRuntime {
  readonly name: OciName;
  readonly program: string;
  /** Where it keeps a folder a container. */
  readonly root: string;
  /** What its command `start` does, without a process. Rejects where the container's init has ended before. */
  release(container: Waiting, clock: Clock): Promise<void>;
}

const START_WAIT_MS_MAX = 120_000;
const PROGRAMS: Readonly<Record<OciName, readonly string[]>> = {
  crun: ['/usr/bin/crun'],
  runc: ['/usr/sbin/runc', '/usr/bin/runc'],
};

/** Those that are installed here, with one root for their containers' state. */
export class OciRuntimes {
  readonly #programs: ReadonlyMap<OciName, OciRuntime>;
  readonly #default: OciName;
  /** Those that make containers here, the best first. */
  readonly names: readonly OciName[];

  constructor(root: string) {
    const installed = (['crun', 'runc'] as const).filter(name => programOf(name));
    this.#programs = new Map(installed.map(name => [name, ociRuntime(name, root)]));
    this.names = installed.filter(isUsable);
    this.#default = this.names[0] ?? 'runc';
  }

  /** Handlers that name no program mean the best one. */
  forHandler(handler: string | undefined): OciName {
    return this.names.find(name => name === handler) ?? this.#default;
  }
  /** Throws where it is not installed, or not any more. */
  get(name: OciName): OciRuntime {
    const found = this.#programs.get(name);
    if (!found) throw new Error(`${name} cannot run containers here: is it installed?`);
    return found;
  }
}

// crun (1.8) refuses hierarchies of version 1 beside controllers of version 2, and gives /dev/null away where it can.
function isUsable(name: OciName): boolean {
  return name !== 'crun' || (mixedHierarchies().length === 0 && isNullDeviceKept());
}

function programOf(name: OciName): string | undefined {
  return PROGRAMS[name].find(path => existsSync(path));
}

export function ociRuntime(name: OciName, root: string): OciRuntime {
  const program = programOf(name) ?? PROGRAMS[name][0]!;
  const fifoOf = (id: string) => join(root, id, FIFO);
  return { name, program, root, release: name === 'crun' ? releaseCrun : releaseRunc };

  // crun's init waits for a byte.
  async function releaseCrun({ id }: Waiting): Promise<void> {
    const fifo = fifoOf(id);
    try {
      const handle = await open(fifo, constants.O_WRONLY | constants.O_NONBLOCK);
      try {
        await handle.write('0');
      } finally {
        await handle.close();
      }
    } catch (error) {
      if (!['ENXIO', 'EPIPE'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      throw new Error('container process ended before it could be started');
    }
    rmSync(fifo, { force: true });
  }

  // runc's waits until somebody takes its byte.
  async function releaseRunc(container: Waiting, clock: Clock): Promise<void> {
    const fifo = fifoOf(container.id);
    const handle = await open(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const byte = Buffer.alloc(1);
      const endMs = clock.monotonic() + START_WAIT_MS_MAX;
      for (;;) {
        // Asked before the read: a program that is over by the time of the answer has left its byte by then.
        const hasEnded = !container.isAlive();
        let bytesRead = 0;
        try {
          ({ bytesRead } = await handle.read(byte, 0, 1));
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
        }
        if (bytesRead > 0) break;
        if (hasEnded) throw new Error('container process ended before it could be started');
        if (clock.monotonic() > endMs) throw new Error('container process did not start in time');
        await clock.sleep(1);
      }
    } finally {
      await handle.close();
    }
    rmSync(fifo, { force: true });
  }
}
