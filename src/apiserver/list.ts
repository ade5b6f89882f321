/**
 * Reading collections: resourceVersion and resourceVersionMatch, limit and continue. A continued list shows the revision
 * at which it began; when the store has forgotten it the client gets 410 with a token to go on from the present.
 */

import type { Clock } from '../base/clock.ts';
import {
  badRequest,
  type FieldError,
  failure,
  fieldErrors,
  invalid,
  messageOf,
  tooLargeResourceVersion,
} from '../base/errors.ts';
import { CompactedError } from '../store/store.ts';
import type { Caches, ResourceCache } from './cache.ts';
import { Entry } from './entry.ts';
import { uintProblem } from './go-numbers.ts';
import type { Selector } from './selectors.ts';
import { syntaxError } from './undecodable.ts';

/** How long a read waits for a revision that this server has not seen yet (upstream: 3 s). */
const FRESH_WAIT_MS = 3000;

export interface ListQuery {
  readonly resourceVersion: string;
  readonly resourceVersionMatch: string;
  readonly limit: number;
  readonly continue: string;
}

export interface ListResult {
  readonly entries: readonly Entry[];
  readonly revision: number;
  readonly continue: string;
  readonly remaining?: number;
  /** Set when the entries are all of this scope (`ns/` or everything) at present. */
  readonly whole?: string;
}

interface Token {
  readonly revision: number;
  /** Last key that was sent, within the namespace asked for. */
  readonly after: string;
}

export function parseResourceVersion(text: string): number {
  if (text === '') return 0;
  const problem = uintProblem(text);
  if (problem) throw badRequest(`resourceVersion: Invalid value: ${JSON.stringify(text)}: ${problem}`);
  return Number(text);
}

const LIST_OPTIONS = { group: 'meta.k8s.io', kind: 'ListOptions' };

/** Throws what upstream's ValidateListOptions finds. */
export function checkListQuery(query: ListQuery): void {
  const { resourceVersion, resourceVersionMatch: match } = query;
  if (match === '') return;
  const at = 'resourceVersionMatch';
  const errors: FieldError[] = [];
  if (!resourceVersion)
    errors.push(fieldErrors.forbidden(at, 'resourceVersionMatch is forbidden unless resourceVersion is provided'));
  if (query.continue)
    errors.push(fieldErrors.forbidden(at, 'resourceVersionMatch is forbidden when continue is provided'));
  if (match !== 'Exact' && match !== 'NotOlderThan')
    errors.push({
      type: 'FieldValueNotSupported',
      field: at,
      message: `Unsupported value: ${JSON.stringify(match)}: supported values: "Exact", "NotOlderThan", ""`,
    });
  if (match === 'Exact' && resourceVersion === '0')
    errors.push(fieldErrors.forbidden(at, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'));
  if (errors.length > 0) throw invalid(LIST_OPTIONS, '', errors);
}

/** Waits until the server has seen the revision; 504 when it does not in time. */
export async function waitFresh(caches: Caches, revision: number, clock: Clock): Promise<void> {
  if (revision <= caches.revision) return;
  const stop = new AbortController();
  await Promise.race([caches.reached(revision), clock.sleep(FRESH_WAIT_MS, stop.signal)]);
  stop.abort();
  if (caches.revision < revision) throw tooLargeResourceVersion(revision, caches.revision);
}

export async function listEntries(
  caches: Caches,
  cache: ResourceCache,
  options: { namespace: string; selector: Selector; query: ListQuery; clock: Clock },
): Promise<ListResult> {
  const { namespace, selector, query, clock } = options;
  checkListQuery(query);
  const prefix = namespace ? `${namespace}/` : '';
  let { limit } = query;
  let after = '';
  let at: number | undefined;
  if (query.continue) {
    const token = decodeToken(query.continue);
    if (query.resourceVersion !== '' && query.resourceVersion !== '0')
      throw badRequest('specifying resource version is not allowed when using continue');
    after = prefix + token.after;
    if (token.revision > 0) at = token.revision;
  } else {
    const asked = parseResourceVersion(query.resourceVersion);
    const exact =
      query.resourceVersionMatch === 'Exact' || (query.resourceVersionMatch === '' && limit > 0 && asked > 0);
    if (asked > 0) await waitFresh(caches, asked, clock);
    if (exact && asked > 0) at = asked;
    // Upstream's watch cache does not page what may be as old as it likes.
    if (query.resourceVersion === '0' && query.resourceVersionMatch === '') limit = 0;
  }
  const past = at !== undefined && at < cache.changed;
  const revision = at ?? caches.revision;
  const [entries, more] = past
    ? await collectPast(caches, cache, { prefix, after, at: at!, limit, selector })
    : collect(cache, { prefix, after, limit, selector });
  if (!more) {
    const whole = !past && after === '' && selector.everything;
    return { entries, revision, continue: '', ...(whole ? { whole: prefix } : {}) };
  }
  const last = entries.at(-1)!.key;
  const remaining = past || !selector.everything ? undefined : countAfter(cache, prefix, last);
  return {
    entries,
    revision,
    continue: encodeToken({ revision, after: last.slice(prefix.length) }),
    ...(remaining === undefined ? {} : { remaining }),
  };
}

interface Span {
  readonly prefix: string;
  readonly after: string;
  readonly limit: number;
  readonly selector: Selector;
}

function collect(cache: ResourceCache, span: Span): [Entry[], boolean] {
  const { prefix, after, limit, selector } = span;
  if (selector.name !== undefined && prefix !== '') return [one(cache, prefix + selector.name, selector), false];
  const entries: Entry[] = [];
  let more = false;
  cache.entries.walk(prefix, after || undefined, entry => {
    if (!selector.everything && !selector.matches(entry.object)) return true;
    if (limit > 0 && entries.length >= limit) {
      more = true;
      return false;
    }
    entries.push(entry);
    return true;
  });
  return [entries, more];
}

function one(cache: ResourceCache, key: string, selector: Selector): Entry[] {
  const entry = cache.entries.get(key);
  return entry && selector.matches(entry.object) ? [entry] : [];
}

function countAfter(cache: ResourceCache, prefix: string, after: string): number {
  let count = 0;
  cache.entries.walk(prefix, after, () => {
    count++;
    return true;
  });
  return count;
}

async function collectPast(
  caches: Caches,
  cache: ResourceCache,
  span: Span & { at: number },
): Promise<[Entry[], boolean]> {
  const { prefix, at, limit, selector } = span;
  const base = cache.prefix.length;
  let after = span.after && cache.prefix + span.after;
  const entries: Entry[] = [];
  for (;;) {
    const page = await caches.store
      .list(cache.prefix + prefix, { at, ...(limit > 0 ? { limit: limit + 1 } : {}), ...(after ? { after } : {}) })
      .catch(error => {
        throw error instanceof CompactedError ? expiredList(span, cache) : error;
      });
    for (const { key, value, modRevision } of page.entries) {
      const entry = new Entry({ key: key.slice(base), revision: modRevision, value });
      if (!selector.everything && !selector.matches(entry.object)) continue;
      if (limit > 0 && entries.length >= limit) return [entries, true];
      entries.push(entry);
    }
    if (!page.more) return [entries, false];
    after = page.entries.at(-1)!.key;
  }
}

function expiredList(span: Span, cache: ResourceCache): Error {
  if (span.after === '')
    return failure(410, 'Expired', `The resourceVersion for the provided list is too old (${cache.changed}).`);
  const token = encodeToken({ revision: 0, after: span.after.slice(span.prefix.length) });
  const error = failure(
    410,
    'Expired',
    'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.',
  );
  (error.status.metadata as Record<string, unknown>)['continue'] = token;
  return error;
}

// The form of upstream's tokens: version, revision, key below the prefix. Revision 0 (there -1) means now.
function encodeToken({ revision, after }: Token): string {
  const json = JSON.stringify({ v: 'meta.k8s.io/v1', rv: revision === 0 ? -1 : revision, start: `${after}\0` });
  return Buffer.from(json).toString('base64url');
}

function decodeToken(text: string): Token {
  const json = Buffer.from(text, 'base64url').toString();
  try {
    const { v, rv, start } = JSON.parse(json) as {
      v: string;
      rv: number;
      start: string;
    };
    if (v !== 'meta.k8s.io/v1' || typeof rv !== 'number' || typeof start !== 'string' || rv === 0)
      throw new Error('unsupported token');
    return { revision: Math.max(0, rv), after: start.endsWith('\0') ? start.slice(0, -1) : start };
  } catch (error) {
    const why = error instanceof SyntaxError ? syntaxError(json, error) : messageOf(error);
    throw badRequest(`invalid continue token: continue key is not valid: ${why}`);
  }
}
