/**
 * The cluster's zone: what a name of the Kubernetes DNS specification (schema 1.1.0) means now, read from ClusterRecords.
 * Answers are ready-made bytes, made on first use and kept until an object they came from changes, so a repeated question
 * is one map lookup and a change costs only what it touches. Where the specification leaves room it answers as CoreDNS's
 * `kubernetes` plugin does. It refuses to answer for names outside its zones, and remembers only what objects bound.
 */

import { isIP, isIPv4, isIPv6 } from 'node:net';
import type { Namespace, Service } from '../api/core/v1.gen.ts';
import type { Endpoint } from '../api/discovery/v1.gen.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { Authority, OURS } from './authority.ts';
import { type ClusterRecords, clusterIpsOf, serviceKeysOf } from './cluster-records.ts';
import { type Answer, AnswerWriter, RCODE, TYPE } from './message.ts';
import { FormatError, labelsOf } from './name.ts';
import { isWithin, wireOf } from './records.ts';
import { addressOfReverse, canonical } from './reverse-name.ts';

export interface ZoneOptions {
  readonly records: ClusterRecords;
  /** `cluster.local` */
  readonly domain: string;
  /** Reverse zones that it answers for: `in-addr.arpa`. */
  readonly reverse: readonly string[];
  /** Where a name that does not exist is left to others: these zones (`.` is everywhere). */
  readonly fallthrough: readonly string[];
  readonly ttlSeconds: number;
  /** Pod names are addresses spelled out: of any pod, of pods that exist, or there are none. */
  readonly pods: 'insecure' | 'verified' | 'disabled';
  /** Endpoints without a hostname are named after their pod. */
  readonly endpointPodNames: boolean;
  /** Names of headless Services and endpoints. */
  readonly endpoints: boolean;
  /** A Service without ready endpoints does not exist. */
  readonly ignoreEmptyService: boolean;
  readonly showsNamespace: (namespace: Namespace) => boolean;
  readonly showsService: (service: Service) => boolean;
  /** The name server's own addresses, while no `kube-dns` Service says them. */
  readonly addresses: readonly string[];
  readonly clock?: Clock;
}

const SCHEMA_VERSION = '1.1.0';
const SCHEMA_TTL_SECONDS = 28_800;
const CNAME_CHAIN_MAX = 8;
const DNS_SERVICE = 'kube-system/kube-dns';
// What is remembered: other types of a name would be as many entries as a stranger cares to ask for.
const REMEMBERED_TYPES: ReadonlySet<number> = new Set([TYPE.A, TYPE.AAAA, TYPE.SRV]);

/** One address and port behind a name. */
interface Target {
  readonly ip: string;
  readonly port: number | undefined;
  /** The name whose address it is, which SRV records point at. */
  readonly host: string;
}

type Found = { readonly targets: readonly Target[] } | { readonly alias: string } | 'nothing here' | undefined;

export class Zone {
  readonly #options: ZoneOptions;
  readonly #records: ClusterRecords;
  readonly #ttlSeconds: number;
  readonly #domain: string;
  readonly #domainLabels: readonly string[];
  readonly #reverseZones: readonly { readonly text: string; readonly wire: string }[];
  readonly #fallthrough: readonly string[];
  // By the question's name in wire form; a name has few types, so they are searched in turn.
  readonly #answers = new Map<string, { readonly type: number; readonly answer: Answer }[]>();
  readonly #namesByService = new Map<string, Set<string>>();
  readonly #unsubscribe: () => void;
  readonly #authority: Authority;

  constructor(options: ZoneOptions) {
    this.#options = options;
    this.#records = options.records;
    this.#domain = options.domain.replace(/\.$/, '').toLowerCase();
    this.#domainLabels = labelsOf(this.#domain);
    this.#reverseZones = options.reverse
      .map(zone => zone.replace(/\.$/, '').toLowerCase())
      .map(text => ({ text, wire: wireOf(text) }))
      .sort((a, b) => b.wire.length - a.wire.length);
    this.#fallthrough = options.fallthrough.map(wireOf);
    this.#ttlSeconds = options.ttlSeconds;
    this.#authority = new Authority({ ttlSeconds: options.ttlSeconds, clock: options.clock ?? systemClock });
    if (options.pods === 'verified') this.#records.followPods();
    this.#unsubscribe = this.#records.subscribe(key => this.#forget(key));
  }

  get hasSynced(): boolean {
    return this.#records.hasSynced;
  }
  /** It is not asked any more. */
  close(): void {
    this.#unsubscribe();
  }

  /** The answer to a question of class IN, `name` in lower-cased wire form; undefined when the name is not the zone's. */
  lookup(name: string, type: number): Answer | undefined {
    const known = this.#answers.get(name);
    if (known)
      for (let index = 0; index < known.length; index++) if (known[index]!.type === type) return known[index]!.answer;
    const answer = this.#resolve(name, type);
    return answer?.rcode === RCODE.NXDOMAIN && this.#fallthrough.some(zone => isWithin(name, zone))
      ? undefined
      : answer;
  }

  #resolve(name: string, type: number): Answer | undefined {
    const labels = wireLabels(name);
    const rest = labels.length - this.#domainLabels.length;
    if (rest < 0 || !this.#domainLabels.every((label, index) => labels[rest + index] === label))
      return this.#reverse(name, labels, type);
    // A label that holds a dot or other odd bytes is no Kubernetes name, and text forms must not blur it into one.
    const inside = labels.slice(0, rest);
    if (!inside.every(isPlain)) return this.#authority.deny(RCODE.NXDOMAIN, name, this.#domain);
    const text = labels.join('.');
    if (inside.length === 0) return this.#apex(name, text, type);
    const kind = inside[inside.length - 1]!;
    if (kind === 'svc') return this.#service(name, text, inside, type);
    if (kind === 'pod') return this.#pod(name, text, inside, type);
    if (kind === 'dns-version' && inside.length === 1) {
      if (type !== TYPE.TXT) return this.#authority.deny(RCODE.NOERROR, name, this.#domain);
      const version = Buffer.from(SCHEMA_VERSION);
      return new AnswerWriter(text)
        .record('answer', text, TYPE.TXT, SCHEMA_TTL_SECONDS, writer =>
          writer.bytes(Buffer.from([version.length])).bytes(version),
        )
        .finish(OURS);
    }
    if (kind === 'dns' && (inside.length === 1 || (inside.length === 2 && inside[0] === 'ns'))) {
      const ips = inside.length === 2 ? this.#nameServer().ips : [];
      return this.#addresses(
        name,
        text,
        ips.map(ip => ({ ip, port: undefined, host: text })),
        type,
      );
    }
    return this.#authority.deny(RCODE.NXDOMAIN, name, this.#domain);
  }

  #apex(name: string, text: string, type: number): Answer {
    if (type === TYPE.SOA) return this.#authority.soa(new AnswerWriter(text), 'answer', this.#domain).finish(OURS);
    if (type !== TYPE.NS) return this.#authority.deny(RCODE.NOERROR, name, this.#domain);
    const { host, ips } = this.#nameServer();
    const writer = new AnswerWriter(text).record('answer', text, TYPE.NS, this.#ttlSeconds, out => out.name(host));
    for (const ip of ips) writer.address('additional', host, ip, this.#ttlSeconds);
    return writer.finish(OURS);
  }

  #service(name: string, text: string, inside: readonly string[], type: number): Answer {
    const found = this.#findService(inside);
    if (found === undefined) return this.#authority.deny(RCODE.NXDOMAIN, name, this.#domain);
    if (found === 'nothing here') return this.#authority.deny(RCODE.NOERROR, name, this.#domain);
    // Chains depend on further objects, or on upstream servers, and are made each time.
    if ('alias' in found) return this.#alias(name, text, type);
    const answer =
      type === TYPE.SRV ? this.#srv(name, text, found.targets) : this.#addresses(name, text, found.targets, type);
    const [service, namespace] = inside.slice(-3) as [string, string];
    if (REMEMBERED_TYPES.has(type)) this.#remember(`${namespace}/${service}`, name, type, answer);
    return answer;
  }

  // `inside` is what stands before the cluster domain: `[…] service namespace svc`. Undefined: no such name.
  #findService(inside: readonly string[]): Found {
    const [namespace, service] = [inside.at(-2), inside.at(-3)];
    if (namespace === undefined) return 'nothing here';
    if (!this.#shows(namespace)) return undefined;
    if (service === undefined) return 'nothing here';
    const object = this.#records.service(`${namespace}/${service}`);
    const before = inside.slice(0, -3);
    if (!object || before.length > 2 || !this.#options.showsService(object)) return undefined;
    const host = `${service}.${namespace}.svc.${this.#domain}`;
    if (object.spec?.type === 'ExternalName') {
      const target = object.spec.externalName ?? '';
      return before.length > 0 || isIP(target) || !isDomainName(target)
        ? undefined
        : { alias: target.replace(/\.$/, '') };
    }
    const [portName, protocol] =
      before.length === 2 ? [withoutUnderscore(before[0]!), withoutUnderscore(before[1]!)] : [undefined, undefined];
    const fits = (port: { name?: string; protocol?: string }): boolean =>
      portName === undefined ||
      ((port.name ?? '').toLowerCase() === portName && (port.protocol ?? 'TCP').toLowerCase() === protocol);
    const targets: Target[] = [];
    const headless = object.spec?.clusterIP === 'None';
    if ((headless || before.length === 1) && !this.#options.endpoints) return undefined;
    if (before.length === 1 || headless) {
      this.#eachEndpoint(object, (ip, label, ports) => {
        if (before.length === 1 && label !== before[0]) return;
        const named = `${label}.${host}`;
        if (ports.length === 0 && portName === undefined) targets.push({ ip, port: undefined, host: named });
        for (const port of ports) if (fits(port)) targets.push({ ip, port: port.port, host: named });
      });
      return targets.length > 0 ? { targets } : undefined;
    }
    const ports = (object.spec?.ports ?? []).filter(fits);
    if (ports.length === 0 || (this.#options.ignoreEmptyService && !this.#hasReadyEndpoint(object))) return undefined;
    for (const port of ports) for (const ip of clusterIpsOf(object)) targets.push({ ip, port: port.port, host });
    return { targets };
  }

  #shows(namespace: string): boolean {
    const object = this.#records.namespace(namespace);
    return object !== undefined && this.#options.showsNamespace(object);
  }

  #hasReadyEndpoint(service: Service): boolean {
    let found = false;
    this.#eachEndpoint(service, () => {
      found = true;
    });
    return found;
  }

  #eachEndpoint(
    service: Service,
    visit: (ip: string, label: string, ports: readonly { name?: string; protocol?: string; port?: number }[]) => void,
  ): void {
    for (const slice of this.#records.slicesOf(service)) {
      if (slice.addressType !== 'IPv4' && slice.addressType !== 'IPv6') continue;
      for (const endpoint of slice.endpoints ?? []) {
        if (endpoint.conditions?.ready === false) continue;
        for (const ip of endpoint.addresses)
          if (isIP(ip)) visit(ip, this.#labelOf(endpoint, ip).toLowerCase(), slice.ports ?? []);
      }
    }
  }

  #labelOf({ hostname, targetRef }: Endpoint, ip: string): string {
    if (hostname) return hostname;
    const pod = targetRef?.kind === 'Pod' ? targetRef.name : undefined;
    return this.#options.endpointPodNames && pod && /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(pod) ? pod : dashed(ip);
  }

  #pod(name: string, text: string, inside: readonly string[], type: number): Answer {
    const [namespace, label] = [inside.at(-2), inside.at(-3)];
    const { pods } = this.#options;
    if (inside.length > 3 || pods === 'disabled' || (namespace !== undefined && !this.#shows(namespace)))
      return this.#authority.deny(RCODE.NXDOMAIN, name, this.#domain);
    if (label === undefined) return this.#authority.deny(RCODE.NOERROR, name, this.#domain);
    const four = label.replaceAll('-', '.');
    const ip = isIPv4(four) ? four : label.replaceAll('-', ':');
    if (!isIP(ip) || (pods === 'verified' && !this.#records.hasPod(namespace!, ip)))
      return this.#authority.deny(RCODE.NXDOMAIN, name, this.#domain);
    return this.#addresses(name, text, [{ ip, port: undefined, host: text }], type);
  }

  #addresses(name: string, text: string, targets: readonly Target[], type: number): Answer {
    const wanted = type === TYPE.A ? isIPv4 : type === TYPE.AAAA ? isIPv6 : undefined;
    const ips = wanted ? [...new Set(targets.map(target => target.ip))].filter(ip => wanted(ip)) : [];
    if (ips.length === 0) return this.#authority.deny(RCODE.NOERROR, name, this.#domain);
    const writer = new AnswerWriter(text);
    for (const ip of ips) writer.address('answer', text, ip, this.#ttlSeconds);
    return writer.finish({ ...OURS, rotate: true });
  }

  #srv(name: string, text: string, targets: readonly Target[]): Answer {
    const usable = targets.filter(target => target.port !== undefined);
    if (usable.length === 0) return this.#authority.deny(RCODE.NOERROR, name, this.#domain);
    const writer = new AnswerWriter(text);
    const weight = Math.floor(100 / usable.length);
    const written = new Set<string>();
    for (const { host, port } of usable) {
      if (written.has(`${host} ${port}`)) continue;
      written.add(`${host} ${port}`);
      writer.record('answer', text, TYPE.SRV, this.#ttlSeconds, out =>
        out.uint16(0).uint16(weight).uint16(port!).name(host, { compress: false }),
      );
    }
    for (const { host, ip } of usable) {
      if (written.has(`${host} ${ip}`)) continue;
      written.add(`${host} ${ip}`);
      writer.address('additional', host, ip, this.#ttlSeconds);
    }
    return writer.finish(OURS);
  }

  // Follows ExternalName Services as long as they stay in the zone; where a chain leaves it, `chase` says where to.
  #alias(name: string, text: string, type: number): Answer {
    const writer = new AnswerWriter(text);
    const passed = new Set<string>();
    let owner = text;
    for (;;) {
      passed.add(owner);
      const inside = this.#insideLabels(owner);
      if (!inside) return writer.finish({ ...OURS, chase: owner });
      const found = inside.at(-1) === 'svc' ? this.#findService(inside) : undefined;
      if (found === undefined || found === 'nothing here') break;
      if ('alias' in found) {
        const target = found.alias.toLowerCase();
        if (type !== TYPE.A && type !== TYPE.AAAA && type !== TYPE.CNAME)
          return this.#authority.deny(RCODE.NOERROR, name, this.#domain);
        if (passed.has(target) || passed.size > CNAME_CHAIN_MAX) break;
        writer.record('answer', owner, TYPE.CNAME, this.#ttlSeconds, out => out.name(found.alias));
        if (type === TYPE.CNAME) return writer.finish(OURS);
        owner = target;
        continue;
      }
      const wanted = type === TYPE.A ? isIPv4 : isIPv6;
      for (const ip of new Set(found.targets.map(target => target.ip)))
        if (wanted(ip)) writer.address('answer', owner, ip, this.#ttlSeconds);
      break;
    }
    const answer = writer.finish(OURS);
    return answer.answers > 0 ? answer : this.#authority.deny(RCODE.NOERROR, name, this.#domain);
  }

  #insideLabels(text: string): string[] | undefined {
    const labels = labelsOf(text.toLowerCase());
    const rest = labels.length - this.#domainLabels.length;
    return rest >= 0 && this.#domainLabels.every((label, index) => labels[rest + index] === label)
      ? labels.slice(0, rest)
      : undefined;
  }

  // PTR of cluster IPs and of endpoints that have a hostname.
  #reverse(name: string, labels: readonly string[], type: number): Answer | undefined {
    const zone = this.#reverseZones.find(({ wire }) => isWithin(name, wire))?.text;
    if (zone === undefined) return undefined;
    const ip = addressOfReverse(labels);
    const hosts = ip === undefined ? [] : this.#hostsOf(ip);
    const text = labels.join('.');
    if (hosts.length === 0) {
      if (text !== zone) return this.#authority.deny(RCODE.NXDOMAIN, name, zone);
      return type === TYPE.SOA
        ? this.#authority.soa(new AnswerWriter(text), 'answer', zone).finish(OURS)
        : this.#authority.deny(RCODE.NOERROR, name, zone);
    }
    if (type !== TYPE.PTR) return this.#authority.deny(RCODE.NOERROR, name, zone);
    const writer = new AnswerWriter(text);
    for (const host of hosts) writer.record('answer', text, TYPE.PTR, this.#ttlSeconds, out => out.name(host));
    return writer.finish(OURS);
  }

  #hostsOf(ip: string): string[] {
    const services = this.#records
      .servicesAt(ip)
      .filter(service => this.#options.showsService(service) && this.#shows(service.metadata.namespace!));
    if (services.length > 0)
      return services.map(({ metadata }) => `${metadata.name}.${metadata.namespace}.svc.${this.#domain}`);
    const hosts = new Set<string>();
    for (const slice of this.#records.slicesAt(ip)) {
      if (!this.#shows(slice.metadata.namespace!)) continue;
      for (const endpoint of slice.endpoints ?? []) {
        if (
          !endpoint.hostname ||
          endpoint.conditions?.ready === false ||
          !endpoint.addresses.some(address => isIP(address) !== 0 && canonical(address) === ip)
        )
          continue;
        for (const key of serviceKeysOf(slice)) {
          const [namespace, service] = key.split('/') as [string, string];
          hosts.add(`${endpoint.hostname}.${service}.${namespace}.svc.${this.#domain}`);
        }
      }
    }
    return [...hosts];
  }

  #nameServer(): { readonly host: string; readonly ips: readonly string[] } {
    const service = this.#records.service(DNS_SERVICE);
    const ips = service ? clusterIpsOf(service) : [];
    return ips.length > 0
      ? { host: `kube-dns.kube-system.svc.${this.#domain}`, ips }
      : { host: `ns.dns.${this.#domain}`, ips: this.#options.addresses };
  }

  #remember(serviceKey: string, name: string, type: number, answer: Answer): void {
    const known = this.#answers.get(name);
    if (known) known.push({ type, answer });
    else this.#answers.set(name, [{ type, answer }]);
    let names = this.#namesByService.get(serviceKey);
    if (!names) this.#namesByService.set(serviceKey, (names = new Set()));
    names.add(name);
  }

  #forget(serviceKey: string): void {
    const names = this.#namesByService.get(serviceKey);
    if (names) {
      for (const name of names) this.#answers.delete(name);
      this.#namesByService.delete(serviceKey);
    }
    // Remembered NODATA answers hold the old serial, which stays right for what they say.
    this.#authority.renew();
  }
}

function wireLabels(name: string): string[] {
  const labels: string[] = [];
  for (let at = 0; at < name.length; ) {
    const length = name.charCodeAt(at);
    if (length === 0) break;
    labels.push(name.slice(at + 1, at + 1 + length));
    at += length + 1;
  }
  return labels;
}

const isPlain = (label: string): boolean => /^[a-z0-9_-]+$/.test(label);
const withoutUnderscore = (label: string): string => (label.startsWith('_') ? label.slice(1) : label);
const dashed = (ip: string): string => ip.replace(/[.:]/g, '-');

function isDomainName(text: string): boolean {
  try {
    return labelsOf(text).length > 0;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}
