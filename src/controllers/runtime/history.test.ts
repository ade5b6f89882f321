import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dataOf } from './history.ts';

test('the data of a revision are the bytes that upstream writes, by which its clients find the revision', () => {
  const template = {
    metadata: { labels: { b: '1', a: '2' } },
    spec: { restartPolicy: 'Always', containers: [{ name: 'c', image: 'i', env: undefined }] },
  };
  assert.equal(
    JSON.stringify(dataOf({ spec: { template } } as never)),
    '{"spec":{"template":{"$patch":"replace","metadata":{"creationTimestamp":null,"labels":{"a":"2","b":"1"}},"spec":{"containers":[{"image":"i","name":"c"}],"restartPolicy":"Always"}}}}',
  );
});
