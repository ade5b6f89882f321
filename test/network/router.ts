/** A real router for tests: bird in a namespace on the nodes' segment, speaking BGP and routing by what it learns. */

import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createNodeNamespace, deleteNodeNamespace, SEGMENT } from '../../src/network/segment.ts';
import { netnsPath } from '../../src/sys/netns.ts';

export class Router {
  readonly namespace: string;
  readonly ip: string;
  readonly #ip6: string | undefined;
  readonly #switch: string;
  readonly #directory: string;
  #daemon: ChildProcess | undefined;

  /** `ip6`: of the segment of that family; sessions with neighbours of IPv6 come from there. */
  constructor(options: { switch: string; name: string; ip: string; ip6?: string; directory: string }) {
    this.namespace = options.name;
    this.ip = options.ip;
    this.#ip6 = options.ip6;
    this.#switch = options.switch;
    this.#directory = options.directory;
    const ips = [options.ip, ...(options.ip6 ? [options.ip6] : [])];
    const segments = options.ip6 ? [SEGMENT.IPv4, SEGMENT.IPv6] : [SEGMENT.IPv4];
    createNodeNamespace({ switch: options.switch, name: options.name, ips, segments });
  }

  async start(options: {
    asn: number;
    neighbours: readonly { ip: string; asn: number; password?: string }[];
    bfd?: boolean;
  }): Promise<void> {
    const sessions = options.neighbours.map(
      ({ ip, asn, password }, at) => `protocol bgp node${at} {
  local ${ip.includes(':') ? this.#ip6 : this.ip} as ${options.asn};
  neighbor ${ip} as ${asn};
  ${options.bfd ? 'bfd { min rx interval 50 ms; min tx interval 50 ms; multiplier 3; };' : ''}
  ${password ? `password "${password}";` : ''}
  connect retry time 1; connect delay time 1; error wait time 1, 2;
  graceful restart on;
  ${ip.includes(':') ? 'ipv6' : 'ipv4'} { import all; export none; };
}`,
    );
    const path = join(this.#directory, 'router.conf');
    writeFileSync(
      path,
      `log stderr all;
router id ${this.ip};
protocol device {}
${options.bfd ? 'protocol bfd {}' : ''}
protocol kernel { merge paths on; ipv4 { export all; }; }
protocol kernel { merge paths on; ipv6 { export all; }; }
${sessions.join('\n')}
`,
    );
    this.#daemon = spawn(
      'nsenter',
      [`--net=${netnsPath(this.namespace)}`, '--', '/usr/sbin/bird', '-f', '-c', path, '-s', this.#control],
      { stdio: ['ignore', 'ignore', 'ignore'] },
    );
    for (let tries = 0; tries < 100; tries++) {
      if ((await this.show('status').catch(() => '')).includes('Router ID')) return;
      await new Promise(resolve => setTimeout(resolve, 20));
    }
    throw new Error('the router does not answer');
  }

  /** `birdc show …`. */
  async show(what: string): Promise<string> {
    const { stdout } = await promisify(execFile)('birdc', ['-s', this.#control, 'show', ...what.split(' ')]);
    return stdout;
  }

  /** Where the kernel sends packets to the prefix. */
  nextHops(prefix: string): string[] {
    const routes = execFileSync(
      'ip',
      ['-n', this.namespace, '-j', prefix.includes(':') ? '-6' : '-4', 'route', 'show', prefix],
      { encoding: 'utf8' },
    );
    return (JSON.parse(routes || '[]') as { gateway?: string; nexthops?: { gateway: string }[] }[]).flatMap(
      ({ gateway, nexthops = [] }) => [...(gateway ? [gateway] : []), ...nexthops.map(hop => hop.gateway)],
    );
  }

  upBfdSessions(): number {
    const shown = execFileSync('birdc', ['-s', this.#control, 'show', 'bfd', 'sessions'], { encoding: 'utf8' });
    return shown.split('\n').filter(line => / Up /.test(line)).length;
  }

  async close(): Promise<void> {
    if (this.#daemon && this.#daemon.exitCode === null) {
      this.#daemon.kill('SIGKILL');
      await once(this.#daemon, 'exit');
    }
    deleteNodeNamespace({ switch: this.#switch, name: this.namespace });
  }

  get #control(): string {
    return join(this.#directory, 'router.ctl');
  }
}
