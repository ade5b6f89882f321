import assert from 'node:assert/strict';
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { unpackLayer } from './layer.ts';

const work = mkdtempSync(join(tmpdir(), 'cox-layer-'));
after(() => rmSync(work, { recursive: true, force: true }));

interface Entry {
  readonly name: string;
  readonly flag: string;
  readonly link: string;
  readonly body: string;
  readonly mode: number;
}

function header({ name, flag, link, mode }: Entry, size: number): Buffer {
  const block = Buffer.alloc(512);
  block.write(name, 0, 100);
  block.write(`${mode.toString(8).padStart(7, '0')}\0`, 100);
  block.write('0000000\0', 108);
  block.write('0000000\0', 116);
  block.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  block.write('00000000001\0', 136);
  block.write('        ', 148);
  block.write(flag, 156);
  block.write(link, 157, 100);
  block.write('ustar\x0000', 257);
  // Devices: the disk 8:0.
  block.write('0000010\0', 329);
  block.write('0000000\0', 337);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

function archive(entries: readonly Entry[]): Buffer {
  const parts = entries.flatMap(entry => {
    const body = Buffer.from(entry.flag === '0' ? entry.body : '');
    return [header(entry, body.length), body, Buffer.alloc((512 - (body.length % 512)) % 512)];
  });
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

async function* chunks(data: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += 700) yield data.subarray(at, at + 700);
}

test('whatever a layer holds, nothing outside of its folder changes', async () => {
  const place = join(work, 'place');
  // Names that meet each other, and those of what lies outside.
  const part = fc.constantFrom(
    'a',
    'b',
    'c',
    '..',
    '.',
    '',
    'link',
    '.wh.a',
    '.wh..wh..opq',
    '.wh.',
    'outside',
    'victim',
  );
  const path = fc.array(part, { minLength: 1, maxLength: 4 }).map(parts => parts.join('/'));
  const target = fc.oneof(
    path,
    path.map(one => `/${one}`),
    fc.constantFrom(join(place, 'outside'), join(place, 'outside/victim'), '../outside', '/'),
  );
  const entry = fc.record({
    name: fc.oneof(
      path,
      path.map(one => `/${one}`),
      path.map(one => `../${one}`),
    ),
    flag: fc.constantFrom('0', '0', '1', '2', '2', '3', '4', '5', '5', '6'),
    link: target,
    body: fc.constantFrom('evil', ''),
    mode: fc.constantFrom(0o644, 0o4755, 0o777, 0),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(entry, { minLength: 1, maxLength: 12 }), async entries => {
      rmSync(place, { recursive: true, force: true });
      mkdirSync(join(place, 'outside'), { recursive: true });
      mkdirSync(join(place, 'root'));
      writeFileSync(join(place, 'outside/victim'), 'untouched', { mode: 0o600 });
      const seen = () => {
        const [file, folder] = [statSync(join(place, 'outside/victim')), statSync(join(place, 'outside'))];
        return [file.mode, file.nlink, file.mtimeMs, file.uid, folder.mode, folder.mtimeMs, folder.nlink];
      };
      const before = seen();
      await unpackLayer(chunks(archive(entries)), join(place, 'root')).catch(error =>
        assert.ok(error instanceof Error),
      );
      assert.deepEqual(readdirSync(place).sort(), ['outside', 'root']);
      assert.deepEqual(readdirSync(join(place, 'outside')), ['victim']);
      assert.equal(readFileSync(join(place, 'outside/victim'), 'utf8'), 'untouched');
      assert.deepEqual(seen(), before);
    }),
    { numRuns: 300 },
  );
});

test('any bytes are an error or a layer', async () => {
  const good = archive([
    { name: 'd', flag: '5', link: '', body: '', mode: 0o755 },
    { name: 'd/f', flag: '0', link: '', body: 'x'.repeat(2000), mode: 0o644 },
  ]);
  await fc.assert(
    fc.asyncProperty(fc.nat(good.length - 1), fc.nat(255), fc.nat(good.length), async (at, byte, end) => {
      const root = mkdtempSync(join(work, 'any-'));
      const bad = Buffer.from(good.subarray(0, Math.max(end, 1)));
      if (at < bad.length) bad[at] = byte;
      await unpackLayer(chunks(bad), root).catch(error => assert.ok(error instanceof Error));
      rmSync(root, { recursive: true, force: true });
    }),
    { numRuns: 200 },
  );
});

test('a folder that became a link keeps what it leads to as it was', async () => {
  const root = join(work, 'times');
  const outside = join(work, 'times-outside');
  mkdirSync(root);
  mkdirSync(outside);
  const before = lstatSync(outside).mtimeMs;
  const entry = { link: '', body: '', mode: 0o755 };
  await unpackLayer(
    chunks(
      archive([
        { ...entry, name: 'a', flag: '5' },
        { ...entry, name: 'a', flag: '2', link: outside },
      ]),
    ),
    root,
  );
  assert.equal(lstatSync(outside).mtimeMs, before);
});

test('unpacking ends when the disk has no room', async () => {
  const root = join(work, 'full');
  mkdirSync(root);
  const big = { name: 'f', flag: '0', link: '', body: 'x'.repeat(20 << 20), mode: 0o644 };
  let asked = 0;
  await assert.rejects(
    unpackLayer(chunks(archive([big, { ...big, name: 'g' }])), root, { spareBytes: () => (asked++ < 1 ? 1 : 0) }),
    /no space left/,
  );
  assert.ok(lstatSync(join(root, 'f')).size < 20 << 20);
});
