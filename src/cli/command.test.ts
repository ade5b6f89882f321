import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Command, helpOf, parseInvocation } from './command.ts';

const command: Command = {
  name: 'demo',
  summary: 'show',
  usage: 'FILE...',
  takesWords: true,
  options: { nodes: { type: 'string', value: 'N', help: 'how many' }, force: { type: 'boolean', help: 'really' } },
  run() {},
};

test('options, words and the common options are parsed', () => {
  const invocation = parseInvocation(command, ['--nodes', '2', 'a', '--name=ci', '-o', 'json', 'b']);
  assert.deepEqual(invocation, {
    options: { nodes: '2', force: undefined, name: 'ci', output: 'json', help: undefined },
    words: ['a', 'b'],
    json: true,
    cluster: 'ci',
  });
});

test('words behind -- are left alone', () => {
  assert.deepEqual(parseInvocation(command, ['node-1', '--', 'ip', '-4', 'address'])?.words, [
    'node-1',
    'ip',
    '-4',
    'address',
  ]);
});

test('words are refused by commands that take none, so that a name without --name ends no other cluster', () => {
  const wordless: Command = { ...command, takesWords: false };
  assert.throws(() => parseInvocation(wordless, ['ci']), /unexpected "ci"; see: cox demo --help/);
  assert.equal(parseInvocation(wordless, ['--name', 'ci'])?.cluster, 'ci');
});

test('a wrong option names itself and the way to help; a wrong output its rule', () => {
  assert.throws(() => parseInvocation(command, ['--node', '2']), /Unknown option '--node'.*cox demo --help/);
  assert.throws(
    () => parseInvocation(command, ['-o', 'yaml']),
    /--output: Unsupported value: "yaml": supported values: "json"/,
  );
});

test('a pass-through command reads only a leading --name', () => {
  const through: Command = { ...command, passThrough: true };
  assert.deepEqual(parseInvocation(through, ['--name', 'ci', 'get', 'pods', '--name', 'x', '-o', 'json'])?.words, [
    'get',
    'pods',
    '--name',
    'x',
    '-o',
    'json',
  ]);
});

test('help shows every option with its default', () => {
  assert.match(
    helpOf(command),
    /Usage: cox demo FILE\.\.\.\n[\s\S]*--nodes N +how many\n[\s\S]*--name NAME +the cluster \(default dev\)/,
  );
});
