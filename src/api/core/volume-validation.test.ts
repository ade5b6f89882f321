import assert from 'node:assert/strict';
import test from 'node:test';
import { pod as kind } from './pod.ts';
import type { Pod } from './v1.gen.ts';

function findings(...sources: object[]): string[] {
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'default' },
    spec: {
      containers: [{ name: 'c', image: 'nginx' }],
      volumes: sources.map((source, index) => ({ name: `v${index}`, ...source })),
    },
  };
  kind.defaults!(pod);
  return kind.validate!(pod).map(({ field, message }) => `${field}: ${message}`);
}

const at = 'spec.volumes[0]';
const more = 'Forbidden: may not specify more than 1 volume type';

test("of several sources the first in upstream's order is looked at, by the names that upstream gives them", () => {
  assert.deepEqual(findings({ downwardAPI: {}, cephfs: {}, secret: {}, gcePersistentDisk: {} }), [
    `${at}.persistentDisk.pdName: Required value`,
    `${at}.secret: ${more}`,
    `${at}.cephFS: ${more}`,
    `${at}.downwarAPI: ${more}`,
  ]);
});

test('templates of claims', () => {
  const claim = { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } };
  const of = (metadata: object): string[] =>
    findings({ ephemeral: { volumeClaimTemplate: { metadata, spec: claim } } }).map(text => text.slice(0, 110));
  const meta = `${at}.ephemeral.volumeClaimTemplate.metadata`;
  assert.deepEqual(of({ labels: { a: 'b' }, annotations: { c: 'd' }, name: '' }), []);
  assert.deepEqual(of({ name: 'a', uid: 'b' }), [
    `${meta}.name: Forbidden: cannot be set`,
    `${meta}.uID: Forbidden: cannot be set`,
  ]);
  assert.match(of({ labels: { a: '-' } }).join(), /metadata.labels: Invalid value: "-"/);
  assert.match(of({ annotations: { '-': '' } }).join(), /metadata.annotations: Invalid value: "-"/);
  assert.deepEqual(
    findings(
      { ephemeral: { volumeClaimTemplate: { spec: claim } } },
      { persistentVolumeClaim: { claimName: 'web-v0' } },
    ),
    [
      'spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: "web-v0": must not reference a PVC that gets created for an ephemeral volume',
    ],
  );
});

test('names of trust bundles and signers', () => {
  const of = (bundle: object): string[] =>
    findings({ projected: { sources: [{ clusterTrustBundle: { path: 'p', ...bundle } }] } }).map(text =>
      text
        .replace(`${at}.projected.sources[0].clusterTrustBundle.`, '')
        .replace(/ (RFC 1123 \w+) must consist.*/, ' $1'),
    );
  const form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
  const cases: [bundle: object, ...expected: string[]][] = [
    [{ name: 'a' }],
    [{ name: 'example.com:x:a' }],
    [
      { name: '' },
      'name: Required value: must be a valid object name',
      'name: Invalid value: "": not a valid clustertrustbundlename: a lowercase RFC 1123 subdomain',
    ],
    [
      { name: ':a' },
      'name: Invalid value: ":a": not a valid clustertrustbundlename: ClusterTrustBundle without signer name must not have ":" in its name',
    ],
    [{ name: 'a:B' }, 'name: Invalid value: "a:B": not a valid clustertrustbundlename: a lowercase RFC 1123 subdomain'],
    [{ signerName: 'example.com/a.b' }],
    [{ signerName: '' }, 'signerName: Required value: must be a valid signer name', 'signerName: Required value'],
    [{ signerName: 'example.com' }, `signerName: Invalid value: "example.com": ${form}`],
    [{ signerName: 'example.com/a/b' }, `signerName: Invalid value: "example.com/a/b": ${form}`],
    [
      { signerName: 'example/a' },
      'signerName: Invalid value: "example": should be a domain with at least two segments separated by dots',
    ],
    [{ signerName: 'A.B/c' }, 'signerName: Invalid value: "A.B": validating label "A": a lowercase RFC 1123 label'],
    [{ signerName: 'a.b/C' }, 'signerName: Invalid value: "C": validating label "C": a lowercase RFC 1123 subdomain'],
    [
      { signerName: `${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.${'d'.repeat(60)}.${'e'.repeat(60)}/f` },
      'signerName: Too long: may not be more than 253 bytes',
    ],
  ];
  for (const [bundle, ...expected] of cases) assert.deepEqual(of(bundle), expected, JSON.stringify(bundle));
});

test('how long certificates of pods last', () => {
  const of = (signerName: string, maxExpirationSeconds: number): string[] =>
    findings({
      projected: {
        sources: [{ podCertificate: { signerName, keyType: 'ED25519', maxExpirationSeconds, keyPath: 'k' } }],
      },
    });
  const field = `${at}.projected.sources[0].podCertificate.maxExpirationSeconds`;
  const cases: [signer: string, seconds: number, problem?: string][] = [
    ['example.com/a', 3600],
    ['example.com/a', 7_862_400],
    ['example.com/a', 3599, '>= 3600'],
    ['example.com/a', 7_862_401, '<= 7862400'],
    ['kubernetes.io/a', 86_401, '<= 86400'],
    ['x.kubernetes.io/a', 86_401, '<= 86400'],
    ['notkubernetes.io/a', 86_401],
  ];
  for (const [signer, seconds, problem] of cases)
    assert.deepEqual(
      of(signer, seconds),
      problem ? [`${field}: Invalid value: ${seconds}: if provided, maxExpirationSeconds must be ${problem}`] : [],
    );
});
