/**
 * `/metrics/resource` and the common part of `/metrics/cadvisor` in the Prometheus text format, under upstream's names and
 * labels. It measures nothing but what cgroup files say beside the statistics it is given.
 */

import type { CgroupLimits, CgroupTree } from '../../sys/cgroup.ts';
import { containerLimits, everyContainer, podLimits } from '../pods/resources.ts';
import type { PodStats, Stats } from './node-stats.ts';

type Labels = Readonly<Record<string, string>>;

class Text {
  readonly #families = new Map<string, string[]>();
  readonly #timeMs: number | undefined;
  constructor(timeMs?: number) {
    this.#timeMs = timeMs;
  }
  add(kind: 'counter' | 'gauge', name: string, help: string, labels: Labels, value: number): void {
    let lines = this.#families.get(name);
    if (!lines) this.#families.set(name, (lines = [`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`]));
    const shown = Object.entries(labels).map(([label, text]) => `${label}=${JSON.stringify(text)}`);
    const when = this.#timeMs === undefined ? '' : ` ${Math.round(this.#timeMs)}`;
    lines.push(`${name}${shown.length ? `{${shown.join(',')}}` : ''} ${value}${when}`);
  }
  toString(): string {
    return [...this.#families.values()].map(lines => `${lines.join('\n')}\n`).join('');
  }
}

const PRESSURES = [
  ['cpu', 'CPU'],
  ['memory', 'memory'],
  ['io', 'IO'],
] as const;

export function resourceMetrics(stats: Stats): string {
  const text = new Text(stats.timeMs);
  const cpu = 'Cumulative cpu time consumed by the';
  const memory = 'Current working set of the';
  text.add('counter', 'node_cpu_usage_seconds_total', `${cpu} node in core-seconds`, {}, stats.node.cpuNanos / 1e9);
  text.add('gauge', 'node_memory_working_set_bytes', `${memory} node in bytes`, {}, stats.node.workingSetBytes);
  for (const { pod, usage, containers } of stats.pods) {
    const labels = { namespace: pod.metadata.namespace!, pod: pod.metadata.name };
    text.add('counter', 'pod_cpu_usage_seconds_total', `${cpu} pod in core-seconds`, labels, usage.cpuNanos / 1e9);
    text.add('gauge', 'pod_memory_working_set_bytes', `${memory} pod in bytes`, labels, usage.workingSetBytes);
    for (const { state, usage: own } of containers) {
      const named = { container: state.name, ...labels };
      const at = (name: string) => `container_${name}`;
      text.add('counter', at('cpu_usage_seconds_total'), `${cpu} container in core-seconds`, named, own.cpuNanos / 1e9);
      text.add('gauge', at('memory_working_set_bytes'), `${memory} container in bytes`, named, own.workingSetBytes);
      const help = 'Start time of the container since unix epoch in seconds';
      text.add('gauge', at('start_time_seconds'), help, named, (state.startedMs ?? state.createdMs) / 1000);
    }
  }
  return `${text}# HELP resource_scrape_error 1 if there was an error while getting container metrics, 0 otherwise\n# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n`;
}

export function cadvisorMetrics(stats: Stats, cgroups: CgroupTree): string {
  const text = new Text(stats.timeMs);
  for (const one of stats.pods) addPod(text, one, { cgroups, timeMs: stats.timeMs });
  const machine = new Text();
  machine.add(
    'gauge',
    'machine_memory_bytes',
    'Amount of memory installed on the machine.',
    {},
    stats.memory.capacityBytes,
  );
  return `${text}${machine}`;
}

function addPod(text: Text, stats: PodStats, machine: { readonly cgroups: CgroupTree; readonly timeMs: number }): void {
  const { pod, usage, containers, interfaces, cgroup } = stats;
  const where = { namespace: pod.metadata.namespace!, pod: pod.metadata.name };
  const groups = [
    {
      labels: { container: '', id: cgroup, image: '', name: '', ...where },
      usage,
      limits: podLimits(pod),
      startedMs: undefined,
    },
    ...containers.map(({ state, cgroup: id, usage: own }) => {
      const spec = everyContainer(pod).find(container => container.name === state.name);
      return {
        labels: { container: state.name, id, image: state.imageRef, name: state.id, ...where },
        usage: own,
        limits: (spec ? containerLimits(spec) : {}) as CgroupLimits,
        startedMs: state.startedMs,
      };
    }),
  ];
  for (const { labels, usage: own, limits, startedMs } of groups) {
    const gauge = (name: string, help: string, value: number) =>
      text.add('gauge', `container_${name}`, help, labels, value);
    const counter = (name: string, help: string, value: number, more: Labels = {}) =>
      text.add('counter', `container_${name}`, help, { ...labels, ...more }, value);
    const held = machine.cgroups.throttling(labels.id);
    counter('cpu_usage_seconds_total', 'Cumulative cpu time consumed in seconds.', own.cpuNanos / 1e9, {
      cpu: 'total',
    });
    counter('cpu_cfs_periods_total', 'Number of elapsed enforcement period intervals.', held.periods);
    counter('cpu_cfs_throttled_periods_total', 'Number of throttled period intervals.', held.throttledPeriods);
    counter(
      'cpu_cfs_throttled_seconds_total',
      'Total time duration the container has been throttled.',
      held.throttledNanos / 1e9,
    );
    gauge(
      'memory_usage_bytes',
      'Current memory usage in bytes, including all memory regardless of when it was accessed',
      own.memoryBytes,
    );
    gauge('memory_working_set_bytes', 'Current working set in bytes.', own.workingSetBytes);
    gauge('memory_rss', 'Size of RSS in bytes.', own.rssBytes);
    gauge('memory_cache', 'Number of bytes of page cache memory.', own.cacheBytes);
    for (const [of, word] of PRESSURES) {
      const stalls = own.pressure?.[of];
      if (!stalls) continue;
      counter(
        `pressure_${of}_stalled_seconds_total`,
        `Total time duration no tasks in the container could make progress due to ${word} congestion.`,
        stalls.full.totalMicros / 1e6,
      );
      counter(
        `pressure_${of}_waiting_seconds_total`,
        `Total time duration tasks in the container have waited due to ${word} congestion.`,
        stalls.some.totalMicros / 1e6,
      );
    }
    gauge('processes', 'Number of processes running inside the container.', machine.cgroups.taskCount(labels.id));
    counter(
      'oom_events_total',
      'Count of out of memory events observed for the container',
      machine.cgroups.oomKills(labels.id),
    );
    gauge('spec_cpu_shares', 'CPU share of the container.', limits.cpuShares ?? 0);
    gauge('spec_memory_limit_bytes', 'Memory limit for the container.', limits.memoryBytesMax ?? 0);
    if (limits.cpuQuotaMicros !== undefined) {
      gauge('spec_cpu_quota', 'CPU quota of the container.', limits.cpuQuotaMicros);
      gauge('spec_cpu_period', 'CPU period of the container.', limits.cpuPeriodMicros ?? 0);
    }
    gauge('last_seen', 'Last time a container was seen by the exporter', Math.floor(machine.timeMs / 1000));
    if (startedMs !== undefined)
      gauge(
        'start_time_seconds',
        'Start time of the container since unix epoch in seconds.',
        Math.floor(startedMs / 1000),
      );
  }
  for (const { name, rxBytes, rxErrors, txBytes, txErrors } of interfaces) {
    const labels = { id: cgroup, image: '', interface: name, name: '', ...where };
    const add = (metric: string, help: string, value: number) =>
      text.add('counter', `container_network_${metric}`, help, labels, value);
    add('receive_bytes_total', 'Cumulative count of bytes received', rxBytes);
    add('receive_errors_total', 'Cumulative count of errors encountered while receiving', rxErrors);
    add('transmit_bytes_total', 'Cumulative count of bytes transmitted', txBytes);
    add('transmit_errors_total', 'Cumulative count of errors encountered while transmitting', txErrors);
  }
}
