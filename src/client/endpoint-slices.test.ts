import assert from 'node:assert/strict';
import { test } from 'node:test';
import { failure, isReason } from '../base/errors.ts';
import { asV1, transportOfSlices } from './endpoint-slices.ts';
import { ENDPOINT_SLICES, SERVICES } from './resources.ts';
import type { Target, Transport } from './transport.ts';

const slice = {
  apiVersion: 'discovery.k8s.io/v1beta1',
  kind: 'EndpointSlice',
  metadata: { name: 's', namespace: 'default' },
  addressType: 'IPv4',
  endpoints: [
    {
      addresses: ['10.0.0.1'],
      topology: { 'kubernetes.io/hostname': 'n1', 'topology.kubernetes.io/zone': 'z', rack: 'r' },
    },
  ],
};

/** Serves slices of these versions, and lists of everything else. */
function server(...versions: string[]): Transport {
  const answer = ({ of }: Target) => {
    if (of.resource === 'endpointslices' && !versions.includes(of.version))
      throw failure(404, 'NotFound', 'no such path');
    return of.resource === 'endpointslices' ? [{ ...slice, apiVersion: `${of.group}/${of.version}` }] : [];
  };
  return {
    list: async (target: Target) => ({ apiVersion: 'v1', kind: 'List', metadata: {}, items: answer(target) }),
    async *watch(target: Target) {
      yield answer(target).map(object => ({ type: 'ADDED', object }));
    },
  } as unknown as Transport;
}

test('slices of v1beta1 are read as v1 where that is not served', async () => {
  const transport = await transportOfSlices(server('v1beta1'));
  const [listed] = (await transport.list({ of: ENDPOINT_SLICES })).items;
  assert.deepEqual(listed, asV1(slice));
  assert.deepEqual((listed as ReturnType<typeof asV1>).endpoints, [
    { addresses: ['10.0.0.1'], nodeName: 'n1', zone: 'z', deprecatedTopology: { rack: 'r' } },
  ]);
  for await (const events of transport.watch({ of: ENDPOINT_SLICES }, {}, new AbortController().signal))
    assert.deepEqual(
      events.map(event => event.object),
      [listed],
    );
  assert.deepEqual((await transport.list({ of: SERVICES })).items, []);
});

test('a server with slices of v1 is asked for them, one without any is refused', async () => {
  const newer = server('v1', 'v1beta1');
  assert.equal(await transportOfSlices(newer), newer);
  await assert.rejects(transportOfSlices(server()), error => isReason(error, 'BadRequest'));
});
