import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CorefileError, parseCorefile } from './corefile.ts';

test('blocks, arguments, nested blocks, comments, quotes and line numbers', () => {
  const blocks = parseCorefile(`# the whole world
.:53 {
    errors   # told
    kubernetes cluster.local in-addr.arpa {
        pods insecure
    }
    template IN A "with space" {
        answer "{{ .Name }} 60 \\"quoted\\""
    }
}

example.local, other.local {
    forward . 10.0.0.1
}
`);
  assert.deepEqual(
    blocks.map(({ keys, line }) => [keys, line]),
    [
      [['.:53'], 2],
      [['example.local', 'other.local'], 12],
    ],
  );
  const [errors, kubernetes, template] = blocks[0]!.directives;
  assert.deepEqual([errors!.name, errors!.args, errors!.line], ['errors', [], 3]);
  assert.deepEqual(kubernetes!.args, ['cluster.local', 'in-addr.arpa']);
  assert.deepEqual(kubernetes!.block[0], { name: 'pods', args: ['insecure'], block: [], line: 5 });
  assert.deepEqual(template!.args, ['IN', 'A', 'with space']);
  assert.deepEqual(template!.block[0]!.args, ['{{ .Name }} 60 "quoted"']);
});

test('snippets and variables', () => {
  const blocks = parseCorefile('(shared) {\n errors\n cache {$TTL}\n}\n. {\n import shared\n log\n}\n', { TTL: '9' });
  assert.deepEqual(
    blocks[0]!.directives.map(({ name, args }) => [name, ...args]),
    [['errors'], ['cache', '9'], ['log']],
  );
  assert.throws(() => parseCorefile('. {\n import custom/*.override\n}'), /Corefile:2 - import custom/);
});

test('faults are told with their line', () => {
  const fails = (text: string, pattern: RegExp) =>
    assert.throws(
      () => parseCorefile(text),
      (error: Error) => error instanceof CorefileError && pattern.test(error.message),
    );
  fails('. {\n errors\n', /^Corefile:2 - Unexpected end of file, expecting '}'/);
  fails('.:53\n', /^Corefile:1 - Unexpected end of file, expecting '{'/);
  fails('. {\n errors\n}\n}\n', /^Corefile:4 - Unexpected '}'/);
  fails('{\n}\n', /^Corefile:1 - a server block needs a zone/);
  fails('. {\n errors "open\n}\n', /^Corefile:2 - quoted text does not end/);
});

test('no text breaks the reader', () => {
  const piece = fc.constantFrom('{', '}', '.', '.:53', 'errors', '"', '#', '\n', ' ', 'import', '(a)', '{$X}', '\\');
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(piece, { maxLength: 40 }).map(parts => parts.join(' ')),
      ),
      text => {
        try {
          parseCorefile(text);
        } catch (error) {
          assert.ok(error instanceof CorefileError, String(error));
        }
      },
    ),
  );
});
