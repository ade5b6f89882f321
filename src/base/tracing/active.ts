/**
 * The span that the present work belongs to, whichever way it came here: as Go's context carries it. While nothing is traced in this process
 * there is none, and asking costs nothing.
 */

import type { AsyncLocalStorage } from 'node:async_hooks';
import type { Span, SpanOptions, Tracer } from './span.ts';

/** What `enter` may set further while the work goes on. */
export interface Scope {
  span: Span;
}

let storage: AsyncLocalStorage<Scope> | undefined;

export function activeSpan(): Span | undefined {
  if (storage === undefined) return undefined;
  const span = storage.getStore()?.span;
  // What goes on after its span has ended is nobody's any more: a loop that a request once began.
  return span?.isEnded ? undefined : span;
}

/** Runs the work, and all that comes of it, as part of the scope's span. */
export function within<T>(scope: Scope, work: () => T): T {
  storage ??= new (process.getBuiltinModule('node:async_hooks').AsyncLocalStorage)<Scope>();
  return storage.run(scope, work);
}

/** Runs the work under a span of its own, where it is part of one already. The span ends with the work. */
export function traced<T>(name: string, attributes: SpanOptions['attributes'], work: () => T): T {
  const parent = activeSpan();
  if (!parent) return work();
  const span = parent.tracer.start(name, parent.context, attributes ? { attributes } : {});
  return settling(span, () => within({ span }, work));
}

/** Runs the work as the beginning of a trace, where there is a tracer. */
export function tracedAnew<T>(tracer: Tracer | undefined, name: string, options: SpanOptions, work: () => T): T {
  if (!tracer) return work();
  const span = tracer.start(name, undefined, options);
  return settling(
    span,
    () => within({ span }, work),
    error => span.failWith(error),
  );
}

/** Ends the span once the work is done. */
export function settling<T>(span: Span, work: () => T, failed?: (error: unknown) => void): T {
  let result: T;
  try {
    result = work();
  } catch (error) {
    failed?.(error);
    span.end();
    throw error;
  }
  if (!(result instanceof Promise)) {
    span.end();
    return result;
  }
  result.then(
    () => span.end(),
    error => {
      failed?.(error);
      span.end();
    },
  );
  return result;
}
