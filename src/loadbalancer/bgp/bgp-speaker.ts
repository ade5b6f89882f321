/**
 * Announces by BGP through bird, which runs beside this process and outlives it: a session ends when the node does, not when
 * its agent is started again. Invariant: bird runs only while this node has a peer; a configuration that bird refuses leaves
 * the former one in force.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { BGPAdvertisement, BGPPeer } from '../../api/loadbalancer/v1beta1.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { EventRecorder } from '../../client/event-recorder.ts';
import { netnsPath } from '../../sys/netns.ts';
import { type BgpTable, birdConfiguration } from './bird-configuration.ts';

const BIRD = '/usr/sbin/bird';
const START_MS_MAX = 3000;
const REPLY_MS_MAX = 3000;

export interface BgpSpeakerOptions {
  readonly nodeName: string;
  readonly nodeAddress: string;
  readonly runDir: string;
  readonly namespace?: string;
  readonly events: EventRecorder;
  /** bird is gone: `apply` has to be called again. */
  readonly ended: () => void;
  readonly log: Logger;
  readonly clock: Clock;
}

export class BgpSpeaker {
  readonly #options: BgpSpeakerOptions;
  readonly #socketPath: string;
  readonly #configurationPath: string;
  /** What bird has been told; undefined when that is not known. */
  #told: string | undefined;
  #reported = new Map<string, string>();
  /** Open while bird lives, whoever started it. */
  #lifeline: Socket | undefined;

  constructor(options: BgpSpeakerOptions) {
    this.#options = options;
    this.#socketPath = join(options.runDir, 'bird.ctl');
    this.#configurationPath = join(options.runDir, 'bird.conf');
  }

  /** Rejects when bird does not do as told; the caller tries again. */
  async apply(table: BgpTable): Promise<void> {
    const { text, problems } = birdConfiguration(table, this.#options.nodeAddress);
    this.#report(problems);
    if (text === undefined) {
      if (this.#told !== undefined || existsSync(this.#socketPath)) await this.shutDown();
      return;
    }
    if (!existsSync(BIRD)) {
      const problem = `bird is not installed on the machine of ${this.#options.nodeName}: apt-get install bird2`;
      this.#report(new Map(table.peers.map(peer => [peer, problem])));
      return;
    }
    if (text === this.#told) return;
    mkdirSync(this.#options.runDir, { recursive: true, mode: 0o700 });
    writeFileSync(this.#configurationPath, text, { mode: 0o600 });
    if (await this.#isRunning()) await this.command('configure');
    else await this.#start();
    this.#told = text;
    this.#watchLife();
  }

  /** Withdraws everything and ends bird. */
  async shutDown(): Promise<void> {
    this.#told = undefined;
    await this.stop();
    try {
      await this.command('down');
    } catch {
      // It was not running.
    }
    rmSync(this.#socketPath, { force: true });
  }

  /** bird goes on without this process. */
  async stop(): Promise<void> {
    this.#lifeline?.removeAllListeners('close').destroy();
    this.#lifeline = undefined;
  }

  #watchLife(): void {
    if (this.#lifeline) return;
    const lifeline = connect(this.#socketPath);
    lifeline.on('error', () => {});
    lifeline.on('data', () => {});
    lifeline.once('close', () => {
      this.#options.log.warn('bird is gone, starting it again');
      this.#lifeline = undefined;
      this.#told = undefined;
      this.#options.ended();
    });
    this.#lifeline = lifeline;
  }

  /** One command of `birdc`; resolves with bird's reply, rejects with its refusal. */
  command(text: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.#socketPath);
      let reply = '';
      socket.setTimeout(REPLY_MS_MAX, () => socket.destroy(new Error(`bird did not answer "${text}"`)));
      socket.on('error', reject);
      socket.on('connect', () => socket.write(`${text}\n`));
      socket.on('data', bytes => {
        reply += bytes;
        // Four digits and a blank begin a reply's last line; the greeting is a reply of its own.
        const ends = reply.match(/^(\d{4})(?: .*)?\n/gm) ?? [];
        if (ends.length < 2) return;
        socket.destroy();
        const code = Number(ends[1]!.slice(0, 4));
        const said = reply.slice(reply.indexOf('\n') + 1).trim();
        if (code >= 8000) reject(new Error(`bird refused "${text}": ${said}`));
        else resolve(said);
      });
      socket.on('close', () => resolve(reply));
    });
  }

  async #isRunning(): Promise<boolean> {
    try {
      await this.command('show status');
      return true;
    } catch {
      return false;
    }
  }

  async #start(): Promise<void> {
    const { runDir, namespace, clock, log } = this.#options;
    rmSync(this.#socketPath, { force: true });
    const logPath = join(runDir, 'bird.log');
    const output = openSync(logPath, 'w', 0o600);
    const command = [BIRD, '-f', '-c', this.#configurationPath, '-s', this.#socketPath];
    const [program, ...args] =
      namespace === undefined ? command : ['/usr/bin/nsenter', `--net=${netnsPath(namespace)}`, '--', ...command];
    const child: ChildProcess = spawn(program!, args, { detached: true, stdio: ['ignore', output, output], cwd: '/' });
    closeSync(output);
    let ended: string | undefined;
    child.once('error', error => {
      ended = messageOf(error);
    });
    child.once('exit', code => {
      ended = `bird ended with code ${code}; its log: ${logPath}`;
    });
    child.unref();
    const deadline = clock.monotonic() + START_MS_MAX;
    while (!(await this.#isRunning())) {
      if (ended !== undefined) throw new Error(ended);
      if (clock.monotonic() > deadline) throw new Error(`bird does not answer; its log: ${logPath}`);
      await clock.sleep(20);
    }
    log.info('bird started', { pid: child.pid });
  }

  #report(problems: ReadonlyMap<BGPPeer | BGPAdvertisement, string>): void {
    const reported = new Map<string, string>();
    for (const [object, problem] of problems) {
      const key = `${object.kind}/${object.metadata.name}`;
      reported.set(key, problem);
      if (this.#reported.get(key) !== problem) this.#options.events.event(object, 'Warning', 'NotAnnounced', problem);
    }
    this.#reported = reported;
  }
}
