/**
 * Host names of listeners and routes: plain ones, wildcards for any number of labels (`*.example.com`), and `*` for every name. Which
 * names two of them share, and which of two is the more specific.
 */

export const ANY = '*';

/** Whether every name of `inner` is one of `outer`. */
export function covers(outer: string, inner: string): boolean {
  if (outer === ANY || outer === inner) return true;
  if (!outer.startsWith('*.')) return false;
  const suffix = outer.slice(1);
  return (
    inner.endsWith(suffix) && inner.length > suffix.length && !(inner.startsWith('*.') && inner.length <= outer.length)
  );
}

/** The names that both have, as the more specific of the two; undefined when there are none. */
export function intersection(a: string, b: string): string | undefined {
  if (covers(a, b)) return b;
  return covers(b, a) ? a : undefined;
}

/** The more specific comes first: names, then wildcards with more labels, then `*`. */
export function compareSpecificity(a: string, b: string): number {
  const rank = (host: string) => (host === ANY ? 2 : host.startsWith('*.') ? 1 : 0);
  return rank(a) - rank(b) || b.length - a.length || (a < b ? -1 : a > b ? 1 : 0);
}

/** Of several patterns the one that a name goes to. */
export function mostSpecific<T>(name: string, all: Iterable<T>, patternOf: (each: T) => string): T | undefined {
  let best: T | undefined;
  for (const each of all)
    if (
      covers(patternOf(each), name) &&
      (best === undefined || compareSpecificity(patternOf(each), patternOf(best)) < 0)
    )
      best = each;
  return best;
}
