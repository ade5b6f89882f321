/**
 * Keeps a HAProxy at what is desired. It knows what the process holds, and brings it to what it is to hold by the runtime API:
 * endpoints, hosts, paths, certificates. Only what the runtime API cannot say is a reload: a backend of a shape that is not at hand, the
 * listeners, users. Invariants: calls are made one at a time; after an error the state is taken as unknown and the next call reloads.
 */

import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { quote, renderConfiguration, type Section } from './configuration.ts';
import {
  type BackendOf,
  type BackendShape,
  type CertificateEntry,
  type Desired,
  type Maps,
  PLAIN_SHAPE,
} from './desired.ts';
import { ConfigurationRefused, type HaproxyProcess } from './haproxy-process.ts';
import { RUNTIME_SOCKET } from './process-files.ts';
import { RuntimeApi } from './runtime-api.ts';

export interface DataPlaneOptions {
  readonly process: HaproxyProcess;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Backend {
  readonly shape: BackendShape;
  /** Undefined: at hand for a new route, or waiting for the next reload to go. */
  route: string | undefined;
  isSpare: boolean;
  readonly servers: Set<string>;
  /** Taken out, but connections to them may not be over. */
  readonly leaving: Set<string>;
}

interface Live {
  readonly listening: string;
  readonly backends: Map<string, Backend>;
  readonly backendOfRoute: Map<string, string>;
  maps: Maps;
  readonly certificates: Map<string, CertificateEntry>;
}

/** 16 KB each. A quarter more than there are, so that many Ingresses at once cost few reloads. */
const SPARES_MIN = 64;
const SPARE_SHARE = 0.25;
/** Beyond this many changes a map is written anew, at one moment. */
const MAP_CHANGES_MAX = 200;
/** What servers of the configuration have by default and those of `add server` in HAProxy 2.6 do not: connections that are kept. */
const POOL = ['pool-max-conn', '-1', 'pool-purge-delay', '5s'];
/** Commands split at these; other keys go as the payload of a whole map. */
const PLAIN_WORD = /^[A-Za-z0-9._~$:@%/*=+-]+$/;
const CERTIFICATE_BYTES_MAX = 14_000;
const SHUT: BackendShape = {
  key: 'shut',
  lines: [['http-request', 'deny', 'deny_status', '503']],
  serverWords: [],
  cookieKey: undefined,
};

export class DataPlane {
  readonly #options: DataPlaneOptions;
  readonly #api: RuntimeApi;
  readonly #log: Logger;
  #live: Live | undefined;
  /** Shapes that HAProxy did not take. */
  readonly #refused = new Set<string>();
  #rendered: { readonly fromLine: number; readonly backend: Backend }[] = [];
  #count = 0;
  #reloads = 0;

  constructor(options: DataPlaneOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#api = new RuntimeApi(options.process.path(RUNTIME_SOCKET));
  }
  get api(): RuntimeApi {
    return this.#api;
  }
  get reloads(): number {
    return this.#reloads;
  }
  /** The route that a backend serves now. */
  routeOf(backend: string): string | undefined {
    return this.#live?.backends.get(backend)?.route;
  }

  /** Brings the process to what is desired, starting it if need be. False, and all is as it was, when that takes a reload that may not be yet. */
  async apply(desired: Desired, { mayReload }: { readonly mayReload: boolean }): Promise<boolean> {
    const { process } = this.#options;
    if (this.#live && process.isRunning) {
      const live = this.#live;
      try {
        if (await this.#adapt(live, desired)) return true;
        if (!mayReload) return false;
      } catch (error) {
        this.#log.warn('HAProxy is reloaded after a failed change', { error: messageOf(error) });
      }
    }
    this.#live = undefined;
    for (;;) {
      try {
        this.#live = await this.#reload(desired);
        return true;
      } catch (error) {
        if (!(error instanceof ConfigurationRefused) || !this.#shut(error)) throw error;
      }
    }
  }

  /** What HAProxy refuses of one route must not stand in the way of the others: that route is shut. False when it is no route's. */
  #shut(error: ConfigurationRefused): boolean {
    const backend = this.#rendered.findLast(({ fromLine }) => fromLine <= (error.line ?? 0))?.backend;
    if (!backend || this.#refused.has(backend.shape.key)) return false;
    this.#refused.add(backend.shape.key);
    this.#log.error('a route is shut, because HAProxy refuses its settings', {
      route: backend.route ?? '',
      error: error.message,
    });
    return true;
  }

  #allowed(shape: BackendShape): BackendShape {
    return this.#refused.has(shape.key) ? SHUT : shape;
  }

  /** Endpoints alone, of some routes: the quick way. Routes that are not served yet are left to `apply`. */
  async applyServers(routes: Iterable<string>, servers: ReadonlyMap<string, readonly string[]>): Promise<void> {
    const live = this.#live;
    if (!live) return;
    try {
      const changes = [...routes].flatMap(route => {
        const name = live.backendOfRoute.get(route);
        return name === undefined
          ? []
          : [{ name, backend: live.backends.get(name)!, wanted: servers.get(route) ?? [] }];
      });
      await this.#addServers(changes);
      await this.#removeServers(changes);
    } catch (error) {
      this.#live = undefined;
      throw error;
    }
  }

  /** Forgets servers whose connections are over. True when some are left. */
  async sweep(): Promise<boolean> {
    let isLeft = false;
    for (const [name, backend] of this.#live?.backends ?? [])
      for (const server of backend.leaving) {
        const answer = await this.#api.ask(`del server ${name}/${serverName(server)}`);
        if (/deleted|No such server/.test(answer)) backend.leaving.delete(server);
        else isLeft = true;
      }
    return isLeft;
  }

  stop(): void {
    this.#live = undefined;
    this.#options.process.stop();
  }

  /** False when it takes a reload. */
  async #adapt(live: Live, desired: Desired): Promise<boolean> {
    const taken = this.#assign(live, desired);
    if (!taken) return false;
    const backendOf = (route: string) => taken.get(route)!;
    if (renderConfiguration(desired.sections(backendOf)) !== live.listening) return false;
    for (const { pem } of desired.certificates.values()) if (pem.length > CERTIFICATE_BYTES_MAX) return false;
    for (const [route, name] of taken) {
      const backend = live.backends.get(name)!;
      backend.route = route;
      backend.isSpare = false;
    }
    live.backendOfRoute.clear();
    for (const [route, name] of taken) live.backendOfRoute.set(route, name);
    await this.#putCertificates(live, desired.certificates);
    const changes = [...live.backends].map(([name, backend]) => {
      if (backend.route !== undefined && taken.get(backend.route) !== name) backend.route = undefined;
      return { name, backend, wanted: backend.route === undefined ? [] : (desired.servers.get(backend.route) ?? []) };
    });
    await this.#addServers(changes);
    await this.#putMaps(live, desired.maps(backendOf), desired.orderedMaps);
    await this.#removeServers(changes);
    await this.#removeCertificates(live, desired.certificates);
    return true;
  }

  /** A backend for each route, or undefined when a shape is not at hand. A backend that had a route is not given to another. */
  #assign(live: Live, { routes }: Desired): Map<string, string> | undefined {
    const taken = new Map<string, string>();
    const missing: { route: string; shape: BackendShape }[] = [];
    for (const [route, wanted] of routes) {
      const shape = this.#allowed(wanted);
      const name = live.backendOfRoute.get(route);
      if (name !== undefined && live.backends.get(name)!.shape.key === shape.key) taken.set(route, name);
      else missing.push({ route, shape });
    }
    if (missing.length === 0) return taken;
    const spares = [...live.backends].filter(([, backend]) => backend.isSpare).map(([name]) => name);
    for (const { route, shape } of missing) {
      const name = shape.key === '' ? spares.shift() : undefined;
      if (name === undefined) return undefined;
      taken.set(route, name);
    }
    return taken;
  }

  async #reload(desired: Desired): Promise<Live> {
    const { process, clock } = this.#options;
    const started = clock.monotonic();
    const backends = new Map<string, Backend>();
    const backendOfRoute = new Map<string, string>();
    const add = (route: string | undefined, shape: BackendShape, servers: readonly string[]) => {
      const name = `b${this.#count++}`;
      backends.set(name, { shape, route, isSpare: route === undefined, servers: new Set(servers), leaving: new Set() });
      if (route !== undefined) backendOfRoute.set(route, name);
    };
    for (const [route, shape] of desired.routes) add(route, this.#allowed(shape), desired.servers.get(route) ?? []);
    const spares = Math.max(SPARES_MIN, Math.ceil(backends.size * SPARE_SHARE));
    for (let i = 0; i < spares; i++) add(undefined, PLAIN_SHAPE, []);
    const backendOf: BackendOf = route => backendOfRoute.get(route)!;
    const listening = renderConfiguration(desired.sections(backendOf));
    const maps = desired.maps(backendOf);
    for (const [map, entries] of maps)
      process.write(map, [...entries].map(([key, value]) => `${key} ${value}\n`).join(''));
    for (const [file, text] of desired.files) process.write(file, text);
    for (const [file, { pem }] of desired.certificates) process.write(file, `${pem}\n`);
    for (const list of desired.certificateLists)
      process.write(
        list,
        [...desired.certificates]
          .filter(([, entry]) => entry.list === list)
          .map(([file, entry]) => `${listLine(file, entry)}\n`)
          .join(''),
      );
    this.#rendered = [];
    let line = listening.split('\n').length;
    for (const [name, backend] of backends) {
      this.#rendered.push({ fromLine: line, backend });
      line += backendSection(name, backend).lines.length + 2;
    }
    process.configure(listening + renderConfiguration([...backends].map(([n, b]) => backendSection(n, b))));
    await process.apply();
    this.#reloads++;
    this.#log.info('HAProxy took its configuration', {
      routes: desired.routes.size,
      milliseconds: Math.round(clock.monotonic() - started),
    });
    return { listening, backends, backendOfRoute, maps, certificates: new Map(desired.certificates) };
  }

  async #addServers(changes: readonly { name: string; backend: Backend; wanted: readonly string[] }[]): Promise<void> {
    const commands: string[] = [];
    for (const { name, backend, wanted } of changes) {
      const before = commands.length;
      for (const server of wanted) {
        if (backend.servers.has(server)) continue;
        const at = `${name}/${serverName(server)}`;
        if (backend.leaving.delete(server)) commands.push(`set server ${at} state ready`);
        else {
          commands.push(['add server', at, server, ...POOL, ...backend.shape.serverWords.map(quote)].join(' '));
          commands.push(`enable server ${at}`);
        }
        backend.servers.add(server);
      }
      if (commands.length > before && backend.shape.cookieKey !== undefined)
        commands.push(`set dynamic-cookie-key backend ${name} ${backend.shape.cookieKey}`);
    }
    await this.#api.run(commands, /^New server registered\.$/);
  }

  async #removeServers(
    changes: readonly { name: string; backend: Backend; wanted: readonly string[] }[],
  ): Promise<void> {
    const commands: string[] = [];
    for (const { name, backend, wanted } of changes) {
      if (backend.servers.size === 0) continue;
      const kept = new Set(wanted);
      for (const server of backend.servers) {
        if (kept.has(server)) continue;
        commands.push(`set server ${name}/${serverName(server)} state maint`);
        backend.servers.delete(server);
        backend.leaving.add(server);
      }
    }
    await this.#api.run(commands);
  }

  /** Nothing goes before what leads to it elsewhere is in place: in the order of the maps all that is new comes, then what is old goes. */
  async #putMaps(live: Live, wanted: Maps, ordered: ReadonlySet<string>): Promise<void> {
    const removals: (() => Promise<void>)[] = [];
    for (const [map, after] of wanted) {
      const before = live.maps.get(map)!;
      const put = [...after].filter(([key, value]) => before.get(key) !== value);
      const gone = [...before.keys()].filter(key => !after.has(key));
      if (put.length + gone.length === 0) continue;
      const isPlain =
        !ordered.has(map) &&
        put.length + gone.length <= MAP_CHANGES_MAX &&
        put.every(([key, value]) => PLAIN_WORD.test(key) && PLAIN_WORD.test(value)) &&
        gone.every(key => PLAIN_WORD.test(key));
      if (isPlain) {
        await this.#api.run(put.map(([key, value]) => `${before.has(key) ? 'set' : 'add'} map ${map} ${key} ${value}`));
        if (gone.length > 0) removals.push(() => this.#api.run(gone.map(key => `del map ${map} ${key}`)));
      } else if (ordered.has(map) || gone.length === 0) await this.#api.replaceMap(map, after);
      else {
        if (put.length > 0) await this.#api.replaceMap(map, new Map([...before, ...after]));
        removals.push(() => this.#api.replaceMap(map, after));
      }
    }
    for (const remove of removals) await remove();
    live.maps = wanted;
  }

  async #putCertificates(live: Live, wanted: ReadonlyMap<string, CertificateEntry>): Promise<void> {
    for (const [file, entry] of wanted) {
      const known = live.certificates.get(file);
      if (known?.pem === entry.pem) continue;
      if (known === undefined) await this.#api.run([`new ssl cert ${file}`], /^New empty certificate store/);
      await this.#expect(`set ssl cert ${file} <<\n${entry.pem}\n`, /^Transaction (created|updated) for certificate/m);
      await this.#expect(`commit ssl cert ${file}`, /Success!/);
      if (known === undefined)
        await this.#expect(`add ssl crt-list ${entry.list} <<\n${listLine(file, entry)}\n`, /Success!/);
      live.certificates.set(file, entry);
    }
  }

  async #removeCertificates(live: Live, wanted: ReadonlyMap<string, CertificateEntry>): Promise<void> {
    for (const [file, { list }] of live.certificates) {
      if (wanted.has(file)) continue;
      await this.#expect(`del ssl crt-list ${list} ${file}`, /deleted/);
      await this.#expect(`del ssl cert ${file}`, /deleted/);
      live.certificates.delete(file);
    }
  }

  async #expect(request: string, fine: RegExp): Promise<void> {
    const answer = await this.#api.ask(request);
    if (!fine.test(answer)) throw new Error(`HAProxy: ${answer.trim().slice(0, 300)}`);
  }
}

/** HAProxy's name of an endpoint: the endpoint itself, in characters that names may have. */
function serverName(server: string): string {
  return server.replaceAll('[', '').replaceAll(']', '');
}

const listLine = (file: string, { filter, options }: CertificateEntry): string =>
  [file, ...(options === undefined ? [] : [`[${options}]`]), ...(filter === undefined ? [] : [filter])].join(' ');

function backendSection(name: string, { shape, servers }: Backend): Section {
  const lines = [...servers].map(server => ['server', serverName(server), server, ...shape.serverWords]);
  return { type: 'backend', name, lines: [...shape.lines, ...lines] };
}
