/** A component's tracer with its exporter, as its settings want them. */

import type { Duplex } from 'node:stream';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { type TracingSettings, tracingEndpoint } from '../../base/tracing/configuration.ts';
import { type Attributes, Tracer } from '../../base/tracing/span.ts';
import { SpanExporter } from './exporter.ts';

export interface Tracing {
  readonly tracer: Tracer;
  /** Sends what there is of spans, for some seconds at most. */
  close(): Promise<void>;
}

export interface TracingContext {
  /** Opens connections itself, for who must do so from elsewhere; undefined leaves one to node. */
  readonly dial?: (place: { readonly host: string; readonly port: number }) => Duplex | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export function openTracing(
  settings: TracingSettings,
  context: TracingContext & { readonly resource: Attributes },
): Tracing {
  const { clock, random, log } = context;
  const exporter = new SpanExporter({ ...context, endpoint: tracingEndpoint(settings) });
  const { endpoint = 'localhost:4317', samplingRatePerMillion = 0 } = settings;
  log.info('traces are exported', { endpoint, samplingRatePerMillion });
  return {
    tracer: new Tracer({ samplingRatePerMillion, sink: exporter, clock, random }),
    close: () => exporter.close(),
  };
}
