import assert from 'node:assert/strict';
import { createSign, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { NAMESPACES, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import { type GrpcServer, serveGrpc } from '../../csi/grpc.ts';
import { type Bed, eventually, openBed } from '../who-bed.ts';
import { EXTERNAL_SIGNER_CALLS } from './external-signer.ts';
import { decodeJwt } from './jwt.ts';

const closing: (() => void | Promise<void>)[] = [];
after(async () => {
  for (const close of closing.reverse()) await close();
});

async function bedWith(args: Parameters<typeof openBed>[0]): Promise<Bed> {
  const bed = await openBed(args);
  closing.push(() => bed.close());
  const made = (kind: string, name: string) => ({ apiVersion: 'v1', kind, metadata: { name } });
  await bed.root.create({ of: NAMESPACES }, made('Namespace', 'n'));
  await bed.root.create({ of: SERVICE_ACCOUNTS, namespace: 'n' }, made('ServiceAccount', 'robot'));
  return bed;
}

async function tokenOf(api: Transport, spec: object = {}): Promise<string> {
  const made = await api.create({ of: SERVICE_ACCOUNTS, namespace: 'n', name: 'robot', subresource: 'token' }, {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    metadata: { name: '' },
    spec,
  } as never);
  return (made as unknown as { status: { token: string } }).status.token;
}

const whoami = async (bed: Bed, token: string) => {
  const { status, json } = await bed.ask({
    path: '/apis/authentication.k8s.io/v1/selfsubjectreviews',
    token,
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' },
  });
  return status === 201 ? (json.status.userInfo.username as string) : status;
};
const document = async (bed: Bed, path: string) => {
  const { json, headers } = await bed.ask({ path, as: bed.admin });
  return { ...json, cache: headers['cache-control'] };
};
const ROBOT = 'system:serviceaccount:n:robot';

const pem = (key: KeyObject, type: 'pkcs1' | 'pkcs8' | 'sec1' | 'spki') =>
  key.export({ type, format: 'pem' } as never) as string;
const p256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });

test('keys of files: the one signs, the others still verify; discovery tells them all', async () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const old = generateKeyPairSync('ec', { namedCurve: 'P-521' });
  const before = await bedWith(({ file }) => [
    `service-account-signing-key-file=${file('old.pem', pem(old.privateKey, 'sec1'))}`,
    'service-account-issuer=https://old.example',
  ]);
  const oldToken = await tokenOf(before.root);
  assert.deepEqual(decodeJwt(oldToken)!.header.alg, 'ES512');
  assert.equal(await whoami(before, oldToken), ROBOT);

  const bed = await bedWith(({ file }) => [
    `service-account-signing-key-file=${file('new.pem', pem(rsa.privateKey, 'pkcs1'))}`,
    `service-account-key-file=${file('both.pem', pem(p256().publicKey, 'spki') + pem(old.publicKey, 'spki'))}`,
    'service-account-issuer=https://new.example',
    'service-account-issuer=https://old.example',
    'service-account-jwks-uri=https://keys.example/jwks',
    'api-audiences=https://new.example,https://old.example',
    // The account of the other server is not here.
    'service-account-lookup=false',
  ]);
  const token = await tokenOf(bed.root);
  const { header, claims } = decodeJwt(token)!;
  assert.equal(header.alg, 'RS256');
  assert.equal(claims['iss'], 'https://new.example');
  assert.deepEqual(claims['aud'], ['https://new.example', 'https://old.example']);
  assert.equal(await whoami(bed, token), ROBOT);
  assert.equal(await whoami(bed, oldToken), ROBOT);
  assert.equal(await whoami(before, token), 401);
  const configuration = await document(bed, '/.well-known/openid-configuration');
  assert.deepEqual(configuration['id_token_signing_alg_values_supported'], ['ES256', 'ES512', 'RS256']);
  assert.equal(configuration['jwks_uri'], 'https://keys.example/jwks');
  const { keys, cache } = await document(bed, '/openid/v1/jwks');
  const shown = keys as { alg: string; kid: string }[];
  assert.deepEqual(shown.map(({ alg }) => alg).sort(), ['ES256', 'ES512', 'RS256']);
  assert.ok(shown.some(({ kid }) => kid === header.kid));
  assert.equal(cache, 'public, max-age=3600');
});

test('a token of another algorithm than its key is for does not count', async () => {
  const bed = await bedWith(() => []);
  const [header, body] = (await tokenOf(bed.root)).split('.') as [string, string];
  const none = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(header, 'base64url').toString()), alg: 'none' }));
  assert.equal(await whoami(bed, `${none.toString('base64url')}.${body}.`), 401);
  const other = p256();
  const forged = createSign('sha256')
    .update(`${header}.${body}`)
    .sign({ key: other.privateKey, dsaEncoding: 'ieee-p1363' });
  assert.equal(await whoami(bed, `${header}.${body}.${forged.toString('base64url')}`), 401);
});

test('a longer life than the server allows is cut, and the client warned', async () => {
  const bed = await bedWith(() => ['service-account-max-token-expiration=2h']);
  const { status, headers, json } = await bed.ask({
    path: '/api/v1/namespaces/n/serviceaccounts/robot/token',
    as: bed.admin,
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 86_400 } },
  });
  assert.equal(status, 201);
  assert.match(String(headers['warning']), /requested expiration of 86400 seconds shortened to 7200 seconds/);
  assert.equal(json.spec.expirationSeconds, 7200);
  const { exp, iat } = decodeJwt(json.status.token)!.claims as { exp: number; iat: number };
  assert.equal(exp - iat, 7200);
});

/** Signs with `keys[at]`; tells all. */
class Signer {
  readonly keys = [{ id: 'one', pair: p256(), hidden: false }];
  at = 0;
  header: object = {};
  seconds = 7200;
  hint = 600;
  fetches = 0;

  serve(socket: string): Promise<GrpcServer> {
    return serveGrpc(
      socket,
      {
        sign: ({ claims }) => {
          const { id, pair } = this.keys[this.at]!;
          const header = Buffer.from(JSON.stringify({ alg: 'ES256', kid: id, typ: 'JWT', ...this.header })).toString(
            'base64url',
          );
          const key = { key: pair.privateKey, dsaEncoding: 'ieee-p1363' } as const;
          return {
            header,
            signature: createSign('sha256').update(`${header}.${claims}`).sign(key).toString('base64url'),
          };
        },
        fetchKeys: () => {
          this.fetches++;
          return {
            keys: this.keys.map(({ id, pair, hidden }) => ({
              keyId: id,
              key: pair.publicKey.export({ type: 'spki', format: 'der' }),
              excludeFromOidcDiscovery: hidden,
            })),
            dataTimestamp: Date.now(),
            refreshHintSeconds: this.hint,
          };
        },
        metadata: () => ({ maxTokenExpirationSeconds: this.seconds }),
      },
      EXTERNAL_SIGNER_CALLS,
    );
  }
}

async function withSigner(signer = new Signer(), ...args: string[]) {
  let close = async () => {};
  // Last: a server of gRPC ends once its clients are gone.
  closing.unshift(() => close());
  const bed = await bedWith(async ({ file }) => {
    const socket = join(dirname(file('here', '')), 'signer.sock');
    const server = await signer.serve(socket);
    let closed: Promise<void> | undefined;
    close = () => (closed ??= server.close());
    return [`service-account-signing-endpoint=${socket}`, ...args];
  });
  return { bed, signer, close: () => close() };
}

test('an external signer: it signs, its keys verify, its longest life is the limit', async () => {
  const { bed, signer } = await withSigner();
  const token = await tokenOf(bed.root, { expirationSeconds: 86_400 });
  const { header, claims } = decodeJwt(token)!;
  assert.deepEqual(header, { alg: 'ES256', kid: 'one', typ: 'JWT' });
  assert.equal(Number(claims['exp']) - Number(claims['iat']), 7200);
  assert.equal(await whoami(bed, token), ROBOT);
  const { keys, cache } = await document(bed, '/openid/v1/jwks');
  assert.deepEqual(
    (keys as { kid: string }[]).map(({ kid }) => kid),
    ['one'],
  );
  assert.match(cache, /^public, max-age=(5\d\d|600)$/);

  // The next key is found when the first token names it, and the old one goes on being taken.
  signer.keys.push({ id: 'two', pair: p256(), hidden: false });
  signer.at = 1;
  const next = await eventually(async () => {
    const made = await tokenOf(bed.root);
    assert.equal(await whoami(bed, made), ROBOT);
    return made;
  });
  assert.equal(decodeJwt(next)!.header.kid, 'two');
  assert.equal(await whoami(bed, token), ROBOT);
});

test('keys that an external signer has taken back verify nothing more', async () => {
  const signer = new Signer();
  signer.hint = 1;
  const { bed } = await withSigner(signer);
  const token = await tokenOf(bed.root);
  assert.equal(await whoami(bed, token), ROBOT);
  signer.keys[0] = { id: 'other', pair: p256(), hidden: false };
  await eventually(async () => assert.equal(await whoami(bed, token), 401));
});

test('answers of an external signer that cannot be are refused', async () => {
  const { bed, signer, close } = await withSigner();
  const failing = async (header: object, message: RegExp) => {
    signer.header = header;
    await assert.rejects(tokenOf(bed.root), message);
  };
  await failing({ typ: 'JWS' }, /bad type/);
  await failing({ kid: '' }, /key id missing/);
  await failing({ kid: 'x'.repeat(1025) }, /key id longer than 1 kb/);
  await failing({ alg: 'none' }, /bad signing algorithm "none"/);
  await failing({ jku: 'https://elsewhere' }, /unknown field "jku"/);
  signer.header = {};
  signer.keys.push({ id: 'hidden', pair: p256(), hidden: true });
  signer.at = 1;
  await eventually(() => assert.rejects(tokenOf(bed.root), /kid: hidden\) is excluded from OIDC discovery docs/));
  signer.at = 0;
  const token = await tokenOf(bed.root);
  await close();
  await assert.rejects(tokenOf(bed.root), /while signing jwt: rpc error/);
  // What is known goes on being taken.
  assert.equal(await whoami(bed, token), ROBOT);
});

test('an external signer whose limits do not fit is told at the start', async () => {
  const short = new Signer();
  short.seconds = 599;
  await assert.rejects(
    withSigner(short),
    /supported by external-jwt-signer \(599s\) is less than acceptable \(min 600s\)/,
  );
  const broken = new Signer();
  broken.hint = 0;
  await assert.rejects(withSigner(broken), /invalid refresh hint \(0s\)/);
  await assert.rejects(
    withSigner(new Signer(), 'service-account-max-token-expiration=3h'),
    /cannot be set longer than the token expiration supported by service-account-signing-endpoint: 10800s > 7200s/,
  );
});

test('options that cannot be', async () => {
  const start = (...args: string[]) => openBed(() => args);
  for (const [args, message] of [
    [
      ['service-account-issuer=https://a', 'service-account-issuer=https://a'],
      /service-account-issuer: https:\/\/a is given twice/,
    ],
    [['service-account-issuer=::'], /contained a ':' but was not a valid URL/],
    [['service-account-jwks-uri=http://a'], /service-account-jwks-uri: it requires https scheme/],
    [['service-account-max-token-expiration=30m'], /must be between 1 hour and 2\^32 seconds/],
    [
      ['service-account-signing-endpoint=/x', 'service-account-key-file=/y'],
      /cannot be used together with service-account-key-file/,
    ],
    [['service-account-key-file=/does/not/exist'], /service-account-key-file: ENOENT/],
    [[`service-account-key-file=${import.meta.filename}`], /does not contain any valid RSA or ECDSA public keys/],
    [[`service-account-signing-key-file=${import.meta.filename}`], /does not contain a valid RSA or ECDSA private key/],
  ] as const)
    await assert.rejects(start(...args), message);
});
