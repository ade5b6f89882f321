/** No text of a route can become anything but a word where a word is meant: the rendered configuration parses to the same tree. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseConfiguration, renderConfiguration } from '../haproxy/configuration.ts';
import { hostileGateways } from '../hostile-fixture.ts';
import { gatewayDesired } from './gateway-desired.ts';
import { buildGatewayState } from './gateway-model.ts';

const TYPES = new Set([
  'global',
  'defaults',
  'frontend',
  'backend',
  'userlist',
  'resolvers',
  'listen',
  'program',
  'ring',
  'peers',
  'cache',
  'mailers',
]);
const DIRECTIVES =
  /^(mode|bind|timeout|option|log|log-format|http-request|http-response|tcp-request|acl|use_backend|default_backend|server|retries|retry-on|filter)$/;
/** Every %[…] that we ever write. */
const EVALUATED =
  /^(src|rand,hex,bytes\(8,8\)|var\((sess\.(client|id)|txn\.request)\)|var\(txn\.(to|host|path|origin)\)|var\(txn\.to\),map_str\(routes\.map\)|var\(txn\.(host|path)\),bytes\(0,\d+\),json\(ascii\)|pathq|req\.hdr\((host|x-cox-method)\))$/;

test('hostile routes give the same tree back, and only directives of ours', () => {
  fc.assert(
    fc.property(hostileGateways, ({ objects, targets }) => {
      const { frontends, caFiles } = buildGatewayState(objects, targets);
      const desired = gatewayDesired({ frontends, caFiles, bindAddress: '' }, new Map());
      const names = new Map([...desired.routes.keys()].map((id, at) => [id, `b${at}`]));
      const backendOf = (id: string) => names.get(id)!;
      const backends = [...desired.routes].map(([id, { lines }]) => ({ type: 'backend', name: backendOf(id), lines }));
      const sections = [...desired.sections(backendOf), ...backends];
      assert.deepEqual(parseConfiguration(renderConfiguration(sections), TYPES), sections);
      for (const { type, lines } of sections)
        for (const [keyword, ...words] of lines) {
          if (type !== 'frontend' && type !== 'backend') continue;
          assert.match(keyword!, DIRECTIVES);
          if (words[0]?.startsWith('lua.'))
            assert.match(`${keyword} ${words.join(' ')}`, /^(http-request lua\.mirror |filter lua\.deadline \d+$)/);
          // The pattern of an acl and the expression of a rewrite are matched, not evaluated.
          const evaluated = keyword === 'acl' ? [] : words[0] === 'replace-path' ? words.slice(2) : words;
          for (const word of evaluated)
            for (const [, expression] of word.replaceAll('%%', '').matchAll(/%\[([^\]]*)\]?/g))
              assert.match(expression!, EVALUATED, word);
        }
      for (const { serverWords } of desired.routes.values())
        for (const word of serverWords) assert.match(word, /^[A-Za-z0-9_.,()/@-]+$/);
      for (const map of desired.maps(backendOf).values())
        for (const [key, value] of map) {
          assert.match(key, /^[\x21-\x7e]+$/);
          assert.match(value, /^[\x20-\x7e]+$/);
        }
    }),
    { numRuns: 200 },
  );
});
