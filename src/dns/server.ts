/**
 * The cluster's DNS server: UDP and TCP on its addresses, answering as its Corefile says. A question about the cluster is
 * answered on the spot from the zone; any other goes through the stages of its server block and may take a while. A faulty
 * Corefile is told and changes nothing. It refuses zone transfers, and classes other than IN.
 */

import type { Clock } from '../base/clock.ts';
import { systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { MetricsRegistry } from '../base/metrics.ts';
import { type Random, systemRandom } from '../base/random.ts';
import { formatAddress } from '../sys/address.ts';
import { ClusterRecords, type InformerSource } from './cluster-records.ts';
import { Configuration, defaultCorefile, type ServerBlock } from './configuration.ts';
import { CorefileError } from './corefile.ts';
import { HttpEndpoints } from './http-endpoints.ts';
import { type Listener, listenTcp, listenUdp, type Peer } from './listeners.ts';
import {
  type Answer,
  bareAnswer,
  CLASS_IN,
  FLAG,
  OPT_BYTES,
  Query,
  RCODE,
  TCP_BYTES_MAX,
  TYPE,
  UDP_BYTES_MAX,
  writeReply,
} from './message.ts';
import type { Reply } from './plugins/plugin.ts';
import { recordsOf, textOf } from './records.ts';
import { RequestStatistics } from './request-statistics.ts';

export interface DnsServerOptions {
  readonly informers: InformerSource;
  /** Default `cluster.local`. */
  readonly clusterDomain?: string;
  /** Port 0 takes a free one, with one address; `bound` tells which. */
  readonly listen: {
    readonly addresses: readonly string[];
    readonly port: number;
    /** Of the first address and the port: a bound UDP socket that outlives this process. */
    readonly socket?: number;
  };
  /** What to answer; `configure` changes it. Default: kubeadm's Corefile for the cluster domain. */
  readonly corefile?: string;
  /** Content of a file that the Corefile names. Default: there are none. */
  readonly readFile?: (path: string) => string | undefined;
  /** Hears what an administrator should know: a Corefile that was refused, a loop. */
  readonly onWarning?: (reason: string, message: string) => void;
  /** Hears of addresses outside the cluster before whoever asked does. */
  readonly listener?: AnswerListener;
  /** Whether the end waits as long as `health { lameduck }` says. */
  readonly drains?: boolean;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
}

export interface AnswerListener {
  /** While it is false nothing is told. */
  readonly isListening: boolean;
  /** The name that was asked for and those that it leads to; their addresses. */
  hear(names: readonly string[], answers: readonly { readonly address: string; readonly ttlSeconds: number }[]): void;
}

/** A reply that was given, nothing, or a promise. */
const ANSWERED_LATER = -1;
const NO_ANSWER = 0;

const FORMERR = bareAnswer(RCODE.FORMERR);
const NOTIMP = bareAnswer(RCODE.NOTIMP);
const REFUSED = bareAnswer(RCODE.REFUSED);
const SERVFAIL = bareAnswer(RCODE.SERVFAIL);
const BADVERS = bareAnswer(RCODE.BADVERS);
// Equal failures are logged once in this time, with their number.
const ERRORS_EVERY_MS = 5000;
const ERRORS_MAX = 100;

const NOBODY: Peer = { address: 'test' };

/** Where a reply goes: `out` has room for any at `at`. */
interface Destination {
  readonly out: Buffer;
  readonly at: number;
  readonly via: 'udp' | 'tcp';
  readonly peer: Peer;
}

interface Force {
  readonly configuration: Configuration;
  /** Of this configuration: they begin anew with the next, so that nothing of an old one stays. */
  readonly metrics: MetricsRegistry;
  readonly statistics: ReadonlyMap<ServerBlock, RequestStatistics>;
}

export class DnsServer {
  readonly #options: DnsServerOptions;
  readonly #records: ClusterRecords;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #query = new Query();
  readonly #endpoints: HttpEndpoints;
  readonly #failures = new Map<string, number>();
  /** Of this server, whatever its configuration. */
  readonly #metrics = new MetricsRegistry();
  /** All of this server's; the process's other parts have their own. */
  readonly metrics = { render: (): string => this.#metrics.render() + this.#force.metrics.render() };
  #force: Force;
  #corefile: string;
  #isRunning = false;
  #turn = 0;
  #later: { readonly reply: Promise<Answer>; readonly block: ServerBlock; readonly via: 'udp' | 'tcp' } | undefined;
  #resolveBound!: (at: { readonly address: string; readonly port: number }) => void;
  /** Resolves once all sockets listen. */
  readonly bound: Promise<{ readonly address: string; readonly port: number }>;

  /** Throws CorefileError for a faulty `corefile`. */
  constructor(options: DnsServerOptions) {
    this.#options = options;
    this.#log = options.log.with({ component: 'dns' });
    this.#clock = options.clock ?? systemClock;
    const programming = this.#metrics.histogram(
      'coredns_kubernetes_dns_programming_duration_seconds',
      'Histogram of the time (in seconds) it took to program a dns instance.',
      Array.from({ length: 20 }, (_, power) => 0.001 * 2 ** power),
      ['service_kind'],
    );
    this.#records = new ClusterRecords(options.informers, (service, triggeredMs) => {
      const kind = service?.spec?.clusterIP === 'None' ? 'headless_with_selector' : 'cluster_ip';
      programming.observe(Math.max(0, this.#clock.now() - triggeredMs) / 1000, kind);
    });
    this.#endpoints = new HttpEndpoints(options.listen.addresses, this.#log);
    this.#corefile = options.corefile ?? defaultCorefile(options.clusterDomain ?? 'cluster.local');
    this.#force = this.#compile(this.#corefile);
    this.bound = new Promise(resolve => {
      this.#resolveBound = resolve;
    });
  }

  /** Resolves when the cluster is known. */
  synced(): Promise<void> {
    return this.#records.synced();
  }

  /** Answers by this Corefile from now on. A faulty one is told (and returned as the error's message) and changes nothing. */
  configure(corefile: string): string | undefined {
    if (!this.#force.configuration.followsChanges) {
      if (corefile !== this.#corefile)
        this.#warn('CorefileNotFollowed', "the Corefile in force has no 'reload': changes take effect after a restart");
      return undefined;
    }
    let next: Force;
    try {
      next = this.#compile(corefile);
    } catch (error) {
      if (!(error instanceof CorefileError)) throw error;
      this.#metrics.counter('coredns_reload_failed_total', 'Counter of the number of failed reload attempts.').add();
      this.#warn('InvalidCorefile', `${error.message}; the last good configuration stays in force`);
      return error.message;
    }
    const before = this.#force;
    this.#force = next;
    this.#corefile = corefile;
    before.configuration.stop();
    if (this.#isRunning) this.#begin();
    this.#log.info('configuration in force', { zones: next.configuration.blocks.map(block => block.zone).join(' ') });
    return undefined;
  }

  #compile(corefile: string): Force {
    const metrics = new MetricsRegistry();
    const configuration = new Configuration(corefile, {
      records: this.#records,
      addresses: this.#options.listen.addresses,
      readFile: this.#options.readFile ?? (() => undefined),
      warn: (reason, message) => this.#warn(reason, message),
      metrics,
      renderMetrics: () => this.metrics.render(),
      log: this.#log,
      clock: this.#clock,
      random: this.#options.random ?? systemRandom,
    });
    const family = this.#options.listen.addresses[0]?.includes(':') ? '2' : '1';
    const statistics = new Map(
      configuration.blocks.map(block => [block, new RequestStatistics(metrics, { ...block, family })]),
    );
    return { configuration, metrics, statistics };
  }

  #begin(): void {
    const { configuration } = this.#force;
    configuration.start();
    this.#endpoints.serve(configuration.blocks.flatMap(block => block.settings.endpoints));
  }

  #warn(reason: string, message: string): void {
    this.#log.warn(message, { reason });
    this.#options.onWarning?.(reason, message);
  }

  /** Listens and serves until the signal aborts; rejects when it cannot listen. */
  async run(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { addresses, port: wantedPort, socket } = this.#options.listen;
    const listeners: Listener[] = [];
    let port = wantedPort;
    try {
      for (const address of addresses) {
        const answerer = {
          now: (message: Buffer, start: number, end: number, out: Buffer, at: number, peer: Peer) =>
            this.#reply(message, start, end, { out, at, via: 'udp', peer }),
          later: (message: Buffer) => this.#finish(message),
        };
        const udp = await listenUdp(
          { address, port, socket: address === addresses[0] ? socket : undefined },
          answerer,
          this.#log,
        );
        listeners.push(udp);
        port = udp.port;
        listeners.push(
          await listenTcp(
            { address, port },
            { resolve: (message, remote) => this.resolve(message, 'tcp', remote) },
            this.#log,
          ),
        );
      }
    } catch (error) {
      for (const listener of listeners) listener.close();
      throw error;
    }
    this.#isRunning = true;
    this.#begin();
    this.#resolveBound({ address: addresses[0]!, port });
    this.#log.debug('listening', { addresses: addresses.join(' '), port });
    const failures = setInterval(() => this.#logFailures(), ERRORS_EVERY_MS).unref();
    await new Promise<void>(resolve => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
    if (this.#options.drains) {
      const lameDuckMs = Math.max(...this.#force.configuration.blocks.map(block => block.settings.lameDuckMs));
      this.#endpoints.close();
      await this.#clock.sleep(lameDuckMs);
    }
    clearInterval(failures);
    this.#isRunning = false;
    this.#force.configuration.stop();
    this.#endpoints.close();
    for (const listener of listeners) listener.close();
  }

  /** The reply to a query as over UDP; undefined when there is none or somebody else must be asked. For tests and benchmarks. */
  answer(query: Buffer): Buffer | undefined {
    const out = Buffer.allocUnsafe(Math.max(UDP_BYTES_MAX, query.length + OPT_BYTES));
    const bytes = this.#reply(query, 0, query.length, { out, at: 0, via: 'udp', peer: NOBODY });
    this.#later?.reply.catch(() => {});
    return bytes > 0 ? out.subarray(0, bytes) : undefined;
  }

  /** The reply to a query, others asked where needed; undefined when it deserves none. Never rejects. */
  async resolve(query: Buffer, via: 'udp' | 'tcp', remote: string): Promise<Buffer | undefined> {
    const out = Buffer.allocUnsafe(via === 'udp' ? Math.max(UDP_BYTES_MAX, query.length + OPT_BYTES) : TCP_BYTES_MAX);
    const bytes = this.#reply(query, 0, query.length, { out, at: 0, via, peer: { address: remote } });
    if (bytes === ANSWERED_LATER) return this.#finish(query);
    return bytes > 0 ? Buffer.from(out.subarray(0, bytes)) : undefined;
  }

  // Never throws. What it hands over to #finish is the promise in #later, which the caller takes at once.
  #reply(message: Buffer, start: number, end: number, to: Destination): number {
    const query = this.#query;
    const code = query.parse(message, start, end);
    if (code === undefined) return NO_ANSWER;
    let answer: Answer;
    let turn = 0;
    if (code !== RCODE.NOERROR) answer = code === RCODE.NOTIMP ? NOTIMP : code === RCODE.BADVERS ? BADVERS : FORMERR;
    else if (query.class !== CLASS_IN || query.type === TYPE.AXFR || query.type === TYPE.IXFR) answer = REFUSED;
    else {
      const block = this.#force.configuration.blockFor(query.name);
      const found = block ? this.#lookUp(block, query, to) : REFUSED;
      if (found instanceof Promise) {
        this.#later = { reply: found, block: block!, via: to.via };
        return ANSWERED_LATER;
      }
      answer = found;
      if (block?.settings.rotates) turn = this.#turn++;
    }
    const bytesMax = to.via === 'tcp' ? TCP_BYTES_MAX : Math.min(query.udpBytesMax, UDP_BYTES_MAX);
    return writeReply(query, answer, message, start, to.out, to.at, { bytesMax, turn });
  }

  // The hot path: a zone's ready answer. Anything else goes through the block's stages.
  #lookUp(block: ServerBlock, query: Query, to: Destination): Reply {
    const statistics = this.#force.statistics.get(block)!;
    statistics.request(query.type, to.via);
    try {
      const { direct } = block;
      for (let index = 0; index < direct.length; index++) {
        const answer = direct[index]!.lookup(query.name, query.type);
        if (answer === undefined) continue;
        if (answer.chase !== undefined || (answer.rcode === RCODE.NXDOMAIN && !this.#records.hasSynced)) break;
        statistics.reply(answer.rcode, 0);
        return answer;
      }
      const reply = block.answer({
        name: query.name,
        type: query.type,
        via: to.via,
        dnssecOk: query.dnssecOk,
        checkingDisabled: (query.flags & FLAG.CD) !== 0,
        recursionDesired: (query.flags & FLAG.RD) !== 0,
        remote: to.peer.address,
        depth: 0,
      });
      if (reply instanceof Promise) return reply;
      statistics.reply(reply.rcode, 0);
      this.#tell(reply, query.name);
      return reply;
    } catch (error) {
      this.#metrics.counter('coredns_panics_total', 'A metrics that counts the number of panics.').add();
      this.#log.error('query broke the server', { name: query.name, type: query.type, error: error as Error });
      return SERVFAIL;
    }
  }

  // Never rejects.
  async #finish(message: Buffer): Promise<Buffer> {
    const { reply, block, via } = this.#later!;
    this.#later = undefined;
    const statistics = this.#force.statistics.get(block);
    const startMs = this.#clock.monotonic();
    let answer: Answer;
    try {
      answer = await reply;
    } catch (error) {
      answer = SERVFAIL;
      if (block.settings.logsErrors) this.#countFailure(messageOf(error));
    }
    statistics?.reply(answer.rcode, (this.#clock.monotonic() - startMs) / 1000);
    const query = new Query();
    query.parse(message, 0, message.length);
    this.#tell(answer, query.name);
    const bytesMax = via === 'tcp' ? TCP_BYTES_MAX : Math.min(query.udpBytesMax, UDP_BYTES_MAX);
    const out = Buffer.allocUnsafe(Math.max(bytesMax, message.length + OPT_BYTES));
    const turn = block.settings.rotates ? this.#turn++ : 0;
    return Buffer.from(out.subarray(0, writeReply(query, answer, message, 0, out, 0, { bytesMax, turn })));
  }

  #tell(answer: Answer, name: string): void {
    const { listener } = this.#options;
    if (!listener?.isListening || answer.answers === 0) return;
    try {
      const records = recordsOf(answer, name).filter(({ section }) => section === 'answer');
      const addresses = records.filter(({ type }) => type === TYPE.A || type === TYPE.AAAA);
      if (addresses.length === 0) return;
      listener.hear(
        [...new Set([textOf(name), ...records.map(record => record.name)])],
        addresses.map(({ data, ttlSeconds }) => ({ address: formatAddress(data), ttlSeconds })),
      );
    } catch (error) {
      this.#log.warn('answer not told', { error: messageOf(error) });
    }
  }

  #countFailure(message: string): void {
    const count = this.#failures.get(message);
    if (count === undefined && this.#failures.size >= ERRORS_MAX) return;
    if (count === undefined) this.#log.warn('query not answered', { error: message });
    this.#failures.set(message, (count ?? 0) + 1);
  }
  #logFailures(): void {
    for (const [message, count] of this.#failures)
      if (count > 1) this.#log.warn('queries not answered', { error: message, count });
    this.#failures.clear();
  }
}
