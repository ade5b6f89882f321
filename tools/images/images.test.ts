import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { extract } from 'tar-stream';
import { copyWithLibraries } from './debian.ts';
import { elfNeeds } from './elf.ts';
import { FileTree } from './file-tree.ts';

test('the same tree gives the same bytes, whatever the order', async () => {
  const one = await new FileTree().file('/b', 'x').directory('/tmp', 0o1777).symlink('/a/link', '/b').toTar();
  const two = await new FileTree().symlink('/a/link', '/b').file('/b', 'x').directory('/tmp', 0o1777).toTar();
  assert.deepEqual(one, two);
  const names: string[] = [];
  const reader = extract();
  reader.end(one);
  for await (const entry of reader) {
    names.push(`${entry.header.name} ${entry.header.mode?.toString(8)} ${entry.header.linkname ?? ''}`.trim());
    entry.resume();
  }
  assert.deepEqual(names, ['a/ 755', 'a/link 777 /b', 'b 644', 'tmp/ 1777']);
});

test('a program tells what it needs, a text nothing', () => {
  const needs = elfNeeds(readFileSync('/bin/sh'));
  assert.match(needs!.interpreter!, /ld-linux/);
  assert.ok(needs!.libraries.includes('libc.so.6'));
  assert.equal(elfNeeds(Buffer.from('#!/bin/sh\n')), undefined);
});

test('a library that no package has is an error that names it', () => {
  const source = new FileTree().file('/bin/program', readFileSync('/bin/sh'));
  assert.throws(
    () => copyWithLibraries(source, new FileTree(), ['/bin/program']),
    /no package has \/lib64\/ld-linux|needs lib.*which none/,
  );
  assert.throws(() => copyWithLibraries(source, new FileTree(), ['/bin/absent']), /no package has \/bin\/absent/);
});

test('links are followed', () => {
  const source = new FileTree().file('/usr/lib/real', 'x').symlink('/usr/bin/name', '../lib/real');
  const target = new FileTree();
  copyWithLibraries(source, target, ['/usr/bin/name']);
  assert.ok(target.nodes.has('/usr/lib/real'));
});
