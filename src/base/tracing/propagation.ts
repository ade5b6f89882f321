/** How a trace goes from process to process: the headers of W3C's Trace Context and Baggage. */

import type { SpanContext } from './span.ts';

type Headers = Readonly<Record<string, string | readonly string[] | undefined>>;

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const NOTHING = /^0+$/;
const STATE_LENGTH_MAX = 512;
const BAGGAGE_LENGTH_MAX = 8192;

/** The span that a request was made for; undefined where it names none, or not by the rules. */
export function remoteParent(headers: Headers): SpanContext | undefined {
  const given = headers['traceparent'];
  if (typeof given !== 'string') return undefined;
  const [, version, traceId, spanId, flags, more] = TRACEPARENT.exec(given) ?? [];
  if (!version || !traceId || !spanId || !flags || version === 'ff' || (version === '00' && more !== undefined))
    return undefined;
  if (NOTHING.test(traceId) || NOTHING.test(spanId)) return undefined;
  const state = joined(headers['tracestate'], STATE_LENGTH_MAX);
  const baggage = baggageOf(headers);
  return {
    traceId,
    spanId,
    isRemote: true,
    isSampled: (Number.parseInt(flags, 16) & 1) === 1,
    ...(state ? { state } : {}),
    ...(baggage ? { baggage } : {}),
  };
}

export function baggageOf(headers: Headers): string | undefined {
  return joined(headers['baggage'], BAGGAGE_LENGTH_MAX);
}

/** The headers by which another process goes on with the trace. */
export function traceHeaders({ traceId, spanId, isSampled, state, baggage }: SpanContext): Record<string, string> {
  return {
    traceparent: `00-${traceId}-${spanId}-${isSampled ? '01' : '00'}`,
    ...(state ? { tracestate: state } : {}),
    ...(baggage ? { baggage } : {}),
  };
}

function joined(value: string | readonly string[] | undefined, lengthMax: number): string | undefined {
  const text = typeof value === 'string' ? value : value?.join(',');
  return text && text.length <= lengthMax ? text : undefined;
}
