import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { testFolder } from '../who-bed.ts';
import { durationMs } from './document.ts';
import { loadServerSettings } from './server-settings.ts';

const folder = testFolder();
after(() => folder.remove());
const load = (...args: string[]) => loadServerSettings(args, 'https://own');

test('the examples of docs/authentication.md are valid, each for its option', async () => {
  const page = readFileSync(join(import.meta.dirname, '../../../docs/authentication.md'), 'utf8');
  const examples = [...page.matchAll(/<!-- ([a-z-]+) -->\n```yaml\n([^`]+)```/g)];
  assert.equal(examples.length, 5);
  const kubeconfig = folder.file('kubeconfig', {
    clusters: [{ name: 'c', cluster: { server: 'https://127.0.0.1:1' } }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  });
  for (const [, option, text] of examples) {
    const path = folder.file(`${option}.yaml`, text!.replace('/etc/coxswain/policies.kubeconfig', kubeconfig));
    await load(`${option}=${path}`, ...(option === 'audit-policy-file' ? ['audit-log-path=-'] : []));
  }
  for (const name of page.matchAll(
    /`((?:audit|oidc|token|anonymous|encryption|requestheader|authori[sz]ation|authentication|disable|service-account|api)-[a-z-]+[a-z])(?:`|=)/g,
  ))
    await assert.rejects(
      load(`${name[1]}=`, 'x'),
      (error: Error) => !error.message.includes(`arg ${name[1]}: unknown option`),
    );
});

test('mistakes are told with the option, and with the field of a file', async () => {
  const file = (text: string) => folder.file('config.yaml', text);
  const authentication = (jwt: string) =>
    `authentication-config=${file(`{apiVersion: apiserver.config.k8s.io/v1, kind: AuthenticationConfiguration, jwt: [${jwt}]}`)}`;
  const authorization = (webhook: string) =>
    `authorization-config=${file(`{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration, authorizers: [{type: Webhook, name: w, webhook: {${webhook}}}]}`)}`;
  const tracing = (fields: string, version = 'v1') =>
    `tracing-config-file=${file(`{apiVersion: apiserver.config.k8s.io/${version}, kind: TracingConfiguration, ${fields}}`)}`;
  const issuer = "issuer: {url: 'https://i', audiences: [a]}";
  const cases: [() => string[], RegExp][] = [
    [() => ['colour=blue'], /--kube-apiserver-arg colour: unknown option; known: anonymous-auth/],
    [() => ['audit-log-path'], /audit-log-path: it needs a value/],
    [() => ['anonymous-auth=maybe'], /anonymous-auth: Unsupported value: "maybe"/],
    [() => ['anonymous-auth=true', 'anonymous-auth=false'], /given more than once/],
    [() => ['audit-log-path=/tmp/x'], /audit-log-path: it needs audit-policy-file/],
    [() => ['authentication-config=/does/not/exist'], /ENOENT/],
    [() => ['oidc-client-id=x'], /oidc-client-id: it needs oidc-issuer-url/],
    [
      () => ['oidc-issuer-url=http://x', 'oidc-client-id=x'],
      /jwt\[0\]\.issuer\.url: Invalid value: "http:\/\/x": URL scheme must be https/,
    ],
    [
      () => [tracing('samplingRatePerMillion: -1, endpoint: "ftp://x"')],
      /tracing-config-file: .*samplingRatePerMillion: Invalid value: -1: sampling rate must be positive; endpoint: Invalid value: "ftp:\/\/x": unsupported scheme: ftp\./,
    ],
    [() => [tracing('sampleRate: 1')], /sampleRate: unknown field; known here: endpoint, samplingRatePerMillion/],
    [
      () => [tracing('samplingRatePerMillion: "1"')],
      /samplingRatePerMillion: Invalid value: "1": must be a whole number/,
    ],
    [() => [tracing('', 'v2')], /wanted: kind TracingConfiguration, apiVersion apiserver.config.k8s.io\/v1 or /],
    [() => ['authorization-mode=RBAC,Magic'], /Unsupported value: "Magic"/],
    [() => ['authorization-mode=Webhook'], /belong together/],
    [() => ['encryption-provider-config-automatic-reload'], /it needs encryption-provider-config/],
    [
      () => [
        authentication(
          '{issuer: {url: https://own, audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ""}}}',
        ),
      ],
      /that of service account tokens/,
    ],
    [
      () => [authentication(`{${issuer}, claimMappings: {username: {claim: sub}}}`)],
      /username\.prefix: Required value/,
    ],
    [
      () => [authentication(`{${issuer}, claimMappings: {username: {expression: claims.email}}}`)],
      /claims\.email_verified must be used/,
    ],
    [
      () => [authentication(`{${issuer}, claimMappings: {username: {expression: "1 + 1"}}}`)],
      /must evaluate to string, it is int/,
    ],
    [() => [authentication(`{${issuer}, claimMappings: {username: {expression: "claims."}}}`)], /compilation failed/],
    [
      () => [
        authentication(
          `{${issuer}, claimMappings: {username: {claim: sub, prefix: ''}, extra: [{key: k8s.io/x, valueExpression: claims.x}]}}`,
        ),
      ],
      /reserved/,
    ],
    [
      () => [
        authentication(
          `{${issuer}, claimMappings: {username: {claim: sub, prefix: ''}}, userValidationRules: [{expression: user.name == 'x'}]}`,
        ),
      ],
      /userValidationRules\[0\]\.expression: Invalid value/,
    ],
    [
      () => [authentication(`{${issuer}, claimMapping: {}}`)],
      /jwt\[0\]\.claimMapping: unknown field; known here: issuer,/,
    ],
    [
      () => [authorization('timeout: 1m, failurePolicy: Maybe')],
      /timeout: Invalid value: "1m".*failurePolicy: Unsupported value/,
    ],
    [
      () => [
        authorization(
          'timeout: 1s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /none}',
        ),
      ],
      /authorizer w: \/none: .*ENOENT/,
    ],
  ];
  for (const [args, why] of cases) await assert.rejects(async () => load(...args()), why);
});

test('the oidc options make one issuer; a file of tokens', async () => {
  const { authentication, staticTokens, requestHeader } = await load(
    'oidc-issuer-url=https://i',
    'oidc-client-id=c',
    'oidc-groups-claim=groups',
    'oidc-required-claim=a=b',
    'oidc-required-claim=c=d',
    `token-auth-file=${folder.file('tokens', 'abc,jo,1\ndef,"x, y",2,"g1,g2"\n')}`,
    'requestheader-allowed-names=',
  );
  assert.deepEqual(authentication.jwt, [
    {
      issuer: { url: 'https://i', audiences: ['c'] },
      claimValidationRules: [
        { claim: 'a', requiredValue: 'b' },
        { claim: 'c', requiredValue: 'd' },
      ],
      claimMappings: { username: { claim: 'sub', prefix: 'https://i#' }, groups: { claim: 'groups', prefix: '' } },
      signingAlgorithms: ['RS256'],
    },
  ]);
  assert.deepEqual(
    [...staticTokens],
    [
      ['abc', { name: 'jo', groups: [], uid: '1' }],
      ['def', { name: 'x, y', groups: ['g1', 'g2'], uid: '2' }],
    ],
  );
  assert.deepEqual(requestHeader.allowedNames, []);
});

test('durations as Go writes them', () => {
  assert.deepEqual(['1m30s', '500ms', '1.5h', '0', '10', '-1s', ''].map(durationMs), [
    90_000,
    500,
    5_400_000,
    0,
    undefined,
    undefined,
    undefined,
  ]);
});

test('a file of tracing, in each of its versions', async () => {
  for (const version of ['v1alpha1', 'v1beta1', 'v1']) {
    const text = `apiVersion: apiserver.config.k8s.io/${version}\nkind: TracingConfiguration\nsamplingRatePerMillion: 100\n`;
    const settings = await load(`tracing-config-file=${folder.file('tracing.yaml', text)}`);
    assert.deepEqual(settings.tracing, { samplingRatePerMillion: 100 });
  }
  assert.equal((await load()).tracing, undefined);
});
