/**
 * Load by Debian's h2load: a generator in C costs a few microseconds a request, where one in Node costs more than the server
 * and shares its cores. One connection a client, one request at a time each, every request of a run the same.
 */

import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { installPackage } from './package.ts';

const PROGRAM = '/usr/bin/h2load';
/** Linux counts processor time in hundredths of a second. */
const TICK_MS = 10;

export const installH2load = (): void =>
  installPackage({ program: PROGRAM, name: 'nghttp2-client', why: 'makes the load' });

export interface LoadRequest {
  readonly path: string;
  /** Makes it a POST. */
  readonly body?: object;
  readonly clients: number;
}

export interface LoadTarget {
  readonly pid: number;
  readonly port: number;
  readonly token: string;
}

export interface LoadResult {
  /** Of the slowest request where there are several: they count as one. */
  readonly rate: number;
  readonly meanMs: number;
  /** Processor time of the server, and of the generator, for one. */
  readonly cpuUs: number;
  /** Of it the server's main thread: what bounds its rate. */
  readonly mainUs: number;
  readonly generatorUs: number;
}

/** Sends every request `count` times, all of them side by side. Throws when a reply is not a success. */
export async function load(
  { pid, port, token }: LoadTarget,
  options: { directory: string; count: number; requests: readonly LoadRequest[] },
): Promise<LoadResult> {
  const { directory, count, requests } = options;
  const server = cpuMsOf(pid);
  const main = mainThreadUs(pid);
  const generator = childrenCpuMs();
  const runs = await Promise.all(
    requests.map(async ({ path, body, clients }, index) => {
      const posting: string[] = [];
      if (body) {
        const file = join(directory, `body-${index}.json`);
        writeFileSync(file, JSON.stringify(body));
        posting.push('-d', file, '-H', 'content-type: application/json');
      }
      const { stdout } = await promisify(execFile)(PROGRAM, [
        ...['-n', String(count), '-c', String(clients), '-m', '1', '-H', `authorization: Bearer ${token}`],
        ...posting,
        `https://127.0.0.1:${port}${path}`,
      ]);
      const [, time, unit] = /finished in ([\d.]+)(us|ms|s|m),/.exec(stdout) ?? [];
      if (Number(/status codes: (\d+) 2xx/.exec(stdout)?.[1]) !== count)
        throw new Error(`not all succeeded:\n${stdout}`);
      const seconds = Number(time) * { us: 1e-6, ms: 1e-3, s: 1, m: 60 }[unit as 'us' | 'ms' | 's' | 'm'];
      return { seconds, meanMs: (seconds * 1000 * clients) / count };
    }),
  );
  const cpuUs = ((cpuMsOf(pid) - server) * 1000) / count;
  const mainUs = (mainThreadUs(pid) - main) / count;
  return {
    rate: count / Math.max(...runs.map(run => run.seconds)),
    meanMs: Math.max(...runs.map(run => run.meanMs)),
    cpuUs,
    mainUs,
    generatorUs: ((childrenCpuMs() - generator) * 1000) / count,
  };
}

const statOf = (pid: number | 'self') => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');

function cpuMsOf(pid: number): number {
  const fields = statOf(pid);
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}
const mainThreadUs = (pid: number): number =>
  Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1000;

// Of those that ended.
function childrenCpuMs(): number {
  const fields = statOf('self');
  return (Number(fields[13]) + Number(fields[14])) * TICK_MS;
}
