/** Files of a pod that the kubelet writes: /etc/hosts, /etc/resolv.conf, /etc/hostname, and where everything of a pod lies. */

import { existsSync, lstatSync, readFileSync, rmSync } from 'node:fs';
import { hostname as nodeHostname } from 'node:os';
import { join } from 'node:path';
import type { Pod } from '../../api/core/v1.gen.ts';
import { mountTmpfs, unmount } from '../../sys/mount.ts';

const SEARCHES_MAX = 32;
const SEARCH_LINE_CHARS_MAX = 2048;
const NAMESERVERS_MAX = 3;
const HOSTNAME_MAX = 63;
/** What the kernel takes as a host name. */
const FQDN_MAX = 64;
/** Some hundred ConfigMaps and Secrets of a megabyte. */
const MEMORY_BYTES_MAX = 256 * 1024 * 1024;

export class PodPaths {
  readonly #rootDir: string;
  readonly #runDir: string;
  constructor(options: { readonly rootDir: string; readonly runDir: string }) {
    this.#rootDir = options.rootDir;
    this.#runDir = options.runDir;
  }
  get pods(): string {
    return join(this.#rootDir, 'pods');
  }
  pod(uid: string): string {
    return join(this.#rootDir, 'pods', uid);
  }
  /** What is written anew whenever the pod's containers are: a file system of its own in memory, see `ensureMemory`. */
  memory(uid: string): string {
    return join(this.#runDir, 'p', uid);
  }
  get memories(): string {
    return join(this.#runDir, 'p');
  }
  /** Mounted once a pod. Of its own, because a container can fill what it may write: its hosts file, its termination message. */
  ensureMemory(uid: string): void {
    const folder = this.memory(uid);
    if (existsSync(folder) && lstatSync(folder).dev !== lstatSync(join(folder, '..')).dev) return;
    mountTmpfs(folder, { mode: 0o755, sizeBytes: MEMORY_BYTES_MAX });
  }
  removeMemory(uid: string): void {
    const folder = this.memory(uid);
    if (!existsSync(folder)) return;
    unmount(folder);
    rmSync(folder, { recursive: true, force: true });
  }
  logs(pod: { readonly namespace: string; readonly name: string; readonly uid: string }): string {
    return join(this.#rootDir, 'logs', 'pods', `${pod.namespace}_${pod.name}_${pod.uid}`);
  }
  /** Seccomp profiles that pods name as Localhost. */
  get seccomp(): string {
    return join(this.#rootDir, 'seccomp');
  }
  get logsRoot(): string {
    return join(this.#rootDir, 'logs', 'pods');
  }
}

/** A pod's own host name and its fully qualified one ('' without a subdomain). Throws when the kernel cannot take it. */
export function hostnameOf(pod: Pod, clusterDomain: string): { readonly hostname: string; readonly domain: string } {
  const { spec, metadata } = pod;
  if (spec.hostnameOverride) return { hostname: spec.hostnameOverride, domain: '' };
  if (spec.hostNetwork) return { hostname: nodeHostname(), domain: '' };
  const short = (spec.hostname || metadata.name).slice(0, HOSTNAME_MAX).replace(/[-.]+$/, '');
  const domain = spec.subdomain ? `${spec.subdomain}.${metadata.namespace}.svc.${clusterDomain}` : '';
  if (!spec.setHostnameAsFQDN || !domain) return { hostname: short, domain };
  const full = `${short}.${domain}`;
  if (full.length > FQDN_MAX)
    throw new Error(
      `Failed to construct FQDN from Pod hostname and cluster domain, FQDN ${full} is too long (${FQDN_MAX} characters is the max, ${full.length} characters requested)`,
    );
  return { hostname: full, domain };
}

export function hostsFile(
  pod: Pod,
  options: { readonly podIps: readonly string[]; readonly hostname: string; readonly domain: string },
): string {
  const { podIps, hostname, domain } = options;
  let text: string;
  if (pod.spec.hostNetwork) {
    text = `# Kubernetes-managed hosts file (host network).\n${readOptional('/etc/hosts')}`;
  } else {
    text =
      '# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n';
    const short = domain && hostname.endsWith(`.${domain}`) ? hostname.slice(0, -domain.length - 1) : hostname;
    for (const ip of podIps) text += domain ? `${ip}\t${short}.${domain}\t${short}\n` : `${ip}\t${short}\n`;
  }
  const aliases = pod.spec.hostAliases ?? [];
  if (aliases.length)
    text += `\n# Entries added by HostAliases.\n${aliases.map(({ ip, hostnames = [] }) => `${ip}\t${hostnames.join('\t')}\n`).join('')}`;
  return text;
}

interface Resolver {
  nameservers: string[];
  searches: string[];
  options: string[];
}

/** Of the node's file: what the last line of a kind says, as resolvers read it. */
export function parseResolver(text: string): Resolver {
  const resolver: Resolver = { nameservers: [], searches: [], options: [] };
  for (const line of text.split('\n')) {
    const [word, ...rest] = line
      .replace(/[#;].*/, '')
      .trim()
      .split(/\s+/);
    if (word === 'nameserver' && rest[0]) resolver.nameservers.push(rest[0]);
    // A final dot says nothing here; the root alone does: names are looked up as they are.
    else if (word === 'search') resolver.searches = rest.map(name => (name === '.' ? name : name.replace(/\.$/, '')));
    else if (word === 'options') resolver.options = rest;
  }
  return resolver;
}

export interface ResolverOptions {
  readonly clusterDns: readonly string[];
  readonly clusterDomain: string;
  /** Default: the node's /etc/resolv.conf. */
  readonly nodeResolver?: string;
}

/** The pod's resolv.conf and, in the kubelet's words, what had to be left out of it. */
export function resolverFile(
  pod: Pod,
  options: ResolverOptions,
): { readonly text: string; readonly warnings: readonly { readonly reason: string; readonly message: string }[] } {
  const { clusterDns, clusterDomain } = options;
  const node = parseResolver(options.nodeResolver ?? readOptional('/etc/resolv.conf'));
  const { dnsPolicy = 'ClusterFirst', dnsConfig, hostNetwork } = pod.spec;
  const warnings: { reason: string; message: string }[] = [];
  const usesCluster = dnsPolicy === 'ClusterFirstWithHostNet' || (dnsPolicy === 'ClusterFirst' && !hostNetwork);
  let resolver: Resolver;
  if (dnsPolicy === 'None') resolver = { nameservers: [], searches: [], options: [] };
  else if (usesCluster && clusterDns.length > 0) {
    const { namespace } = pod.metadata;
    const own = clusterDomain ? [`${namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain] : [];
    resolver = { nameservers: [...clusterDns], searches: [...own, ...node.searches], options: ['ndots:5'] };
  } else {
    if (usesCluster)
      warnings.push({
        reason: 'MissingClusterDNS',
        message: `pod: "${pod.metadata.name}_${pod.metadata.namespace}(${pod.metadata.uid ?? ''})". kubelet does not have ClusterDNS IP configured and cannot create Pod using "${dnsPolicy}" policy. Falling back to "Default" policy.`,
      });
    resolver = node;
  }
  resolver.nameservers.push(...(dnsConfig?.nameservers ?? []));
  resolver.searches.push(...(dnsConfig?.searches ?? []));
  for (const { name, value } of dnsConfig?.options ?? []) {
    if (!name) continue;
    resolver.options = resolver.options.filter(one => one.split(':')[0] !== name);
    resolver.options.push(value !== undefined ? `${name}:${value}` : name);
  }
  const nameservers = [...new Set(resolver.nameservers)];
  const applied = nameservers.slice(0, NAMESERVERS_MAX);
  if (applied.length < nameservers.length)
    warnings.push({
      reason: 'DNSConfigForming',
      message: `Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: ${applied.join(' ')}`,
    });
  const all = [...new Set(resolver.searches)];
  let searches = all.slice(0, SEARCHES_MAX);
  while (searches.join(' ').length > SEARCH_LINE_CHARS_MAX) searches = searches.slice(0, -1);
  if (searches.length < all.length)
    warnings.push({
      reason: 'DNSConfigForming',
      message: `Search Line limits were exceeded, some search paths have been omitted, the applied search line is: ${searches.join(' ')}`,
    });
  const text =
    (searches.length ? `search ${searches.join(' ')}\n` : '') +
    applied.map(ip => `nameserver ${ip}\n`).join('') +
    (resolver.options.length ? `options ${resolver.options.join(' ')}\n` : '');
  return { text, warnings };
}

function readOptional(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
