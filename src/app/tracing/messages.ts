/** The messages of OTLP (opentelemetry-proto 1.x) that carry spans, their one call, and what google.rpc says of errors. Facts only. */

import { call } from '../../csi/calls.ts';
import {
  bytes,
  chosen,
  double,
  fixed32,
  fixed64,
  flag,
  integer,
  message,
  repeated,
  schema,
  text,
} from '../../csi/protobuf.ts';

const TEXTS = schema({ values: repeated(message(1, schema({ stringValue: chosen(text(1)) }))) });
const VALUE = schema({
  stringValue: chosen(text(1)),
  boolValue: chosen(flag(2)),
  intValue: chosen(integer(3)),
  doubleValue: chosen(double(4)),
  arrayValue: message(5, TEXTS),
});
const KEY_VALUE = schema({ key: text(1), value: message(2, VALUE) });
const keyValues = (number: number) => repeated(message(number, KEY_VALUE));

const EVENT = schema({
  timeUnixNano: fixed64(1),
  name: text(2),
  attributes: keyValues(3),
  droppedAttributesCount: integer(4),
});
const LINK = schema({
  traceId: bytes(1),
  spanId: bytes(2),
  traceState: text(3),
  attributes: keyValues(4),
  flags: fixed32(6),
});
export const SPAN_KINDS = { internal: 1, server: 2, client: 3 } as const;
export const STATUS_ERROR = 2;
const SPAN = schema({
  traceId: bytes(1),
  spanId: bytes(2),
  traceState: text(3),
  parentSpanId: bytes(4),
  name: text(5),
  kind: integer(6),
  startTimeUnixNano: fixed64(7),
  endTimeUnixNano: fixed64(8),
  attributes: keyValues(9),
  droppedAttributesCount: integer(10),
  events: repeated(message(11, EVENT)),
  droppedEventsCount: integer(12),
  links: repeated(message(13, LINK)),
  status: message(15, schema({ message: text(2), code: integer(3) })),
  flags: fixed32(16),
});
const SCOPE_SPANS = schema({
  scope: message(1, schema({ name: text(1), version: text(2) })),
  spans: repeated(message(2, SPAN)),
});
const RESOURCE_SPANS = schema({
  resource: message(1, schema({ attributes: keyValues(1) })),
  scopeSpans: repeated(message(2, SCOPE_SPANS)),
});

export const TRACE_CALLS = {
  export: call(
    '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
    schema({ resourceSpans: repeated(message(1, RESOURCE_SPANS)) }),
    schema({ partialSuccess: message(1, schema({ rejectedSpans: integer(1), errorMessage: text(2) })) }),
  ),
} as const;

/** What a server that is busy says of when to come again. */
export const RPC_STATUS = schema({
  code: integer(1),
  message: text(2),
  details: repeated(message(3, schema({ typeUrl: text(1), value: bytes(2) }))),
});
export const RETRY_INFO_TYPE = 'type.googleapis.com/google.rpc.RetryInfo';
export const RETRY_INFO = schema({ retryDelay: message(1, schema({ seconds: integer(1), nanos: integer(2) })) });
