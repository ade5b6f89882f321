import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { API_VERSION, type BGPAdvertisement, type BGPPeer, type Community } from '../../api/loadbalancer/v1beta1.ts';
import type { Announcement } from '../announcement.ts';
import { birdConfiguration } from './bird-configuration.ts';

const peer = (name: string, spec: Partial<BGPPeer['spec']> = {}): BGPPeer => ({
  apiVersion: API_VERSION,
  kind: 'BGPPeer',
  metadata: { name },
  spec: { myASN: 64500, peerASN: 64501, peerAddress: '192.0.2.1', ...spec },
});
const advertisement = (name: string, spec: BGPAdvertisement['spec'] = {}): BGPAdvertisement => ({
  apiVersion: API_VERSION,
  kind: 'BGPAdvertisement',
  metadata: { name },
  spec,
});
const announcement = (address: string, ...bgp: BGPAdvertisement[]): Announcement => ({ address, services: [], bgp });

function render(facts: { peers?: BGPPeer[]; announcements?: Announcement[]; communities?: Community[] }): {
  text: string | undefined;
  problems: string[];
} {
  const { text, problems } = birdConfiguration(
    {
      node: undefined,
      peers: [],
      announcements: [],
      communities: [],
      bfdProfiles: [
        {
          apiVersion: API_VERSION,
          kind: 'BFDProfile',
          metadata: { name: 'quick' },
          spec: { receiveInterval: 50, transmitInterval: 40, detectMultiplier: 5 },
        },
      ],
      passwordOf: ({ metadata }) => {
        if (metadata.name === 'lost') throw new Error('spec.passwordSecret: no such Secret');
        return 'from a Secret';
      },
      ...facts,
    },
    '172.30.0.2',
  );
  return { text, problems: [...problems.values()] };
}

test('without a peer there is nothing to run', () => {
  assert.equal(render({ announcements: [announcement('10.0.0.1', advertisement('a'))] }).text, undefined);
});

test('a peer and its routes, with attributes, aggregated', () => {
  const { text, problems } = render({
    peers: [peer('tor.rack-1', { password: 's3cret', holdTime: '1m30s', ebgpMultiHop: true })],
    announcements: [
      announcement('10.0.0.1', advertisement('a', { aggregationLength: 24, localPref: 7, communities: ['quick'] })),
      announcement('10.0.0.9', advertisement('a', { aggregationLength: 24, localPref: 7, communities: ['quick'] })),
      announcement('fd00::1', advertisement('b')),
    ],
    communities: [
      {
        apiVersion: API_VERSION,
        kind: 'Community',
        metadata: { name: 'names' },
        spec: { communities: [{ name: 'quick', value: '64500:1' }] },
      },
    ],
  });
  assert.deepEqual(problems, []);
  assert.equal(text?.match(/route 10\.0\.0\.0\/24/g)?.length, 1);
  assert.match(text!, /route 10\.0\.0\.0\/24 blackhole \{ bgp_local_pref = 7; bgp_community\.add\(\(64500,1\)\); \};/);
  assert.match(text!, /route fd00::1\/128 blackhole;/);
  assert.match(
    text!,
    /neighbor 192\.0\.2\.1 port 179 as 64501;\n {2}multihop;\n {2}hold time 90;\n {2}keepalive time 30;/,
  );
  assert.match(text!, /password "s3cret";/);
});

test('a password of a Secret, and BFD by its profile', () => {
  const secret = { passwordSecret: { namespace: 'x', name: 'y' } };
  const { text, problems } = render({
    peers: [
      peer('a', { ...secret, bfdProfile: 'quick' }),
      peer('lost', secret),
      peer('both', { ...secret, password: 'z' }),
      peer('slow', { bfdProfile: 'none' }),
    ],
  });
  assert.match(text!, /password "from a Secret";/);
  assert.match(text!, /bfd \{ min rx interval 50 ms; min tx interval 40 ms; multiplier 5; passive off; \};[\s\S]*$/);
  assert.match(text!, /protocol bfd \{\}/);
  assert.deepEqual(problems, [
    'spec.passwordSecret: no such Secret',
    'spec.passwordSecret: Invalid value: must not stand beside spec.password',
    'spec.bfdProfile: Not found: "none": there is no such BFDProfile',
  ]);
});

test('two peers may be told different things of one prefix', () => {
  const { text } = render({
    peers: [peer('a'), peer('b', { peerAddress: '192.0.2.2' })],
    announcements: [
      announcement(
        '10.0.0.1',
        advertisement('x', { peers: ['a'], localPref: 1 }),
        advertisement('y', { peers: ['b'] }),
      ),
    ],
  });
  assert.equal(text!.match(/route 10\.0\.0\.1\/32/g)!.length, 2);
});

test('what is wrong is said by field, and the other peers are served', () => {
  const { text, problems } = render({
    peers: [
      peer('good'),
      peer('short', { holdTime: '1s' }),
      peer('quoted', { password: '"; import all; #' }),
      peer('nowhere', { peerAddress: '192.0.2' }),
    ],
    announcements: [announcement('10.0.0.1', advertisement('a', { communities: ['unknown'] }))],
  });
  assert.match(text!, /protocol bgp peer_good_/);
  assert.deepEqual(problems.map(problem => problem.split(':')[0]).sort(), [
    'spec.communities',
    'spec.holdTime',
    'spec.password',
    'spec.peerAddress',
  ]);
});

test('no object can say anything else to bird', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary' }),
      fc.string(),
      fc.string(),
      fc.string(),
      (name, password, hold, address) => {
        const { text = '' } = render({
          peers: [peer(name, { password, holdTime: hold, peerAddress: address }), peer('p', { password })],
          announcements: [announcement('10.0.0.1', advertisement('a', { communities: [name, `large:${hold}`] }))],
        });
        const bare = text.replace(/"[^"\n]*"/g, '""');
        assert.match(bare, /^[a-z0-9_ ;:{}().,/=*"\n]*$/);
        assert.equal(bare.split('{').length, bare.split('}').length);
        assert.doesNotMatch(bare, /kernel|include|import all; export all/);
      },
    ),
    { numRuns: 30 },
  );
});
