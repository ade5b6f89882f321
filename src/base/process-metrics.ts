/** What every component says of its own process, by the names that Prometheus' libraries give it, and which version it is, with what features. */

import { readdirSync, readFileSync } from 'node:fs';
import { BUILD_COMMIT, KUBERNETES_VERSION } from './cluster-defaults.ts';
import { FEATURE_GATES } from './feature-gates.ts';
import { metrics } from './metrics.ts';

const cpu = () => metrics.counter('process_cpu_seconds_total', 'Total user and system CPU time spent in seconds.');
const resident = () => metrics.gauge('process_resident_memory_bytes', 'Resident memory size in bytes.');
const virtual = () => metrics.gauge('process_virtual_memory_bytes', 'Virtual memory size in bytes.');
const descriptors = () => metrics.gauge('process_open_fds', 'Number of open file descriptors.');
const descriptorsMax = () => metrics.gauge('process_max_fds', 'Maximum number of open file descriptors.');
const started = () =>
  metrics.gauge('process_start_time_seconds', 'Start time of the process since unix epoch in seconds.');
const build = () =>
  metrics.gauge(
    'kubernetes_build_info',
    "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
    [
      'major',
      'minor',
      'git_version',
      'git_commit',
      'git_tree_state',
      'build_date',
      'go_version',
      'compiler',
      'platform',
    ],
  );
const features = () =>
  metrics.gauge(
    'kubernetes_feature_enabled',
    '[BETA] This metric records the data about the stage and enablement of a k8s feature.',
    ['name', 'stage'],
  );

let isFollowed = false;

/** Begins to tell it with each scrape of this process; a second call changes nothing. */
export function followProcess(): void {
  if (isFollowed) return;
  isFollowed = true;
  const { major, minor, git } = KUBERNETES_VERSION;
  const platform = `linux/${process.arch === 'x64' ? 'amd64' : process.arch}`;
  build().set(1, major, minor, git, BUILD_COMMIT, 'clean', '1970-01-01T00:00:00Z', 'none', 'node', platform);
  started().set(Math.round(Date.now() / 1000 - process.uptime()));
  for (const [stage, { on, off }] of Object.entries(FEATURE_GATES)) {
    for (const name of on) features().set(1, name, stage);
    for (const name of off) features().set(0, name, stage);
  }
  metrics.onCollect(() => {
    const { user, system } = process.cpuUsage();
    cpu().set((user + system) / 1e6);
    resident().set(process.memoryUsage.rss());
    virtual().set(Number(/^\d+/.exec(readFileSync('/proc/self/statm', 'utf8'))?.[0] ?? 0) * 4096);
    descriptors().set(readdirSync('/proc/self/fd').length);
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    if (limit) descriptorsMax().set(Number(limit));
  });
}
