/**
 * The cluster's zone: what a name of the Kubernetes DNS specification (schema 1.1.0) means now, read from informers on
 * Services, EndpointSlices and Namespaces. Answers are ready-made bytes, made on first use and kept until an object
 * they came from changes, so a repeated question is one map lookup and a change costs only what it touches.
 * Where the specification leaves room it answers as CoreDNS with kubeadm's Corefile does (`pods insecure`: a pod name is
 * its address spelled out, in any namespace that exists). It refuses to answer for names outside its zones.
 */

import { isIP, isIPv4, isIPv6 } from 'node:net';
import type { Namespace, Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import { type KubeObject, keyOf } from '../api/meta.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import type { Informer } from '../client/informer.ts';
import { ENDPOINT_SLICES, NAMESPACES, SERVICES } from '../client/resources.ts';
import type { ResourceId } from '../client/transport.ts';
import { formatAddress, parseAddress } from '../sys/address.ts';
import { type Answer, AnswerWriter, RCODE, TYPE } from './message.ts';
import { FormatError, labelsOf } from './name.ts';

/** `InformerFactory` satisfies it. */
export interface InformerSource {
  get<T extends KubeObject>(of: ResourceId): Informer<T>;
}

export interface ZoneOptions {
  readonly informers: InformerSource;
  /** `cluster.local` */
  readonly clusterDomain: string;
  readonly ttlSeconds: number;
  /** The name server's own address, while no `kube-dns` Service says it. */
  readonly address: string;
  readonly clock?: Clock;
}

const SCHEMA_VERSION = '1.1.0';
const SCHEMA_TTL_SECONDS = 28_800;
const SOA = { refreshSeconds: 7200, retrySeconds: 1800, expireSeconds: 86_400 };
const CNAME_CHAIN_MAX = 8;
const DNS_SERVICE = 'kube-system/kube-dns';
const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';
const BY_SERVICE = 'dns/service';
const BY_ADDRESS = 'dns/address';

/** One address and port behind a name. */
interface Target {
  readonly ip: string;
  readonly port: number | undefined;
  /** The name whose address it is, which SRV records point at. */
  readonly host: string;
}

type Found = { readonly targets: readonly Target[] } | { readonly alias: string } | 'nothing here' | undefined;

export class Zone {
  readonly #ttlSeconds: number;
  readonly #address: string;
  readonly #clock: Clock;
  readonly #domain: string;
  readonly #domainLabels: readonly string[];
  readonly #services: Informer<Service>;
  readonly #slices: Informer<EndpointSlice>;
  readonly #namespaces: Informer<Namespace>;
  // By the question's name in wire form; a name has few types, so they are searched in turn.
  readonly #answers = new Map<string, { readonly type: number; readonly answer: Answer }[]>();
  readonly #namesByService = new Map<string, Set<string>>();
  readonly #negatives = new Map<number, Answer>();
  #serial: number;

  constructor(options: ZoneOptions) {
    this.#domain = options.clusterDomain.replace(/\.$/, '').toLowerCase();
    this.#domainLabels = labelsOf(this.#domain);
    this.#ttlSeconds = options.ttlSeconds;
    this.#address = options.address;
    this.#clock = options.clock ?? systemClock;
    this.#serial = Math.floor(this.#clock.now() / 1000);
    this.#services = options.informers.get<Service>(SERVICES);
    this.#slices = options.informers.get<EndpointSlice>(ENDPOINT_SLICES);
    this.#namespaces = options.informers.get<Namespace>(NAMESPACES);
    this.#services.addIndex(BY_ADDRESS, clusterIpsOf);
    this.#slices.addIndex(BY_SERVICE, slice => serviceKeysOf(slice));
    this.#slices.addIndex(BY_ADDRESS, namedAddressesOf);
    this.#services.onChange(({ object, old }) => this.#forget(keyOf((object ?? old)!)));
    this.#slices.onChange(({ object, old }) => {
      for (const slice of [old, object]) if (slice) for (const key of serviceKeysOf(slice)) this.#forget(key);
    });
  }

  get hasSynced(): boolean {
    return this.#services.hasSynced && this.#slices.hasSynced && this.#namespaces.hasSynced;
  }
  async synced(): Promise<void> {
    await Promise.all([this.#services.synced, this.#slices.synced, this.#namespaces.synced]);
  }

  /** The answer to a question of class IN, `name` in lower-cased wire form; undefined when the name is not the zone's. */
  lookup(name: string, type: number): Answer | undefined {
    const known = this.#answers.get(name);
    if (known)
      for (let index = 0; index < known.length; index++) if (known[index]!.type === type) return known[index]!.answer;
    return this.#resolve(name, type);
  }

  #resolve(name: string, type: number): Answer | undefined {
    const labels = wireLabels(name);
    const rest = labels.length - this.#domainLabels.length;
    if (rest < 0 || !this.#domainLabels.every((label, index) => labels[rest + index] === label))
      return this.#reverse(name, labels, type);
    // A label that holds a dot or other odd bytes is no Kubernetes name, and text forms must not blur it into one.
    const inside = labels.slice(0, rest);
    if (!inside.every(isPlain)) return this.#negative(RCODE.NXDOMAIN, name, this.#domain);
    const text = labels.join('.');
    if (inside.length === 0) return this.#apex(name, text, type);
    const kind = inside[inside.length - 1]!;
    if (kind === 'svc') return this.#service(name, text, inside, type);
    if (kind === 'pod') return this.#pod(name, text, inside, type);
    if (kind === 'dns-version' && inside.length === 1) {
      if (type !== TYPE.TXT) return this.#negative(RCODE.NOERROR, name, this.#domain);
      const version = Buffer.from(SCHEMA_VERSION);
      return new AnswerWriter(text)
        .record('answer', text, TYPE.TXT, SCHEMA_TTL_SECONDS, writer =>
          writer.bytes(Buffer.from([version.length])).bytes(version),
        )
        .finish();
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
    return this.#negative(RCODE.NXDOMAIN, name, this.#domain);
  }

  #apex(name: string, text: string, type: number): Answer {
    if (type === TYPE.SOA) return this.#soa(new AnswerWriter(text), 'answer', this.#domain).finish();
    if (type !== TYPE.NS) return this.#negative(RCODE.NOERROR, name, this.#domain);
    const { host, ips } = this.#nameServer();
    const writer = new AnswerWriter(text).record('answer', text, TYPE.NS, this.#ttlSeconds, out => out.name(host));
    for (const ip of ips) writer.address('additional', host, ip, this.#ttlSeconds);
    return writer.finish();
  }

  #service(name: string, text: string, inside: readonly string[], type: number): Answer {
    const found = this.#findService(inside);
    if (found === undefined) return this.#negative(RCODE.NXDOMAIN, name, this.#domain);
    if (found === 'nothing here') return this.#negative(RCODE.NOERROR, name, this.#domain);
    // Chains depend on further objects, or on upstream servers, and are made each time.
    if ('alias' in found) return this.#alias(name, text, type);
    const answer =
      type === TYPE.SRV ? this.#srv(name, text, found.targets) : this.#addresses(name, text, found.targets, type);
    const [service, namespace] = inside.slice(-3) as [string, string];
    this.#remember(`${namespace}/${service}`, name, type, answer);
    return answer;
  }

  // `inside` is what stands before the cluster domain: `[…] service namespace svc`. Undefined: no such name.
  #findService(inside: readonly string[]): Found {
    const [namespace, service] = [inside.at(-2), inside.at(-3)];
    if (namespace === undefined) return 'nothing here';
    if (!this.#namespaces.get(namespace)) return undefined;
    if (service === undefined) return 'nothing here';
    const object = this.#services.get(`${namespace}/${service}`);
    const before = inside.slice(0, -3);
    if (!object || before.length > 2) return undefined;
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
    if (before.length === 1 || object.spec?.clusterIP === 'None') {
      this.#eachEndpoint(object, (ip, label, ports) => {
        if (before.length === 1 && label !== before[0]) return;
        const named = `${label}.${host}`;
        if (ports.length === 0 && portName === undefined) targets.push({ ip, port: undefined, host: named });
        for (const port of ports) if (fits(port)) targets.push({ ip, port: port.port, host: named });
      });
      return targets.length > 0 ? { targets } : undefined;
    }
    const ports = (object.spec?.ports ?? []).filter(fits);
    if (ports.length === 0) return undefined;
    for (const port of ports) for (const ip of clusterIpsOf(object)) targets.push({ ip, port: port.port, host });
    return { targets };
  }

  #eachEndpoint(
    service: Service,
    visit: (ip: string, label: string, ports: readonly { name?: string; protocol?: string; port?: number }[]) => void,
  ): void {
    for (const slice of this.#slices.byIndex(BY_SERVICE, keyOf(service))) {
      if (slice.addressType !== 'IPv4' && slice.addressType !== 'IPv6') continue;
      for (const endpoint of slice.endpoints ?? []) {
        if (endpoint.conditions?.ready === false) continue;
        for (const ip of endpoint.addresses)
          visit(ip, (endpoint.hostname || dashed(ip)).toLowerCase(), slice.ports ?? []);
      }
    }
  }

  #pod(name: string, text: string, inside: readonly string[], type: number): Answer {
    const [namespace, label] = [inside.at(-2), inside.at(-3)];
    if (inside.length > 3 || (namespace !== undefined && !this.#namespaces.get(namespace)))
      return this.#negative(RCODE.NXDOMAIN, name, this.#domain);
    if (label === undefined) return this.#negative(RCODE.NOERROR, name, this.#domain);
    const four = label.replaceAll('-', '.');
    const ip = isIPv4(four) ? four : label.replaceAll('-', ':');
    if (!isIP(ip)) return this.#negative(RCODE.NXDOMAIN, name, this.#domain);
    return this.#addresses(name, text, [{ ip, port: undefined, host: text }], type);
  }

  #addresses(name: string, text: string, targets: readonly Target[], type: number): Answer {
    const wanted = type === TYPE.A ? isIPv4 : type === TYPE.AAAA ? isIPv6 : undefined;
    const ips = wanted ? [...new Set(targets.map(target => target.ip))].filter(ip => wanted(ip)) : [];
    if (ips.length === 0) return this.#negative(RCODE.NOERROR, name, this.#domain);
    const writer = new AnswerWriter(text);
    for (const ip of ips) writer.address('answer', text, ip, this.#ttlSeconds);
    return writer.finish({ rotate: true });
  }

  #srv(name: string, text: string, targets: readonly Target[]): Answer {
    const usable = targets.filter(target => target.port !== undefined);
    if (usable.length === 0) return this.#negative(RCODE.NOERROR, name, this.#domain);
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
    return writer.finish();
  }

  // Follows ExternalName Services as long as they stay in the zone; where a chain leaves it, `chase` says where to.
  #alias(name: string, text: string, type: number): Answer {
    const writer = new AnswerWriter(text);
    const passed = new Set<string>();
    let owner = text;
    for (;;) {
      passed.add(owner);
      const inside = this.#insideLabels(owner);
      if (!inside) return writer.finish({ chase: owner });
      const found = inside.at(-1) === 'svc' ? this.#findService(inside) : undefined;
      if (found === undefined || found === 'nothing here') break;
      if ('alias' in found) {
        const target = found.alias.toLowerCase();
        if (type !== TYPE.A && type !== TYPE.AAAA && type !== TYPE.CNAME)
          return this.#negative(RCODE.NOERROR, name, this.#domain);
        if (passed.has(target) || passed.size > CNAME_CHAIN_MAX) break;
        writer.record('answer', owner, TYPE.CNAME, this.#ttlSeconds, out => out.name(found.alias));
        if (type === TYPE.CNAME) return writer.finish();
        owner = target;
        continue;
      }
      const wanted = type === TYPE.A ? isIPv4 : isIPv6;
      for (const ip of new Set(found.targets.map(target => target.ip)))
        if (wanted(ip)) writer.address('answer', owner, ip, this.#ttlSeconds);
      break;
    }
    const answer = writer.finish();
    return answer.answers > 0 ? answer : this.#negative(RCODE.NOERROR, name, this.#domain);
  }

  #insideLabels(text: string): string[] | undefined {
    const labels = labelsOf(text.toLowerCase());
    const rest = labels.length - this.#domainLabels.length;
    return rest >= 0 && this.#domainLabels.every((label, index) => labels[rest + index] === label)
      ? labels.slice(0, rest)
      : undefined;
  }

  // PTR of cluster IPs and of endpoints that have a hostname. Other reverse names are not the cluster's to deny.
  #reverse(name: string, labels: readonly string[], type: number): Answer | undefined {
    const ip = addressOfReverse(labels);
    if (ip === undefined) return undefined;
    const hosts = this.#hostsOf(ip);
    if (hosts.length === 0) return undefined;
    const text = labels.join('.');
    if (type !== TYPE.PTR) return this.#negative(RCODE.NOERROR, name, labels.slice(-2).join('.'));
    const writer = new AnswerWriter(text);
    for (const host of hosts) writer.record('answer', text, TYPE.PTR, this.#ttlSeconds, out => out.name(host));
    return writer.finish();
  }

  /** A denial with its SOA, for names outside the zone that nobody else can be asked about. */
  denyReverse(name: string): Answer | undefined {
    const labels = wireLabels(name);
    const zone = labels.slice(-2).join('.');
    return zone === 'in-addr.arpa' || zone === 'ip6.arpa' ? this.#negative(RCODE.NXDOMAIN, name, zone) : undefined;
  }

  #hostsOf(ip: string): string[] {
    const services = this.#services.byIndex(BY_ADDRESS, ip);
    if (services.length > 0)
      return services.map(({ metadata }) => `${metadata.name}.${metadata.namespace}.svc.${this.#domain}`);
    const hosts = new Set<string>();
    for (const slice of this.#slices.byIndex(BY_ADDRESS, ip)) {
      for (const endpoint of slice.endpoints ?? []) {
        if (
          !endpoint.hostname ||
          endpoint.conditions?.ready === false ||
          !endpoint.addresses.some(address => canonical(address) === ip)
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
    const service = this.#services.get(DNS_SERVICE);
    const ips = service ? clusterIpsOf(service) : [];
    return ips.length > 0
      ? { host: `kube-dns.kube-system.svc.${this.#domain}`, ips }
      : { host: `ns.dns.${this.#domain}`, ips: [this.#address] };
  }

  #soa(writer: AnswerWriter, section: 'answer' | 'authority', zone: string): AnswerWriter {
    return writer.record(section, zone, TYPE.SOA, this.#ttlSeconds, out =>
      out
        .name(`ns.dns.${zone}`)
        .name(`hostmaster.${zone}`)
        .uint32(this.#serial)
        .uint32(SOA.refreshSeconds)
        .uint32(SOA.retrySeconds)
        .uint32(SOA.expireSeconds)
        .uint32(this.#ttlSeconds),
    );
  }

  // NXDOMAIN or NODATA. Its only reference into the question is the zone's offset, so names of one length share it.
  #negative(rcode: number, name: string, zone: string): Answer {
    const key = (name.length << 5) | (zone === this.#domain ? 16 : zone === 'ip6.arpa' ? 8 : 0) | rcode;
    let answer = this.#negatives.get(key);
    if (!answer) {
      const above = name.length - zone.length - 2;
      // A stand-in of the same length: full labels, and the rest in the last ones.
      let stand = '';
      for (let left = above; left > 0; ) {
        const label = left > 64 ? Math.min(63, left - 3) : left - 1;
        stand += `${'x'.repeat(label)}.`;
        left -= label + 1;
      }
      answer = this.#soa(new AnswerWriter(stand + zone), 'authority', zone).finish({ rcode });
      this.#negatives.set(key, answer);
    }
    return answer;
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
    const serial = Math.floor(this.#clock.now() / 1000);
    if (serial === this.#serial) return;
    this.#serial = serial;
    this.#negatives.clear();
    // Remembered NODATA answers hold the old serial, which stays right for what they say.
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

function clusterIpsOf(service: Service): string[] {
  const { clusterIP, clusterIPs } = service.spec ?? {};
  const ips = clusterIPs?.length ? clusterIPs : clusterIP ? [clusterIP] : [];
  return ips.filter(ip => isIP(ip) !== 0).map(canonical);
}

function serviceKeysOf(slice: EndpointSlice): readonly string[] {
  const service = slice.metadata.labels?.[SERVICE_NAME_LABEL];
  return service ? [`${slice.metadata.namespace}/${service}`] : [];
}

function namedAddressesOf(slice: EndpointSlice): readonly string[] {
  return (slice.endpoints ?? [])
    .filter(endpoint => endpoint.hostname)
    .flatMap(endpoint => endpoint.addresses.map(canonical));
}

/** One spelling for each IPv6 address. */
function canonical(ip: string): string {
  if (!ip.includes(':')) return ip;
  return formatAddress(parseAddress(ip));
}

/** The address that `10.0.96.10.in-addr.arpa` or its IPv6 counterpart asks for; undefined for other names. */
function addressOfReverse(labels: readonly string[]): string | undefined {
  const [zone, root] = labels.slice(-2);
  if (root !== 'arpa') return undefined;
  const digits = labels.slice(0, -2).reverse();
  if (zone === 'in-addr' && digits.length === 4) {
    const ip = digits.join('.');
    return isIPv4(ip) ? ip : undefined;
  }
  if (zone === 'ip6' && digits.length === 32 && digits.every(digit => /^[0-9a-f]$/.test(digit))) {
    return canonical(digits.join('').match(/.{4}/g)!.join(':'));
  }
  return undefined;
}
