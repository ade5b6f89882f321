/**
 * What 10 000 probes cost a node: processor time for each and in all, for HTTP and TCP probes at the usual period of ten seconds, by
 * the kubelet's own probe loops against servers in another process. The floor is the least that Node can do for the same answer: a
 * socket, one write, one read.
 */

import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Container, Probe } from '../src/api/core/v1.gen.ts';
import { systemClock } from '../src/base/clock.ts';
import { systemRandom } from '../src/base/random.ts';
import { ContainerProbes } from '../src/kubelet/probes/container-probes.ts';

const PROBES = 10_000;
const PERIOD_SECONDS = 10;
const LOOK_SECONDS = 20;
const PORTS = 100;
const FLOOR_REQUESTS = 4000;
const FLOOR_AT_ONCE = 50;

const SERVER = `
const http = require('node:http');
const ports = [];
for (let i = 0; i < ${PORTS}; i++) {
  const server = http.createServer((_, response) => response.end('ok')).listen(0, '127.0.0.1', 4096, () => {
    ports.push(server.address().port);
    if (ports.length === ${PORTS}) console.log(JSON.stringify(ports));
  });
}
process.stdin.resume().on('end', () => process.exit());
`;
const child = spawn(process.execPath, ['-e', SERVER], { stdio: ['pipe', 'pipe', 'inherit'] });
const ports = await new Promise<number[]>(resolve =>
  child.stdout.once('data', line => resolve(JSON.parse(String(line)) as number[])),
);
const port = (i: number) => ports[i % PORTS]!;

/** Microseconds of processor time for each of what `work` does `count` times. */
async function cost(count: () => number, work: () => Promise<void>): Promise<{ each: number; percent: number }> {
  const [before, start, counted] = [process.cpuUsage(), performance.now(), count()];
  await work();
  const { user, system } = process.cpuUsage(before);
  const done = count() - counted;
  return { each: (user + system) / done, percent: (user + system) / (performance.now() - start) / 10 };
}

function bare(kind: 'httpGet' | 'tcpSocket', i: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port: port(i) });
    const end = () => {
      socket.destroy();
      resolve();
    };
    socket.on('error', reject);
    socket.on('connect', () => {
      if (kind === 'tcpSocket') return end();
      socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
      socket.on('data', end);
    });
  });
}

try {
  for (const kind of ['httpGet', 'tcpSocket'] as const) {
    let floorDone = 0;
    const floor = await cost(
      () => floorDone,
      async () => {
        await Promise.all(
          Array.from({ length: FLOOR_AT_ONCE }, async (_, worker) => {
            for (let i = worker; i < FLOOR_REQUESTS; i += FLOOR_AT_ONCE) {
              await bare(kind, i);
              floorDone++;
            }
          }),
        );
      },
    );
    let failures = 0;
    const all = Array.from({ length: PROBES }, (_, i) => {
      const probe: Probe = { periodSeconds: PERIOD_SECONDS, timeoutSeconds: 5, [kind]: { port: port(i), path: '/' } };
      return new ContainerProbes({
        container: { name: 'c', livenessProbe: probe } as Container,
        startedMs: systemClock.now(),
        target: { podIp: '127.0.0.1', container: { name: 'c' } as Container, exec: () => Promise.reject(new Error()) },
        clock: systemClock,
        random: systemRandom,
        wasReady: true,
        probed: () => {},
        told: () => failures++,
        changed: () => {},
      });
    });
    // Every probe has had its first turn.
    await sleep(PERIOD_SECONDS * 1000);
    let asked = 0;
    const { each, percent } = await cost(
      () => asked,
      async () => {
        await sleep(LOOK_SECONDS * 1000);
        asked = (PROBES * LOOK_SECONDS) / PERIOD_SECONDS;
      },
    );
    for (const one of all) one.stop();
    const mebibytes = (process.memoryUsage().rss / 2 ** 20).toFixed(0);
    console.log(
      `${PROBES} ${kind} probes every ${PERIOD_SECONDS} s: ${each.toFixed(0)} µs each (floor ${floor.each.toFixed(0)}), ` +
        `${percent.toFixed(0)} % of a processor, ${mebibytes} MiB, ${failures} failed`,
    );
  }
} finally {
  child.stdin.end();
}
