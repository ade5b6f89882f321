/**
 * What every Store must do, as tests. Each backend's own test file calls `storeContract` with a way to open an empty one.
 */

import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import {
  CompactedError,
  ConflictError,
  FutureRevisionError,
  type Progress,
  type Revision,
  type Store,
  type StoreEvent,
} from './store.ts';

const bytes = (text: string) => Buffer.from(text);
const text = (value: Uint8Array | undefined) => (value ? Buffer.from(value).toString() : undefined);

/** Reads events until one has the revision given; progress marks count too. */
async function eventsUntil(
  store: Store,
  options: { prefix: string; from: Revision; until: Revision },
): Promise<StoreEvent[]> {
  const stop = new AbortController();
  const events: StoreEvent[] = [];
  for await (const event of store.watch(options.prefix, options.from, stop.signal)) {
    const revision = revisionOf(event);
    if (event.type !== 'progress') events.push(event);
    if (revision >= options.until) break;
  }
  stop.abort();
  return events;
}

function revisionOf(event: StoreEvent | Progress): Revision {
  return event.type === 'put' ? event.entry.modRevision : event.revision;
}

/** Registers the suite; `open` gives an empty store, closed by the suite. */
export function storeContract(name: string, open: () => Promise<Store>): void {
  const check = (title: string, body: (store: Store) => Promise<void>) =>
    test(`${name}: ${title}`, async () => {
      const store = await open();
      try {
        await body(store);
      } finally {
        await store.close();
      }
    });
  const put = (store: Store, key: string, value: string, expect?: Revision | 'absent') =>
    store.commit({ type: 'put', key, value: bytes(value), ...(expect === undefined ? {} : { expect }) });

  check('each commit takes the next revision', async store => {
    const first = await put(store, '/a', '1');
    const second = await put(store, '/a', '2');
    assert.ok(first >= 1);
    assert.equal(second, first + 1);
    assert.equal(store.revision(), second);
    const entry = await store.get('/a');
    assert.equal(entry?.createRevision, first);
    assert.equal(entry?.modRevision, second);
    assert.equal(text(entry?.value), '2');
    assert.equal(await store.get('/b'), undefined);
  });

  check('a deleted and created key starts anew', async store => {
    await put(store, '/a', '1');
    await store.commit({ type: 'delete', key: '/a' });
    assert.equal(await store.get('/a'), undefined);
    const again = await put(store, '/a', '2', 'absent');
    assert.equal((await store.get('/a'))?.createRevision, again);
  });

  check('commits are compared with what is there', async store => {
    const first = await put(store, '/a', '1', 'absent');
    await assert.rejects(put(store, '/a', '2', 'absent'), (error: ConflictError) => {
      assert.ok(error instanceof ConflictError);
      assert.equal(text(error.current?.value), '1');
      assert.equal(error.current?.modRevision, first);
      return true;
    });
    await assert.rejects(put(store, '/a', '2', first + 7), ConflictError);
    await assert.rejects(put(store, '/b', '2', 1), ConflictError);
    await assert.rejects(store.commit({ type: 'delete', key: '/b' }), ConflictError);
    await assert.rejects(store.commit({ type: 'delete', key: '/a', expect: first + 7 }), ConflictError);
    const second = await put(store, '/a', '2', first);
    await store.commit({ type: 'delete', key: '/a', expect: second });
    assert.equal(store.revision(), second + 1);
  });

  check('of concurrent creates of one key exactly one wins', async store => {
    const results = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => put(store, '/a', String(i), 'absent')),
    );
    assert.equal(results.filter(result => result.status === 'fulfilled').length, 1);
    assert.equal(results[0]!.status, 'fulfilled');
    assert.equal(text((await store.get('/a'))?.value), '0');
  });

  check('a conflict is told when what it conflicts with can be read', async store => {
    const first = await put(store, '/a', '1');
    const winner = put(store, '/a', '2', first);
    await assert.rejects(put(store, '/a', '3', first), ConflictError);
    assert.equal(text((await store.get('/a'))?.value), '2');
    const other = put(store, '/b', '1', 'absent');
    await assert.rejects(put(store, '/b', '2', 'absent'), ConflictError);
    assert.equal(text((await store.get('/b'))?.value), '1');
    await Promise.all([winner, other]);
  });

  check('concurrent commits are applied in call order', async store => {
    const revisions = await Promise.all(Array.from({ length: 3000 }, (_, i) => put(store, `/k/${i % 7}`, String(i))));
    for (let i = 1; i < revisions.length; i++) assert.equal(revisions[i], revisions[i - 1]! + 1);
    assert.equal(text((await store.get('/k/3'))?.value), String(2999 - ((2999 - 3) % 7)));
  });

  check('lists a prefix in key order, page by page', async store => {
    const keys = ['/p/a/x', '/p/a-b/x', '/p/a/y', '/p/b', '/q/a', '/p/a.c/z'];
    await Promise.all(keys.map(key => put(store, key, key)));
    const all = await store.list('/p/');
    assert.deepEqual(
      all.entries.map(entry => entry.key),
      ['/p/a-b/x', '/p/a.c/z', '/p/a/x', '/p/a/y', '/p/b'],
    );
    assert.equal(all.more, false);
    assert.equal(all.revision, store.revision());
    const seen: string[] = [];
    let after: string | undefined;
    for (;;) {
      const page = await store.list('/p/', { limit: 2, at: all.revision, ...(after ? { after } : {}) });
      seen.push(...page.entries.map(entry => entry.key));
      if (!page.more) break;
      after = seen.at(-1)!;
      await put(store, `/p/a/new-${seen.length}`, 'later');
    }
    assert.deepEqual(
      seen,
      all.entries.map(entry => entry.key),
    );
    assert.deepEqual((await store.list('/p/', { limit: 5, at: all.revision })).more, false);
  });

  check('shows the past', async store => {
    const first = await put(store, '/a', '1');
    const second = await put(store, '/a', '2');
    const gone = await store.commit({ type: 'delete', key: '/a' });
    await put(store, '/a', '3');
    assert.equal(text((await store.get('/a', first))?.value), '1');
    assert.equal(text((await store.get('/a', second))?.value), '2');
    assert.equal(await store.get('/a', gone), undefined);
    assert.deepEqual((await store.list('/', { at: gone })).entries, []);
    assert.equal((await store.list('/', { at: second })).entries.length, 1);
    await assert.rejects(store.get('/a', gone + 10), FutureRevisionError);
    await assert.rejects(store.list('/', { at: gone + 10 }), FutureRevisionError);
  });

  check('watches from a revision, through history, into the present', async store => {
    const start = await put(store, '/w/a', '1');
    await put(store, '/x/a', 'other');
    await put(store, '/w/a', '2');
    await store.commit({ type: 'delete', key: '/w/a' });
    const until = start + 5;
    const watching = eventsUntil(store, { prefix: '/w/', from: start, until });
    await put(store, '/w/b', '3');
    await put(store, '/w/b', '4');
    const events = await watching;
    assert.deepEqual(
      events.map(event => [event.type, revisionOf(event), text(event.previous?.value)]),
      [
        ['put', start + 2, '1'],
        ['delete', start + 3, '2'],
        ['put', start + 4, undefined],
        ['put', start + 5, '3'],
      ],
    );
  });

  check('a long history is watched without gaps', async store => {
    await Promise.all(Array.from({ length: 6000 }, (_, i) => put(store, `/w/${i % 50}`, String(i))));
    const events = await eventsUntil(store, { prefix: '/w/', from: 0, until: 6000 });
    assert.deepEqual(
      events.map(revisionOf),
      Array.from({ length: 6000 }, (_, i) => i + 1),
    );
  });

  check('a watch reports progress past events of others, and ends with its signal', async store => {
    const at = await put(store, '/x', '1');
    const stop = new AbortController();
    const seen: (StoreEvent | Progress)[] = [];
    const done = (async () => {
      for await (const event of store.watch('/w/', 0, stop.signal)) {
        seen.push(event);
        stop.abort();
      }
    })();
    await done;
    assert.deepEqual(seen, [{ type: 'progress', revision: at }]);
  });

  check('followers see every commit before it resolves, from a revision on, until they leave', async store => {
    const start = await put(store, '/a', '1');
    await put(store, '/b', '1');
    const stop = new AbortController();
    const seen: string[] = [];
    const done = store.follow(
      start,
      change => {
        seen.push(change.type === 'put' ? `${change.entry.key} ${text(change.entry.value)}` : `${change.key} gone`);
      },
      stop.signal,
    );
    assert.deepEqual(seen, ['/b 1']);
    const committed = put(store, '/a', '2').then(() => assert.equal(seen.at(-1), '/a 2'));
    await committed;
    await store.commit({ type: 'delete', key: '/b' });
    assert.deepEqual(seen, ['/b 1', '/a 2', '/b gone']);
    stop.abort();
    await done;
    await put(store, '/a', '3');
    assert.equal(seen.length, 3);
    await store.compact(store.revision());
    await assert.rejects(
      store.follow(start, () => {}, new AbortController().signal),
      CompactedError,
    );
    const failing = store.follow(
      store.revision(),
      () => {
        throw new Error('enough');
      },
      new AbortController().signal,
    );
    await Promise.all([put(store, '/a', '4'), assert.rejects(failing, /enough/)]);
  });

  check('compaction forgets the past and keeps the present', async store => {
    const first = await put(store, '/a', '1');
    await put(store, '/b', '1');
    await put(store, '/a', '2');
    await store.commit({ type: 'delete', key: '/b' });
    const before = store.revision();
    const last = await put(store, '/a', '3');
    await store.compact(before);
    assert.equal(text((await store.get('/a'))?.value), '3');
    assert.deepEqual(
      (await store.list('/')).entries.map(entry => entry.key),
      ['/a'],
    );
    await assert.rejects(store.get('/a', first), CompactedError);
    await assert.rejects(store.list('/', { at: first }), CompactedError);
    await assert.rejects(eventsUntil(store, { prefix: '/', from: first, until: last }), CompactedError);
    const events = await eventsUntil(store, { prefix: '/', from: before, until: last });
    assert.deepEqual(
      events.map(event => text(event.previous?.value)),
      ['2'],
    );
    await store.compact(first);
    assert.equal(store.revision(), last);
  });
}
