import assert from 'node:assert/strict';
import test from 'node:test';
import { deployment } from '../apps/deployment.ts';
import type { Deployment } from '../apps/v1.gen.ts';
import { pod as kind } from './pod.ts';
import type { Pod } from './v1.gen.ts';

const texts = (errors: readonly { field: string; message: string }[]) => errors.map(e => `${e.field}: ${e.message}`);

function make(annotations: Record<string, string>, spec: object = {}): Pod {
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'default', annotations },
    spec: { containers: [{ name: 'c', image: 'nginx' }], ...spec },
  };
  kind.defaults!(pod);
  return pod;
}

const COST = 'controller.kubernetes.io/pod-deletion-cost';
const TOLERATIONS = 'scheduler.alpha.kubernetes.io/tolerations';
const SECCOMP_POD = 'seccomp.security.alpha.kubernetes.io/pod';
const SECCOMP = 'container.seccomp.security.alpha.kubernetes.io/';
const APP_ARMOR = 'container.apparmor.security.beta.kubernetes.io/';
const MIRROR = 'kubernetes.io/config.mirror';

test('annotations of pods: what they may say', () => {
  const at = 'metadata.annotations';
  const cases: [annotations: Record<string, string>, ...expected: string[]][] = [
    [{ [COST]: '-2147483648' }],
    [{ [COST]: '2147483648' }, `${at}[${COST}]: Invalid value: "2147483648": must be a 32bit integer`],
    [{ [COST]: '+1' }, `${at}[${COST}]: Invalid value: "+1": must be a 32bit integer`],
    [{ [TOLERATIONS]: '[{"key":"a","operator":"Exists"}]' }],
    [
      { [TOLERATIONS]: '[{"operator":"Equal"}]' },
      `${at}.${TOLERATIONS}[0].operator: Invalid value: "Equal": operator must be Exists when \`key\` is empty, which means "match all values and all keys"`,
    ],
    [
      { [TOLERATIONS]: '{}' },
      `${at}: Invalid value: "${TOLERATIONS}": json: cannot unmarshal into Go value of type []core.Toleration`,
    ],
    [{ [SECCOMP_POD]: 'runtime/default', [`${SECCOMP}c`]: 'localhost/a/b.json' }],
    [{ [SECCOMP_POD]: 'mine' }, `${at}.${SECCOMP_POD}: Invalid value: "mine": must be a valid seccomp profile`],
    [{ [`${SECCOMP}c`]: 'localhost/../x' }, `${at}.${SECCOMP}c: Invalid value: "../x": must not contain '..'`],
    [{ [`${APP_ARMOR}c`]: 'localhost/x' }],
    [
      { [`${APP_ARMOR}d`]: 'mine' },
      `${at}[${APP_ARMOR}d]: Invalid value: "d": container not found`,
      `${at}[${APP_ARMOR}d]: Invalid value: "mine": invalid AppArmor profile name: "mine"`,
    ],
    [{ [MIRROR]: 'x' }, `${at}[${MIRROR}]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set`],
  ];
  for (const [annotations, ...expected] of cases)
    assert.deepEqual(texts(kind.validate!(make(annotations))), expected, JSON.stringify(annotations));
});

test('a static pod has no resource claims', () => {
  const mirror = make(
    { [MIRROR]: 'x' },
    { nodeName: 'n', resourceClaims: [{ name: 'gpu', resourceClaimTemplateName: 't' }] },
  );
  assert.deepEqual(texts(kind.validate!(mirror)), ['[]: Forbidden: static pods do not support resource claims']);
});

test('profiles in annotations and fields are the same, at a create and in templates', () => {
  const seccomp = (type: string, localhostProfile?: string) => ({
    seccompProfile: { type, ...(localhostProfile ? { localhostProfile } : {}) },
  });
  const appArmor = (type: string, localhostProfile?: string) => ({
    appArmorProfile: { type, ...(localhostProfile ? { localhostProfile } : {}) },
  });
  const inContainer = (securityContext: object) => ({ containers: [{ name: 'c', image: 'i', securityContext }] });
  const cases: [annotations: Record<string, string>, spec: object, ...expected: string[]][] = [
    [{ [SECCOMP_POD]: 'docker/default' }, { securityContext: seccomp('RuntimeDefault') }],
    [
      { [SECCOMP_POD]: 'unconfined' },
      { securityContext: seccomp('RuntimeDefault') },
      'spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match',
    ],
    [
      { [`${SECCOMP}c`]: 'localhost/a' },
      inContainer(seccomp('Localhost', 'b')),
      'spec.containers[0].securityContext.seccompProfile.localhostProfile: Forbidden: seccomp profile in annotation and field must match',
    ],
    [
      { [`${APP_ARMOR}c`]: 'unconfined' },
      { securityContext: appArmor('RuntimeDefault') },
      'spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match',
    ],
    [
      { [`${APP_ARMOR}c`]: 'localhost/a' },
      inContainer(appArmor('Localhost', 'b')),
      'spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in annotation and field must match',
    ],
  ];
  for (const [annotations, spec, ...expected] of cases) {
    const pod = make(annotations, spec);
    assert.deepEqual(texts(kind.validate!(pod)), expected);
    const stored = { ...pod, metadata: { ...pod.metadata, resourceVersion: '1' } };
    assert.deepEqual(texts(kind.validate!(stored)), [], 'only at a create');
    const labels = { app: 'a' };
    const owner = {
      metadata: { name: 'd' },
      spec: { selector: { matchLabels: labels }, template: { metadata: { labels, annotations }, spec: pod.spec } },
    } as unknown as Deployment;
    deployment.defaults!(owner);
    assert.deepEqual(
      texts(deployment.validate!(owner)),
      expected.map(text => `spec.template.${text}`),
    );
  }
});

test('annotations that an update may not touch', () => {
  const update = (before: Record<string, string>, now: Record<string, string>) =>
    texts(kind.validateUpdate!(make(now, { nodeName: 'n' }), make(before, { nodeName: 'n' })));
  assert.deepEqual(update({ a: '1' }, { b: '2' }), []);
  assert.deepEqual(update({}, { [`${APP_ARMOR}c`]: 'unconfined' }), [
    `metadata.annotations[${APP_ARMOR}c]: Forbidden: may not add AppArmor annotations`,
  ]);
  assert.deepEqual(update({ [`${APP_ARMOR}c`]: 'unconfined', [MIRROR]: 'a' }, { [MIRROR]: 'b' }), [
    `metadata.annotations[${APP_ARMOR}c]: Forbidden: may not remove or update AppArmor annotations`,
    `metadata.annotations[${MIRROR}]: Forbidden: may not remove or update mirror pod annotation`,
  ]);
});
