import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resourceByName } from '../../api/resources.ts';
import { VirtualClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import { AuthorizerChain } from '../authz/authorizer.ts';
import { makeRequest } from '../certificates/signing-request.ts';
import { FakeReader } from '../fake-reader.ts';
import { type AdmissionRequest, LOOPBACK_USER } from '../request.ts';
import { certificateApproval, certificateRequester, certificateSubjectRestriction } from './certificates.ts';

const reader = new FakeReader();
const context = {
  reader: () => reader,
  transport: () => reader,
  authorizer: new AuthorizerChain(() => reader),
  clock: new VirtualClock(),
  random: seededRandom(1),
  log: silentLogger,
};
const jane = { name: 'jane', uid: '7', groups: ['devs', 'system:authenticated'], extra: { scope: ['a'] } };
const signer = 'kubernetes.io/kube-apiserver-client';

const ask = (parts: object): AdmissionRequest =>
  ({
    operation: 'CREATE',
    info: resourceByName('certificates.k8s.io', 'v1', 'certificatesigningrequests'),
    dryRun: false,
    warn: () => {},
    oldObject: undefined,
    ...parts,
    attributes: {
      group: 'certificates.k8s.io',
      version: 'v1',
      resource: 'certificatesigningrequests',
      subresource: '',
      namespace: '',
      name: 'u',
      isResource: true,
      verb: 'create',
      path: '',
      user: jane,
      ...(parts as { attributes?: object }).attributes,
    },
  }) as unknown as AdmissionRequest;

test('the requester is the user, whatever the body says', () => {
  const object = {
    metadata: { name: 'u' },
    spec: { request: '', signerName: signer, username: 'root', groups: ['x'] },
  };
  certificateRequester(context).mutate!(ask({ object }));
  const { username, groups, uid, extra } = object.spec as Record<string, unknown>;
  assert.deepEqual([username, groups, uid, extra], ['jane', jane.groups, '7', { scope: ['a'] }]);
});

test('approval is stamped, and needs the right to approve for the signer', async () => {
  const old = { metadata: { name: 'u' }, spec: { signerName: signer }, status: {} };
  const object = { ...old, status: { conditions: [{ type: 'Approved', status: 'True' }] } };
  const request = (user: object) =>
    ask({ operation: 'UPDATE', object, oldObject: old, attributes: { subresource: 'approval', user } });
  certificateRequester(context).mutate!(request(jane));
  assert.deepEqual(object.status.conditions, [
    {
      type: 'Approved',
      status: 'True',
      lastUpdateTime: '2026-01-01T00:00:00Z',
      lastTransitionTime: '2026-01-01T00:00:00Z',
    },
  ]);
  await certificateApproval(context).validate!(request(LOOPBACK_USER));
  await assert.rejects(async () => certificateApproval(context).validate!(request(jane)), {
    message:
      'certificatesigningrequests.certificates.k8s.io "u" is forbidden: user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"',
  });
});

test('nobody becomes a master by a certificate', () => {
  const { request } = makeRequest({ commonName: 'jane', organizations: ['dev', 'system:masters'] });
  const object = {
    metadata: { name: 'u' },
    spec: { request, signerName: signer },
  };
  assert.throws(() => certificateSubjectRestriction().validate!(ask({ object })), /signer with system:masters group/);
  const other = { ...object, spec: { ...object.spec, signerName: 'example.com/x' } };
  certificateSubjectRestriction().validate!(ask({ object: other }));
});
