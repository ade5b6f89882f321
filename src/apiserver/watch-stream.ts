/**
 * A watch as an HTTP reply: one document an event, in the format and form the client asked for. A change is encoded once for all
 * watchers that want the same form. A client that does not read holds back only its own cursor.
 */

import type { KubeObject } from '../api/meta.ts';
import type { Clock } from '../base/clock.ts';
import type { CacheEvent } from './cache.ts';
import { isShownAsStored, shownObject } from './dispatcher.ts';
import type { Entry } from './entry.ts';
import { encodeBody, encodeEvent, type Representation, streamTypeOf } from './negotiation.ts';
import { begin, type ReplyContext } from './reply.ts';
import { countWatchList } from './request-metrics.ts';
import type { PathAttributes } from './request-path.ts';
import { apiVersionOf, type Served } from './resource-table.ts';
import { type IncludeObject, partialOf, tableOf } from './table.ts';
import { bookmarkObject, type Seen } from './watch.ts';

const BLUEPRINT = 'kubernetes.io/initial-events-list-blueprint';
/** Upstream's min-request-timeout: a watch without a timeout ends after one to two of these, so that clients spread. */
const TIMEOUT_SECONDS_MIN = 1800;

export interface WatchStream {
  readonly attributes: PathAttributes;
  readonly served: Served;
  readonly wanted: Representation;
  readonly includeObject: IncludeObject;
  readonly clock: Clock;
  readonly timeoutSeconds: number | undefined;
  readonly start: (signal: AbortSignal) => AsyncGenerator<readonly Seen[]>;
}

export async function serveWatch(context: ReplyContext, stream: WatchStream): Promise<void> {
  const { exchange } = context;
  const ended = new AbortController();
  const abort = () => ended.abort();
  if (exchange.signal.aborted) return;
  exchange.signal.addEventListener('abort', abort);
  const seconds = stream.timeoutSeconds || TIMEOUT_SECONDS_MIN * (1 + Math.random());
  const timer = stream.clock.after(seconds * 1000, abort, { background: true });
  try {
    const events = stream.start(ended.signal);
    const encoder = new EventEncoder(stream);
    // A query that is refused must be a Status, so headers wait until the watch had its first turn.
    let next = events.next();
    await Promise.race([next, new Promise(resolve => setImmediate(resolve))]);
    begin(context, 200, { 'content-type': streamTypeOf(stream.wanted) });
    // What is sent at the start waits for its reader every 64 KB, and changes cost little: no seat is held for either.
    context.admitted?.release();
    for (;;) {
      const { done, value } = await next;
      if (done) break;
      const lines = value.map(seen => encoder.encode(seen));
      const waiting = exchange.write(lines.length === 1 ? lines[0]! : Buffer.concat(lines));
      if (waiting) await waiting;
      if (value.some(seen => seen.type === 'BOOKMARK' && seen.initialEventsEnd))
        countWatchList(stream.attributes, stream.clock.monotonic() - context.receivedMs);
      if (ended.signal.aborted) break;
      next = events.next();
    }
    exchange.end();
  } finally {
    ended.abort();
    timer.cancel();
    exchange.signal.removeEventListener('abort', abort);
  }
}

class EventEncoder {
  readonly #stream: WatchStream;
  readonly #form: string;
  #columnsSent = false;

  constructor(stream: WatchStream) {
    this.#stream = stream;
    const { wanted, served, includeObject } = stream;
    this.#form = `${wanted.format} ${apiVersionOf(served.info)} ${wanted.as ?? ''} ${wanted.version} ${wanted.as === 'Table' ? includeObject : ''}`;
  }

  encode(seen: Seen): Buffer {
    const { served } = this.#stream;
    const { wanted } = this.#stream;
    const line = (type: string, object: unknown) => encodeEvent(type, object, wanted.format);
    if (seen.type === 'ERROR') return line('ERROR', seen.status);
    if (seen.type === 'BOOKMARK') return line('BOOKMARK', this.#bookmark(seen));
    if (wanted.as === 'Table') {
      const first = !this.#columnsSent;
      this.#columnsSent = true;
      // Ages in the cells are those of the moment, and the first row carries the columns: not shared.
      return line(seen.type, this.#table([seen.entry.object], first, seen.entry.object.metadata.resourceVersion));
    }
    return this.#shared(seen.source, seen.type, () => {
      if (wanted.as) return line(seen.type, partialOf(shownObject(served, seen.entry.object), wanted.version));
      if (wanted.format !== 'json' || !isShownAsStored(served, seen.entry))
        return line(seen.type, shownObject(served, seen.entry.object));
      return lineOfBytes(seen.type, seen.entry);
    });
  }

  #shared(source: CacheEvent | undefined, type: string, make: () => Buffer): Buffer {
    return source ? source.encoded(`${type} ${this.#form}`, make) : make();
  }
  #bookmark(seen: { revision: number; initialEventsEnd: boolean }): unknown {
    const { served, wanted } = this.#stream;
    const object = bookmarkObject({ kind: served.info.kind, apiVersion: apiVersionOf(served.info) }, seen);
    const { annotations: marks } = object.metadata;
    if (marks) marks[BLUEPRINT] = this.#emptyList().toString('base64');
    if (wanted.as === 'Table') {
      const table = this.#table([], false, String(seen.revision));
      const annotations = object.metadata.annotations;
      return annotations ? { ...table, rows: [{ cells: [], object: partialOf(object, wanted.version) }] } : table;
    }
    return wanted.as ? partialOf(object, wanted.version) : object;
  }
  /** What a client that makes a list of the stream begins with. */
  #emptyList(): Buffer {
    const { served, wanted } = this.#stream;
    const of = wanted.as
      ? { kind: 'PartialObjectMetadataList', apiVersion: `meta.k8s.io/${wanted.version}` }
      : { kind: served.info.listKind, apiVersion: apiVersionOf(served.info) };
    // No stream is in YAML, which alone is encoded later.
    return encodeBody({ ...of, metadata: {}, items: [] }, wanted.format) as Buffer;
  }
  #table(objects: readonly KubeObject[], withColumns: boolean, resourceVersion: string | undefined) {
    const { served, includeObject, clock, wanted } = this.#stream;
    return tableOf(served, objects, {
      includeObject,
      metadata: resourceVersion ? { resourceVersion } : {},
      shown: object => shownObject(served, object),
      nowMs: clock.now(),
      version: wanted.version,
      withColumns,
    });
  }
}

function lineOfBytes(type: string, entry: Entry): Buffer {
  return Buffer.concat([Buffer.from(`{"type":"${type}","object":`), entry.bytes, Buffer.from('}\n')]);
}
