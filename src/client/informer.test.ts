import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject, WatchEvent } from '../api/meta.ts';
import { expired } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { BoundedQueue } from '../base/queue.ts';
import { Informer } from './informer.ts';
import { PODS } from './resources.ts';
import type { Transport } from './transport.ts';

const pod = (name: string, version: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'a', resourceVersion: version },
});

/** A server of scripted lists and watches. */
function scripted(lists: KubeObject[][], watches: BoundedQueue<readonly WatchEvent[]>[]) {
  const asked: (string | undefined)[] = [];
  const transport = {
    list: async () => ({
      apiVersion: 'v1',
      kind: 'PodList',
      metadata: { resourceVersion: '10' },
      items: lists.shift() ?? [],
    }),
    watch: (_target: unknown, options: { resourceVersion?: string }) => {
      asked.push(options.resourceVersion);
      return watches.shift() ?? new BoundedQueue<readonly WatchEvent[]>(1);
    },
  } as unknown as Transport;
  return { transport, asked };
}

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition() && tries < 2000; tries++) await new Promise(resolve => setTimeout(resolve, 5));
}

test('lists, follows the watch, keeps indexes, and resumes where a watch ended', async () => {
  const first = new BoundedQueue<readonly WatchEvent[]>(10);
  const second = new BoundedQueue<readonly WatchEvent[]>(10);
  const { transport, asked } = scripted([[pod('one', '5')]], [first, second]);
  const informer = new Informer({ transport, of: PODS, log: silentLogger });
  informer.addIndex('initial', object => [object.metadata.name[0]!]);
  const changes: string[] = [];
  informer.onChange(change =>
    changes.push(
      change.deleted ? `-${change.old.metadata.name}` : `${change.old ? '~' : '+'}${change.object.metadata.name}`,
    ),
  );
  const stop = new AbortController();
  const running = informer.run(stop.signal);
  await informer.synced;
  first.push([
    { type: 'ADDED', object: pod('two', '11') },
    { type: 'MODIFIED', object: pod('one', '12') },
  ]);
  first.push([
    { type: 'DELETED', object: pod('two', '13') },
    { type: 'BOOKMARK', object: pod('', '20') },
  ]);
  first.close();
  await until(() => asked.length === 2);
  assert.deepEqual(changes, ['+one', '+two', '~one', '-two']);
  assert.deepEqual(asked, ['10', '20']);
  assert.deepEqual(
    informer.byIndex('initial', 'o').map(object => object.metadata.resourceVersion),
    ['12'],
  );
  assert.deepEqual(informer.byIndex('initial', 't'), []);
  stop.abort();
  second.close();
  await running;
});

test('a 410 relists and hands out the differences only', async () => {
  const first = new BoundedQueue<readonly WatchEvent[]>(10);
  const second = new BoundedQueue<readonly WatchEvent[]>(10);
  const { transport } = scripted(
    [
      [pod('gone', '1'), pod('same', '2'), pod('old', '3')],
      [pod('same', '2'), pod('old', '9'), pod('new', '8')],
    ],
    [first, second],
  );
  const informer = new Informer({ transport, of: PODS, log: silentLogger });
  const stop = new AbortController();
  const running = informer.run(stop.signal);
  await informer.synced;
  const changes: string[] = [];
  informer.onChange(change =>
    changes.push(
      change.deleted ? `-${change.old.metadata.name}` : `${change.old ? '~' : '+'}${change.object.metadata.name}`,
    ),
  );
  changes.length = 0;
  first.push([{ type: 'ERROR', object: expired('too old resource version').status }]);
  await until(() => changes.length === 3);
  assert.deepEqual(changes, ['~old', '+new', '-gone']);
  stop.abort();
  second.close();
  await running;
});
