import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { ensurePki } from '../certificates/pki.ts';
import { openProvider, testFolder } from '../who-bed.ts';
import { JwtAuthenticator } from './jwt-authenticator.ts';

type Provider = Awaited<ReturnType<typeof openProvider>>;

const folder = testFolder();
let [provider, directory] = [] as unknown as [Provider, Provider];
let authenticator: JwtAuthenticator;
/** What the endpoints of claims answer, by path. */
const answers = new Map<string, () => string>();

before(async () => {
  const pki = await ensurePki(join(folder.path, 'pki'), { sans: [] });
  const claims = (path: string, authorization: string | undefined) =>
    path === '/guarded' && authorization !== 'Bearer f005ba11' ? undefined : answers.get(path)?.();
  provider = await openProvider(pki, claims);
  directory = await openProvider(pki, claims);
  authenticator = new JwtAuthenticator({
    clock: systemClock,
    issuers: [
      {
        issuer: { url: provider.url, certificateAuthority: pki.ca, audiences: ['cluster'] },
        claimMappings: { username: { claim: 'sub', prefix: '' }, groups: { claim: 'groups', prefix: 'o:' } },
      },
    ],
  });
});
after(async () => {
  authenticator?.close();
  await provider?.close();
  await directory?.close();
  folder.remove();
});

const groupsOf = async (token: string): Promise<readonly string[]> => {
  const groups = (await authenticator.verify(token, []))!.user.groups;
  return groups.filter(group => group !== 'system:authenticated');
};
const elsewhere = (url: string, more: object = {}, source: object = {}): string =>
  provider.token({
    sub: 'jane',
    _claim_names: { groups: 'src1' },
    _claim_sources: { src1: { endpoint: url, ...source } },
    ...more,
  });

test('groups are taken from where the token says, signed by the issuer or by another', async () => {
  answers.set('/groups', () => provider.token({ groups: ['a', 'b'] }));
  assert.deepEqual(await groupsOf(elsewhere(`${provider.url}/groups`)), ['o:a', 'o:b']);
  answers.set('/directory', () => `${directory.token({ groups: 'only' })}\n`);
  assert.deepEqual(await groupsOf(elsewhere(`${directory.url}/directory`)), ['o:only']);
});

test("the source's access token is presented", async () => {
  answers.set('/guarded', () => provider.token({ groups: ['a'] }));
  const url = `${provider.url}/guarded`;
  assert.deepEqual(await groupsOf(elsewhere(url, {}, { access_token: 'f005ba11' })), ['o:a']);
  await assert.rejects(groupsOf(elsewhere(url)), /could not expand distributed claims: .*"groups": status 404/);
});

test('a claim of its own, another claim and an aggregated one are not looked up', async () => {
  const nowhere = `${provider.url}/nowhere`;
  assert.deepEqual(await groupsOf(elsewhere(nowhere, { groups: ['own'] })), ['o:own']);
  assert.deepEqual(await groupsOf(elsewhere(nowhere, { _claim_names: { address: 'src1' } })), []);
  assert.deepEqual(await groupsOf(elsewhere('', {}, { JWT: 'x.y.z' })), []);
});

test('what does not hold is refused, and nothing is asked for a token that is not verified', async () => {
  const nowS = Math.floor(Date.now() / 1000);
  const url = `${provider.url}/bad`;
  const [head, body] = provider.token({ groups: ['root'] }).split('.');
  const bad: [string, string, RegExp][] = [
    [elsewhere(url), provider.token({ groups: ['a'], aud: 'someone' }), /distributed claim token: expected audience/],
    [elsewhere(url), provider.token({ groups: ['a'], exp: nowS - 1 }), /distributed claim token: token is expired/],
    [elsewhere(url), `${head}.${body}.AAAA`, /distributed claim token: .*signature/],
    [elsewhere(url), provider.token({ iss: 'http://127.0.0.1:1' }), /untrusted issuer .* is not https/],
    [elsewhere(url), provider.token({ roles: ['a'] }), /did not contain claim: groups/],
    [elsewhere(url), 'no token', /untrusted issuer from endpoint/],
    [elsewhere('http://127.0.0.1:1/x'), '', /is not https/],
    [elsewhere(url, { _claim_names: [] }), '', /parsing distributed claim names/],
    [elsewhere(url, { _claim_sources: undefined }), '', /no claim sources/],
    [elsewhere(url, { _claim_sources: { src1: 7 } }), '', /could not parse claim sources/],
    [elsewhere(url, { _claim_names: { groups: 'src2' } }), '', /contained a source src2 missing/],
    [elsewhere(url, { _claim_names: { groups: 'constructor' } }), '', /contained a source constructor missing/],
  ];
  for (const [token, answer, why] of bad) {
    answers.set('/bad', () => answer || 'nobody asks');
    await assert.rejects(groupsOf(token), why);
  }
  const asked = () => provider.seen.filter(({ path }) => path === '/bad').length;
  const before = asked();
  await assert.rejects(groupsOf(elsewhere(url, { aud: 'someone' })), /verify token: expected audience/);
  await assert.rejects(groupsOf(`${elsewhere(url).slice(0, -4)}AAAA`), /verify token: .*signature/);
  assert.equal(asked(), before);
});
