import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { terminalSizes } from './terminal-size.ts';

test('the newest size reaches everyone who waits, whatever way its bytes arrive', async () => {
  const stream = new PassThrough();
  const sizes = terminalSizes(stream)[Symbol.asyncIterator]();
  const waiting = [sizes.next(), sizes.next()];
  stream.write('{"Width":80,"Hei');
  stream.write('ght":24}\n');
  for (const result of waiting) assert.deepEqual(await result, { done: false, value: { width: 80, height: 24 } });
  stream.write('{"Width":1,"Height":1}{"Width":2,"Height":2}{"Width":0,"Height":9}{nonsense}');
  await new Promise(resolve => setImmediate(resolve));
  assert.deepEqual((await sizes.next()).value, { width: 2, height: 2 });
  stream.end();
  assert.equal((await sizes.next()).done, true);
});
