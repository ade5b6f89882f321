import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Keyring } from './credentials.ts';

const ring = (auths: Record<string, unknown>) => {
  const keyring = new Keyring();
  keyring.add(JSON.stringify({ auths }), { form: 'dockerconfigjson' });
  return keyring;
};
const names = (keyring: Keyring, repository: string) => keyring.lookup(repository).map(({ username }) => username);

test('which entry is for which repository', () => {
  const keyring = ring({
    'https://index.docker.io/v1/': { username: 'hub', password: 'x' },
    'registry.example': { username: 'host', password: 'x' },
    'registry.example/team': { username: 'team', password: 'x' },
    'https://registry.example/v2/team/app': { username: 'app', password: 'x' },
    '*.wild.example': { username: 'wild', password: 'x' },
    'a*.b?.example:5000': { username: 'glob', password: 'x' },
    'only.example': { auth: Buffer.from('user:pass:word').toString('base64') },
    'nothing.example': {},
  });
  for (const [repository, expected] of Object.entries({
    'docker.io/library/nginx': ['hub'],
    'registry.example/other': ['host'],
    'registry.example/team/x': ['team', 'host'],
    'registry.example/team/app': ['app', 'team', 'host'],
    'registry.example:443/team': [],
    'x.wild.example/a': ['wild'],
    'x.y.wild.example/a': [],
    'wild.example/a': [],
    'abc.b1.example:5000/a': ['glob'],
    'abc.b1.example/a': [],
    'nothing.example/a': [],
  }))
    assert.deepEqual(names(keyring, repository), expected, repository);
  assert.deepEqual(keyring.lookup('only.example/a'), [{ username: 'user', password: 'pass:word' }]);
});

test('the old form, and what cannot be read', () => {
  const old = new Keyring();
  old.add('{"registry.example":{"username":"u","password":"p"}}', { form: 'dockercfg' });
  assert.deepEqual(names(old, 'registry.example/a'), ['u']);
  for (const [text, expected] of [
    ['no', /not JSON/],
    ['{"auths": 1}', /not an object/],
    ['{"auths": {"h": 1}}', /not an object/],
    ['{"auths": {"h": {"auth": "bm9jb2xvbg=="}}}', /not base64 of user:password/],
  ] as const)
    assert.throws(() => new Keyring().add(text, { form: 'dockerconfigjson' }), expected, text);
});

test('no text does harm, and a host never gets the credentials of another', () => {
  const host = fc.stringMatching(/^[a-z]{1,5}\.[a-z]{1,5}(:\d{1,4})?$/);
  fc.assert(
    fc.property(host, host, (mine, other) => {
      const found = names(ring({ [mine]: { username: 'u', password: 'p' } }), `${other}/a`);
      assert.equal(found.length, mine === other ? 1 : 0);
    }),
  );
  fc.assert(
    fc.property(fc.json(), fc.string(), (text, location) => {
      for (const form of ['dockerconfigjson', 'dockercfg'] as const) {
        const keyring = new Keyring();
        try {
          keyring.add(text, { form });
          keyring.add(JSON.stringify({ auths: { [location]: { username: 'u' } } }), { form });
        } catch (error) {
          assert.ok(error instanceof Error);
        }
        keyring.lookup('docker.io/library/nginx');
      }
    }),
  );
});
