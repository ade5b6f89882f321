/**
 * Throughput through a cluster IP beside straight to the pod's, TCP, on one node and between two: iperf3 in pods' namespaces, in
 * turn, so that both see the same machine. Processor time for each gigabyte beside it. Run as root:
 * `node26 bench/vip-throughput.ts [rounds]`.
 */

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { netnsPath } from '../src/sys/netns.ts';
import { ServiceBed } from '../test/network/service-bed.ts';
import { median } from './measure.ts';
import { installPackage } from './package.ts';

const ROUNDS = Number(process.argv[2] ?? 9);
const SECONDS = 1;
const run = promisify(execFile);

interface Sample {
  readonly gigabits: number;
  /** Processor time of both ends, in milliseconds a gigabyte: tells the cost where other work disturbs the throughput. */
  readonly cpuMs: number;
}

async function measure(namespace: string, address: string, port: number): Promise<Sample> {
  const { stdout } = await run('nsenter', [
    `--net=${netnsPath(namespace)}`,
    ...['iperf3', '-J', '-c', address, '-p', String(port), '-t', String(SECONDS)],
  ]);
  const { sum_received: received, cpu_utilization_percent: cpu } = JSON.parse(stdout).end;
  // Of the sender and the receiver, each in percent of one processor; the kernel's part of the way runs on their time.
  const busyMs = ((cpu.host_total + cpu.remote_total) / 100) * received.seconds * 1000;
  return { gigabits: received.bits_per_second / 1e9, cpuMs: busyMs / (received.bytes / 1e9) };
}

installPackage({ program: '/usr/bin/iperf3', name: 'iperf3', why: 'makes the traffic' });
const s = await new ServiceBed().start();
const servers = [s.b, s.c].map(pod =>
  spawn('nsenter', [`--net=${netnsPath(pod.namespace)}`, 'iperf3', '-s', '-p', '5201'], { stdio: 'ignore' }),
);
try {
  await Promise.all(servers.map(server => once(server, 'spawn')));
  await new Promise(resolve => setTimeout(resolve, 300));
  for (const [what, pod, n] of [
    ['one node', s.b, 90],
    ['two nodes', s.c, 91],
  ] as const) {
    const vip = `10.96.0.${n}`;
    await s.put({ name: `iperf-${n}`, clusterIP: vip, ports: [{ port: 80, targetPort: 5201 }] }, [s.on(pod)]);
    const samples: { vip: Sample[]; pod: Sample[] } = { vip: [], pod: [] };
    for (let round = 0; round < ROUNDS; round++) {
      // Who is first alternates: what else the machine does is spread over both.
      for (const way of round % 2 ? (['vip', 'pod'] as const) : (['pod', 'vip'] as const))
        samples[way].push(
          way === 'vip' ? await measure(s.a.namespace, vip, 80) : await measure(s.a.namespace, pod.ip, 5201),
        );
    }
    const of = (way: 'vip' | 'pod', field: keyof Sample) => median(samples[way].map(sample => sample[field]));
    const ratios = samples.vip.map(({ gigabits }, i) => gigabits / samples.pod[i]!.gigabits);
    const costs = samples.pod.map(({ cpuMs }, i) => cpuMs / samples.vip[i]!.cpuMs);
    console.log(
      `${what}: VIP ${of('vip', 'gigabits').toFixed(2)} Gbit/s (${of('vip', 'cpuMs').toFixed(0)} ms CPU/GB), pod ${of('pod', 'gigabits').toFixed(2)} Gbit/s (${of('pod', 'cpuMs').toFixed(0)} ms CPU/GB), ratio ${median(ratios).toFixed(3)} round by round, by processor time ${median(costs).toFixed(3)}   (budget 0.97)`,
    );
  }
} finally {
  for (const server of servers) server.kill();
  await s.close();
}
