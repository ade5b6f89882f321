/**
 * Frontends as sections and maps of HAProxy. A request costs three look-ups however many hosts and paths there are; only candidates
 * with tests are rules, which are tried in turn. Words of tenants stand in `acl` lines alone, behind `--`, where nothing ends them.
 */

import type { Line, Section } from '../haproxy/configuration.ts';
import type { BackendOf } from '../haproxy/desired.ts';
import { clientHeaders, connectionVariables, normalising, words } from '../haproxy/process-sections.ts';
import type { Candidate, CertificateOfHost, Domain, Frontend, HttpFrontend, TlsFrontend } from './frontends.ts';
import { ANY } from './hostnames.ts';
import type { ClientChecks } from './listeners.ts';
import type { Choice, Test } from './route-rules.ts';

export const NOT_FOUND = 'not-found';
export const ROUTES_MAP = 'routes.map';
/** Until a ClientHello is there. */
const HELLO_SECONDS = 5;
const IDLE_SECONDS = 3600;
const PROXIED = ['accept-proxy', 'mode', '600'];

export interface Rendered {
  readonly sections: readonly Section[];
  readonly maps: ReadonlyMap<string, ReadonlyMap<string, string>>;
  /** Maps that are tried in order. */
  readonly ordered: readonly string[];
}

export interface RenderOptions {
  readonly bindAddress: string;
  readonly backendOf: BackendOf;
}

export function renderFrontend(frontend: Frontend, options: RenderOptions): Rendered {
  const renderer = new Renderer(options);
  const at = [`${options.bindAddress}:${frontend.targetPort}`, ...(options.bindAddress === '::' ? ['v4v6'] : [])];
  if (frontend.kind === 'http') renderer.http(frontend.id, at, frontend);
  else if (frontend.kind === 'tls') renderer.tls(at, frontend);
  else renderer.tcp(frontend.id, at, frontend.choices);
  return renderer;
}

/** File of the certificates' list of a frontend, and the file of each certificate in it. */
export const listOf = (id: string): string => `${id}.list`;
export const certificateFile = (id: string, hostname: string, at: number): string =>
  `certificates/${id}_${hostname === ANY ? 'any' : hostname.replace('*', '_')}_${at}.pem`;
/** Frontends that decrypt, with what they show. */
export function decrypting(
  frontend: Frontend,
): { readonly id: string; readonly certificates: readonly CertificateOfHost[] }[] {
  if (frontend.kind === 'tcp') return [];
  if (frontend.kind === 'http')
    return frontend.certificates ? [{ id: frontend.id, certificates: frontend.certificates }] : [];
  const { id, https, terminated } = frontend;
  return [
    ...(https ? [{ id: `${id}-https`, certificates: https.certificates ?? [] }] : []),
    ...(terminated ? [{ id: `${id}-terminated`, certificates: terminated.certificates }] : []),
  ];
}

class Renderer implements Rendered {
  readonly sections: Section[] = [];
  readonly maps = new Map<string, Map<string, string>>();
  readonly ordered: string[] = [];
  readonly #options: RenderOptions;

  constructor(options: RenderOptions) {
    this.#options = options;
  }

  http(id: string, at: readonly string[], { domains, certificates, clients, port }: HttpFrontend): void {
    const rules = new Rules(id, 'http-request', this.#options.backendOf);
    const exact = new Map<string, string>();
    const prefixes = new Map<string, string>();
    for (const domain of domains) {
      for (const [path, list] of domain.exact) exact.set(domain.host + path, rules.listOf(list));
      for (const [path, list] of domain.prefixes) prefixes.set(`${domain.host}${path}/`, rules.listOf(list));
    }
    const hosts = new Map(domains.map(({ host }) => [host, host]));
    this.#putShares(rules);
    this.maps.set(`${id}-prefix.map`, prefixes);
    if (exact.size > 0) this.maps.set(`${id}-exact.map`, exact);
    this.sections.push({
      type: 'frontend',
      name: id,
      lines: [
        [
          'bind',
          ...at,
          ...(certificates ? secure(id, certificates, 'h2,http/1.1') : []),
          ...(clients ? checking(clients) : []),
        ],
        ...connectionVariables(),
        ...logging('http'),
        ...normalising(),
        ...clientHeaders({ trustsForwarded: false, scheme: certificates ? 'https' : 'http', port }),
        words('http-request set-var(txn.host) req.hdr(host),host_only,rtrim(.),lower'),
        words('http-request set-var(txn.path) path'),
        // Domain and path are looked up as one text: a host with a slash would move the border between them.
        words('http-request deny deny_status 400 if { var(txn.host) -m sub / }'),
        ...this.#hostLookup(id, hosts, { to: 'txn.domain', of: 'var(txn.host)', rule: 'http-request' }),
        ...(certificates ? this.#misdirected(id, domains) : []),
        ...(exact.size > 0
          ? [words(`http-request set-var(txn.to) var(txn.domain),concat(,txn.path,),map_str(${id}-exact.map)`)]
          : []),
        words(
          `http-request set-var(txn.to) var(txn.domain),concat(,txn.path,/),map_beg(${id}-prefix.map)${exact.size > 0 ? ' if !{ var(txn.to) -m found }' : ''}`,
        ),
        ...rules.lines,
        words('use_backend %[var(txn.to)] if { var(txn.to) -m found }'),
        ['default_backend', NOT_FOUND],
      ],
    });
  }

  /** A connection is for the listener of its server name: requests for another one's hosts belong on a connection of their own. */
  #misdirected(id: string, domains: readonly Domain[]): Line[] {
    const listeners = new Map(domains.map(({ host, listenerHost }) => [host, listenerHost]));
    if (new Set(listeners.values()).size < 2) return [];
    const look = (to: string, of: string) =>
      this.#hostLookup(`${id}-listeners`, listeners, { to, of, rule: 'http-request' });
    return [
      ...look('txn.listener', 'var(txn.host)'),
      ...look('txn.greeted', 'ssl_fc_sni,lower'),
      words(
        'http-request deny deny_status 421 if { ssl_fc_has_sni } { var(txn.listener) -m found } !{ var(txn.listener),strcmp(txn.greeted) eq 0 }',
      ),
    ];
  }

  tls(at: readonly string[], { id, hosts, https, terminated }: TlsFrontend): void {
    // Where nothing but termination is asked for there is no need to look before decrypting.
    if (terminated && !https && [...hosts.values()].every(({ to }) => to === 'terminated'))
      return this.#terminated(`${id}-terminated`, at, terminated);
    const rules = new Rules(id, 'tcp-request content', this.#options.backendOf);
    const inner = { https: `${id}-to-https`, terminated: `${id}-to-terminated` };
    const ways = new Map<string, string>();
    for (const [host, way] of hosts) {
      const to = way.to === 'backends' ? rules.targetOf(way.choices) : inner[way.to];
      if (to !== undefined) ways.set(host, to);
    }
    this.#putShares(rules);
    this.#stream(id, at, [
      ['tcp-request', 'inspect-delay', `${HELLO_SECONDS}s`],
      words('tcp-request content reject unless { req.ssl_hello_type 1 }'),
      words('tcp-request content set-var(txn.host) req.ssl_sni,lower'),
      ...this.#hostLookup(id, ways, { to: 'txn.to', of: 'var(txn.host)', rule: 'tcp-request content' }),
      ...rules.lines,
    ]);
    for (const [name, socket] of [
      [inner.https, https && `${id}-https`],
      [inner.terminated, terminated && `${id}-terminated`],
    ] as const)
      if (socket)
        this.sections.push({
          type: 'backend',
          name,
          lines: [words('mode tcp'), idle('server'), ['server', 'self', `unix@${socket}.sock`, 'send-proxy-v2']],
        });
    if (https) this.http(`${id}-https`, [`unix@${id}-https.sock`, ...PROXIED], https);
    if (terminated) this.#terminated(`${id}-terminated`, [`unix@${id}-terminated.sock`, ...PROXIED], terminated);
  }

  tcp(id: string, at: readonly string[], choices: readonly Choice[]): void {
    const rules = new Rules(id, 'tcp-request content', this.#options.backendOf);
    const to = rules.targetOf(choices);
    this.#putShares(rules);
    this.#stream(id, at, [
      ...(to === undefined ? [] : [words(`tcp-request content set-var(txn.to) str(${to})`)]),
      ...rules.lines,
    ]);
  }

  #terminated(
    id: string,
    at: readonly string[],
    { certificates, hosts }: NonNullable<TlsFrontend['terminated']>,
  ): void {
    const rules = new Rules(id, 'tcp-request content', this.#options.backendOf);
    const ways = new Map<string, string>();
    for (const [host, choices] of hosts) {
      const to = rules.targetOf(choices);
      if (to !== undefined) ways.set(host, to);
    }
    this.#putShares(rules);
    this.#stream(
      id,
      [...at, ...secure(id, certificates)],
      [
        words('tcp-request content set-var(txn.host) ssl_fc_sni,lower'),
        ...this.#hostLookup(id, ways, { to: 'txn.to', of: 'var(txn.host)', rule: 'tcp-request content' }),
        ...rules.lines,
      ],
    );
  }

  /** Before the maps that name them, which are filled in this order. */
  #putShares({ maps }: Rules): void {
    for (const [file, map] of maps) this.maps.set(file, map);
  }

  #stream(id: string, at: readonly string[], rules: readonly Line[]): void {
    this.sections.push({
      type: 'frontend',
      name: id,
      lines: [
        words('mode tcp'),
        ['bind', ...at],
        idle('client'),
        words('option clitcpka'),
        ...logging('tcp'),
        ...rules,
        words('tcp-request content reject unless { var(txn.to) -m found }'),
        words('use_backend %[var(txn.to)]'),
      ],
    });
  }

  /** A name to what stands in the map for it, or for the longest wildcard that it ends with, or for any. */
  #hostLookup(
    id: string,
    values: ReadonlyMap<string, string>,
    { to, of, rule }: { to: string; of: string; rule: string },
  ): Line[] {
    const plain = new Map<string, string>();
    const wild = new Map<string, string>();
    for (const [host, value] of values)
      if (host.startsWith('*.')) wild.set(host.slice(1), value);
      else if (host !== ANY) plain.set(host, value);
    const any = values.get(ANY);
    this.maps.set(`${id}-hosts.map`, plain);
    if (wild.size > 0) {
      this.maps.set(`${id}-wildcards.map`, wild);
      this.ordered.push(`${id}-wildcards.map`);
    }
    const otherwise = ` if !{ var(${to}) -m found }`;
    return [
      words(`${rule} set-var(${to}) ${of},map_str(${id}-hosts.map)`),
      ...(wild.size > 0 ? [words(`${rule} set-var(${to}) ${of},map_end(${id}-wildcards.map)${otherwise}`)] : []),
      ...(any === undefined ? [] : [words(`${rule} set-var(${to}) str(${any})${otherwise}`)]),
    ];
  }
}

const idle = (side: 'client' | 'server'): Line => ['timeout', side, `${IDLE_SECONDS}s`];

/** Of a bind line: the certificate of the listener for any name is shown where no other fits; without one the handshake fails. */
function checking({ caFile, isRequired }: ClientChecks): Line {
  const how = isRequired ? 'verify required' : 'verify optional crt-ignore-err all ca-ignore-err all';
  return ['ca-file', caFile, ...words(how)];
}

function secure(id: string, certificates: readonly CertificateOfHost[], protocols?: string): string[] {
  const at = certificates.findIndex(({ hostname }) => hostname === ANY);
  return [
    'ssl',
    ...(at < 0 ? [] : ['crt', certificateFile(id, ANY, at)]),
    'crt-list',
    listOf(id),
    ...(protocols ? ['alpn', protocols] : []),
    ...(at < 0 ? ['strict-sni'] : []),
  ];
}

/** How names of lists and of shares begin; backends are called otherwise. */
const LIST = 'l';
const SHARE = 's.';

interface Share {
  readonly targets: readonly string[];
  readonly weights: readonly number[];
}

/**
 * Names for lists of candidates and for shares, and the rules by which they become backends. Lists are rules, one after the other; shares stand
 * in maps, so that weights change without a reload.
 */
class Rules {
  readonly #id: string;
  readonly #rule: string;
  readonly #backendOf: BackendOf;
  readonly #acls: Line[] = [];
  readonly #groups: Line[] = [];
  readonly #shares = new Map<string, Share>();
  readonly #names = new Map<string, string>();

  constructor(id: string, rule: 'http-request' | 'tcp-request content', backendOf: BackendOf) {
    this.#id = id;
    this.#rule = rule;
    this.#backendOf = backendOf;
  }
  get lines(): Line[] {
    const hasShares = this.#shares.size > 0;
    return [
      ...this.#acls,
      ...(this.#groups.length === 0 ? [] : [...this.#stopUnless(LIST, ...(hasShares ? [SHARE] : [])), ...this.#groups]),
      ...(hasShares ? [...this.#stopUnless(SHARE), ...this.#shareLines()] : []),
    ];
  }

  /** A share's name leads to the sum of its weights; with a number, to what lies below its choice's end, and to that choice's backend. */
  get maps(): Map<string, Map<string, string>> {
    if (this.#shares.size === 0) return new Map();
    const bounds = new Map<string, string>();
    const targets = new Map<string, string>();
    for (const [name, share] of this.#shares) {
      let sum = 0;
      for (const [at, target] of share.targets.entries()) {
        sum += share.weights[at]!;
        targets.set(`${name}/${at}`, target);
        bounds.set(`${name}/${at}`, String(sum));
      }
      bounds.set(name, String(sum));
    }
    return new Map([
      [this.#targetsMap, targets],
      [this.#boundsMap, bounds],
    ]);
  }
  get #boundsMap(): string {
    return `${this.#id}-bounds.map`;
  }
  get #targetsMap(): string {
    return `${this.#id}-targets.map`;
  }

  listOf(candidates: readonly Candidate[]): string {
    const first = candidates[0];
    if (!first) return NOT_FOUND;
    if (first.tests.length === 0) return this.targetOf(first.choices) ?? NOT_FOUND;
    return this.#named(
      candidates.map(({ tests, choices }) => [tests, this.targetOf(choices)]),
      name => {
        for (const { tests, choices } of candidates)
          this.#groups.push(
            this.#set(this.targetOf(choices) ?? NOT_FOUND, [name, ...tests.map(test => this.#test(test))]),
          );
        if (candidates.at(-1)!.tests.length > 0) this.#groups.push(this.#set(NOT_FOUND, [name]));
      },
    );
  }

  /** Undefined for no backend at all. */
  targetOf(choices: readonly Choice[]): string | undefined {
    const targets = choices.map(({ backend }) => this.#backendOf(backend.id));
    if (choices.length <= 1) return targets[0];
    const weights = choices.map(({ weight }) => weight);
    // A name of no other backends ever: what asks for it while maps change is not led to somebody else's.
    const base = SHARE + targets.join('.');
    for (let at = 0; ; at++) {
      const name = at === 0 ? base : `${base}-${at}`;
      const known = this.#shares.get(name);
      if (known && String(known.weights) !== String(weights)) continue;
      this.#shares.set(name, { targets, weights });
      return name;
    }
  }

  /** A request that has its backend already passes by the rules for all others. Connections have few rules. */
  #stopUnless(...prefixes: string[]): Line[] {
    if (this.#rule !== 'http-request') return [];
    return [[this.#rule, 'allow', 'if', '!{', 'var(txn.to)', '-m', 'beg', ...prefixes, '}']];
  }

  #shareLines(): Line[] {
    const set = (line: string) => words(`${this.#rule} set-var(${line}`);
    const isOpen = `{ var(txn.to) -m beg ${SHARE} }`;
    const target = (at: number, condition: string) =>
      set(`txn.to) var(txn.share),concat(/${at}),map_str(${this.#targetsMap}) if ${isOpen}${condition}`);
    const most = Math.max(...[...this.#shares.values()].map(({ targets }) => targets.length));
    return [
      set(`txn.share) var(txn.to) if ${isOpen}`),
      set(`txn.total) var(txn.share),map_str_int(${this.#boundsMap})`),
      set('txn.chosen) rand,mod(txn.total)'),
      ...Array.from({ length: most }, (_, at) => [
        set(`txn.bound) var(txn.share),concat(/${at}),map_str_int(${this.#boundsMap}) if ${isOpen}`),
        target(at, ' { var(txn.chosen),sub(txn.bound) lt 0 }'),
      ]).flat(),
      // While the weights change the sum may not be theirs.
      target(0, ''),
    ];
  }

  #set(to: string, conditions: readonly string[]): Line {
    return [...words(this.#rule), 'set-var(txn.to)', `str(${to})`, 'if', ...conditions];
  }

  #named(content: unknown, define: (name: string) => void): string {
    const key = LIST + JSON.stringify(content);
    const known = this.#names.get(key);
    if (known) return known;
    const name = `${LIST}${this.#names.size}`;
    this.#names.set(key, name);
    this.#acls.push(['acl', name, 'var(txn.to)', '-m', 'str', name]);
    define(name);
    return name;
  }

  #acl(expression: Line): string {
    const key = JSON.stringify(expression);
    const known = this.#names.get(key);
    if (known) return known;
    const name = `t${this.#names.size}`;
    this.#names.set(key, name);
    this.#acls.push(['acl', name, ...expression]);
    return name;
  }

  #test(test: Test): string {
    if (test.on === 'method') return this.#acl(['method', test.is]);
    const fetch =
      test.on === 'path'
        ? 'path'
        : test.on === 'header'
          ? `req.fhdr(${test.name})`
          : `url_param(${test.name}),url_dec(1)`;
    return 'is' in test
      ? this.#acl([fetch, '-m', 'str', '--', test.is])
      : this.#acl([fetch, '-m', 'reg', '--', `^(?:${test.pattern})$`]);
  }
}

/** One line of JSON for a request or connection; what clients wrote is escaped by HAProxy itself. */
function logging(mode: 'http' | 'tcp'): Line[] {
  const host = '"host":"%[var(txn.host),bytes(0,255),json(ascii)]"';
  const fields =
    mode === 'http'
      ? [
          '"method":"%HM"',
          host,
          '"path":"%[var(txn.path),bytes(0,1024),json(ascii)]"',
          '"status":%ST',
          '"bytes":%B',
          '"milliseconds":%Ta',
          '"backendMilliseconds":%Tr',
        ]
      : [host, '"bytes":%B', '"milliseconds":%Tt'];
  const format = [
    '{"time":%Ts.%ms',
    mode === 'http' ? '"client":"%[var(sess.client)]"' : '"client":"%ci"',
    '"listener":"%f"',
    ...fields,
    `"route":"%[var(txn.to),map_str(${ROUTES_MAP})]"`,
    '"endpoint":"%s"',
    '"retries":"%rc"',
    '"end":"%ts"}',
  ];
  return [words('log global'), ['log-format', format.join(',')]];
}
