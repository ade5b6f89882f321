/**
 * Counters, gauges and histograms in the Prometheus text format. One registry a process; registering a name twice
 * returns the first. Label order is fixed at registration; values are given in that order.
 */

type Kind = 'counter' | 'gauge' | 'histogram';

interface Series {
  labels: readonly string[];
  value: number;
  /** Observations by the first bound that holds them, not cumulative. */
  buckets?: number[];
  sum?: number;
}

/** One series of a metric, for hot paths that would look for it again and again. */
export interface SeriesHandle {
  add(amount: number): void;
  observe(value: number): void;
}

export class Metric {
  readonly name: string;
  readonly help: string;
  readonly kind: Kind;
  readonly labelNames: readonly string[];
  readonly bounds: readonly number[];
  readonly #series = new Map<string, Series>();

  constructor(options: {
    name: string;
    help: string;
    kind: Kind;
    labelNames?: readonly string[];
    bounds?: readonly number[];
  }) {
    this.name = options.name;
    this.help = options.help;
    this.kind = options.kind;
    this.labelNames = options.labelNames ?? [];
    this.bounds = options.bounds ?? [];
  }
  #at(labels: readonly string[]): Series {
    const key = labels.join('\0');
    let series = this.#series.get(key);
    if (!series) {
      series = {
        labels,
        value: 0,
        ...(this.kind === 'histogram' ? { buckets: new Array(this.bounds.length).fill(0), sum: 0 } : {}),
      };
      this.#series.set(key, series);
    }
    return series;
  }
  add(amount = 1, ...labels: string[]): void {
    this.#at(labels).value += amount;
  }
  set(value: number, ...labels: string[]): void {
    this.#at(labels).value = value;
  }
  observe(value: number, ...labels: string[]): void {
    this.#observe(this.#at(labels), value);
  }
  /** The series of these labels. Valid until `remove`. */
  series(...labels: string[]): SeriesHandle {
    const series = this.#at(labels);
    return {
      add: amount => {
        series.value += amount;
      },
      observe: value => this.#observe(series, value),
    };
  }
  #observe(series: Series, value: number): void {
    series.value += 1;
    series.sum! += value;
    let at = 0;
    while (at < this.bounds.length && value > this.bounds[at]!) at++;
    if (at < this.bounds.length) series.buckets![at]! += 1;
  }
  get(...labels: string[]): number {
    return this.#series.get(labels.join('\0'))?.value ?? 0;
  }
  remove(...labels: string[]): void {
    this.#series.delete(labels.join('\0'));
  }
  clear(): void {
    this.#series.clear();
  }
  render(): string {
    let out = `# HELP ${this.name} ${this.help}\n# TYPE ${this.name} ${this.kind}\n`;
    for (const series of this.#series.values()) {
      const pairs = this.labelNames.map((name, i) => `${name}=${JSON.stringify(series.labels[i] ?? '')}`);
      const text = (extra?: string) => {
        const all = extra ? [...pairs, extra] : pairs;
        return all.length ? `{${all.join(',')}}` : '';
      };
      if (this.kind !== 'histogram') {
        out += `${this.name}${text()} ${series.value}\n`;
        continue;
      }
      let below = 0;
      this.bounds.forEach((bound, i) => {
        below += series.buckets![i]!;
        out += `${this.name}_bucket${text(`le="${bound}"`)} ${below}\n`;
      });
      out += `${this.name}_bucket${text('le="+Inf"')} ${series.value}\n${this.name}_sum${text()} ${series.sum}\n${this.name}_count${text()} ${series.value}\n`;
    }
    return out;
  }
}

export class MetricsRegistry {
  readonly #metrics = new Map<string, Metric>();
  readonly #collectors: (() => void)[] = [];

  #register(options: ConstructorParameters<typeof Metric>[0]): Metric {
    let metric = this.#metrics.get(options.name);
    if (!metric) this.#metrics.set(options.name, (metric = new Metric(options)));
    return metric;
  }
  counter(name: string, help: string, labelNames: readonly string[] = []): Metric {
    return this.#register({ name, help, kind: 'counter', labelNames });
  }
  gauge(name: string, help: string, labelNames: readonly string[] = []): Metric {
    return this.#register({ name, help, kind: 'gauge', labelNames });
  }
  histogram(name: string, help: string, bounds: readonly number[], labelNames: readonly string[] = []): Metric {
    return this.#register({ name, help, kind: 'histogram', labelNames, bounds });
  }
  /** Runs before each rendering, to set gauges that are cheaper to read than to keep. */
  onCollect(collect: () => void): void {
    this.#collectors.push(collect);
  }
  /** Those whose names begin with one of the prefixes; all when absent. */
  render({ prefixes = [''] }: { readonly prefixes?: readonly string[] } = {}): string {
    for (const collect of this.#collectors) collect();
    return [...this.#metrics.values()]
      .filter(({ name }) => prefixes.some(prefix => name.startsWith(prefix)))
      .map(metric => metric.render())
      .join('');
  }
}

export const metrics = new MetricsRegistry();
