/** The user's way in: a kubeconfig file of its own for each cluster, and a context in `~/.kube/config` for who wants that. */

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { parse, stringify } from 'yaml';
import { type KubeconfigOptions, kubeconfig } from '../apiserver/certificates/kubeconfig.ts';

interface Named {
  name: string;
  [key: string]: unknown;
}

interface Kubeconfig {
  apiVersion: 'v1';
  kind: 'Config';
  preferences?: unknown;
  clusters: Named[];
  users: Named[];
  contexts: Named[];
  'current-context': string;
}

export const contextName = (clusterName: string): string => `coxswain-${clusterName}`;

function replace(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const fresh = `${path}.cox-${process.pid}`;
  writeFileSync(fresh, text, { mode: 0o600 });
  renameSync(fresh, path);
}

/** `options.name` is the cluster's; the context is named after it. */
export function writeKubeconfig(path: string, options: KubeconfigOptions): void {
  replace(path, kubeconfig({ ...options, name: contextName(options.name) }));
}

export const userKubeconfigPath = (): string =>
  process.env['KUBECONFIG']?.split(':')[0] || join(homedir(), '.kube', 'config');

function readUserConfig(path: string): Kubeconfig | undefined {
  try {
    return parse(readFileSync(path, 'utf8'), { version: '1.1' }) as Kubeconfig;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Adds or renews the cluster's context and makes it current; everything else in the file stays. */
export function mergeKubeconfig(ownPath: string, clusterName: string, intoPath = userKubeconfigPath()): void {
  const own = parse(readFileSync(ownPath, 'utf8'), { version: '1.1' }) as Kubeconfig;
  const merged = withoutCluster(readUserConfig(intoPath), clusterName);
  for (const list of ['clusters', 'users', 'contexts'] as const) merged[list].push(...own[list]);
  merged['current-context'] = own['current-context'];
  replace(intoPath, stringify(merged, { version: '1.1' }));
}

/** Takes the cluster's context out again, if it is there. */
export function unmergeKubeconfig(clusterName: string, path = userKubeconfigPath()): void {
  const config = readUserConfig(path);
  if (!config?.contexts?.some(context => context.name === contextName(clusterName))) return;
  replace(path, stringify(withoutCluster(config, clusterName), { version: '1.1' }));
}

function withoutCluster(config: Kubeconfig | undefined, clusterName: string): Kubeconfig {
  const name = contextName(clusterName);
  const others = (list: Named[] | undefined) => (list ?? []).filter(item => item.name !== name);
  const current = config?.['current-context'] ?? '';
  return {
    ...config,
    apiVersion: 'v1',
    kind: 'Config',
    clusters: others(config?.clusters),
    users: others(config?.users),
    contexts: others(config?.contexts),
    'current-context': current === name ? '' : current,
  };
}
