/** Files of a pod that the kubelet writes: /etc/hosts, /etc/resolv.conf, /etc/hostname, and where everything of a pod lies. */

import { existsSync, lstatSync, readFileSync, rmSync } from 'node:fs';
import { hostname as nodeHostname } from 'node:os';
import { join } from 'node:path';
import type { Pod } from '../../api/core/v1.gen.ts';
import { mountTmpfs, unmount } from '../../sys/mount.ts';

const SEARCHES_MAX = 32;
const NAMESERVERS_MAX = 3;
const HOSTNAME_MAX = 63;
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

/** A pod's own host name and its fully qualified one ('' without a subdomain). */
export function hostnameOf(pod: Pod, clusterDomain: string): { readonly hostname: string; readonly domain: string } {
  const { spec, metadata } = pod;
  if (spec.hostnameOverride) return { hostname: spec.hostnameOverride, domain: '' };
  if (spec.hostNetwork) return { hostname: nodeHostname(), domain: '' };
  const short = (spec.hostname || metadata.name).slice(0, HOSTNAME_MAX).replace(/[-.]+$/, '');
  const domain = spec.subdomain ? `${spec.subdomain}.${metadata.namespace}.svc.${clusterDomain}` : '';
  return { hostname: spec.setHostnameAsFQDN && domain ? `${short}.${domain}` : short, domain };
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
    for (const ip of podIps) text += domain ? `${ip}\t${hostname}.${domain}\t${hostname}\n` : `${ip}\t${hostname}\n`;
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

export function parseResolver(text: string): Resolver {
  const resolver: Resolver = { nameservers: [], searches: [], options: [] };
  for (const line of text.split('\n')) {
    const [word, ...rest] = line.trim().split(/\s+/);
    if (word === 'nameserver' && rest[0]) resolver.nameservers.push(rest[0]);
    else if (word === 'search') resolver.searches = rest;
    else if (word === 'options') resolver.options = rest;
  }
  return resolver;
}

export function resolverFile(
  pod: Pod,
  options: { readonly clusterDns: readonly string[]; readonly clusterDomain: string; readonly nodeResolver?: string },
): string {
  const { clusterDns, clusterDomain } = options;
  const node = parseResolver(options.nodeResolver ?? readOptional('/etc/resolv.conf'));
  const { dnsPolicy = 'ClusterFirst', dnsConfig, hostNetwork } = pod.spec;
  let resolver: Resolver;
  if (dnsPolicy === 'None') resolver = { nameservers: [], searches: [], options: [] };
  else if (dnsPolicy === 'ClusterFirstWithHostNet' || (dnsPolicy === 'ClusterFirst' && !hostNetwork)) {
    resolver = {
      nameservers: [...clusterDns],
      searches: [
        `${pod.metadata.namespace}.svc.${clusterDomain}`,
        `svc.${clusterDomain}`,
        clusterDomain,
        ...node.searches,
      ],
      options: ['ndots:5'],
    };
  } else resolver = node;
  resolver.nameservers.push(...(dnsConfig?.nameservers ?? []));
  resolver.searches.push(...(dnsConfig?.searches ?? []));
  for (const { name, value } of dnsConfig?.options ?? []) {
    if (!name) continue;
    resolver.options = resolver.options.filter(one => one.split(':')[0] !== name);
    resolver.options.push(value !== undefined ? `${name}:${value}` : name);
  }
  const unique = (list: string[]) => [...new Set(list)];
  const searches = unique(resolver.searches).slice(0, SEARCHES_MAX);
  return (
    (searches.length ? `search ${searches.join(' ')}\n` : '') +
    unique(resolver.nameservers)
      .slice(0, NAMESERVERS_MAX)
      .map(ip => `nameserver ${ip}\n`)
      .join('') +
    (resolver.options.length ? `options ${resolver.options.join(' ')}\n` : '')
  );
}

function readOptional(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
