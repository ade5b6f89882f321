/** The CustomResourceDefinitions of the load balancer's kinds (`v1beta1.ts`). Every cluster has them from its start. */

import type { CustomResourceDefinition } from '../apiextensions/v1.gen.ts';
import {
  about,
  array,
  boolean,
  type CustomKind,
  definitionOf,
  integer,
  object,
  SELECTOR,
  string,
} from '../custom-kind.ts';
import { GROUP, VERSION } from './v1beta1.ts';

const UINT32_MAX = 2 ** 32 - 1;
const DURATION = { type: 'string', pattern: '^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$' } as const;
const ADDRESSES = '^[0-9a-fA-F.:]+(/[0-9]{1,3}|\\s*-\\s*[0-9a-fA-F.:]+)$';
const ENDS = "self.split('-').map(end, end.trim())";
const IS_RANGE = `[${ENDS}].all(ends, ends.size() == 2 && ends.all(end, isIP(end)))`;
/** CEL has no order of addresses. */
const NUMBER = '((int(end[0]) * 256 + int(end[1])) * 256 + int(end[2])) * 256 + int(end[3])';
const ADDRESSES_RULES = [
  {
    rule: `self.contains('/') ? isCIDR(self) : ${IS_RANGE}`,
    message: 'must be a prefix (192.0.2.0/24) or a range (192.0.2.10-192.0.2.20)',
  },
  {
    rule: `!(${IS_RANGE}) || [${ENDS}].all(ends, ip(ends[0]).family() == ip(ends[1]).family())`,
    message: 'the ends of a range must be of one family',
  },
  {
    rule: `self.contains(':') || !(${IS_RANGE}) || [${ENDS}.map(end, end.split('.')).map(end, ${NUMBER})].all(ends, ends[0] <= ends[1])`,
    message: 'the end of a range must not be before its start',
  },
];
const ADDRESS = { type: 'string', pattern: '^[0-9a-fA-F.:]+$' } as const;
const COMMUNITY = { type: 'string', pattern: '^[0-9]+:[0-9]+$|^large:[0-9]+:[0-9]+:[0-9]+$' } as const;

const CHOICE = {
  ipAddressPools: about('Names of pools; all, when neither these nor selectors are given.', array(string)),
  ipAddressPoolSelectors: array(SELECTOR),
  nodeSelectors: about('Nodes that may announce; all, when none is given.', array(SELECTOR)),
};

const POOL = object(
  {
    addresses: about(
      'Prefixes (192.0.2.0/24) and ranges (192.0.2.10-192.0.2.20) to give out.',
      array(
        { type: 'string', pattern: ADDRESSES, maxLength: 80, 'x-kubernetes-validations': ADDRESSES_RULES },
        { minItems: 1, maxItems: 128 },
      ),
    ),
    autoAssign: about('False: only for Services that ask for the pool or an address of it.', {
      ...boolean,
      default: true,
    }),
    avoidBuggyIPs: about('True: addresses that end in .0 and .255 are not given out.', { ...boolean, default: false }),
    loadBalancerClass: about('Serves Services of this class only; without it, those without a class.', {
      ...string,
      minLength: 1,
    }),
    serviceAllocation: object({
      priority: about('Pools of a lower one are tried first; 0 comes last.', integer(0, 2 ** 31 - 1)),
      namespaces: array(string),
      namespaceSelectors: array(SELECTOR),
      serviceSelectors: array(SELECTOR),
    }),
  },
  { required: ['addresses'] },
);

const COUNT = { type: 'integer', format: 'int64' } as const;
const POOL_STATUS = object({
  assignedIPv4: COUNT,
  assignedIPv6: COUNT,
  availableIPv4: COUNT,
  availableIPv6: COUNT,
});

const BGP_ADVERTISEMENT = object({
  ...CHOICE,
  aggregationLength: { ...integer(1, 32), default: 32 },
  aggregationLengthV6: { ...integer(1, 128), default: 128 },
  localPref: { ...integer(0, UINT32_MAX), format: 'int64' },
  communities: about(
    '64512:100, large:64512:1:2, or the name of an alias of a Community.',
    array({ ...string, minLength: 1 }),
  ),
  peers: about('Names of BGPPeers; all, when none is given.', array(string)),
});

const BGP_PEER = object(
  {
    myASN: { ...integer(1, UINT32_MAX), format: 'int64' },
    peerASN: { ...integer(1, UINT32_MAX), format: 'int64' },
    peerAddress: ADDRESS,
    peerPort: { ...integer(1, 65535), default: 179 },
    sourceAddress: ADDRESS,
    routerID: { type: 'string', pattern: '^[0-9]+\\.[0-9]+\\.[0-9]+\\.[0-9]+$' },
    holdTime: DURATION,
    keepaliveTime: DURATION,
    connectTime: DURATION,
    ebgpMultiHop: boolean,
    enableGracefulRestart: boolean,
    password: { ...string, maxLength: 80 },
    passwordSecret: about(
      'A Secret of type kubernetes.io/basic-auth, whose password counts.',
      object(
        { name: { ...string, minLength: 1 }, namespace: { ...string, minLength: 1 } },
        { required: ['name', 'namespace'], 'x-kubernetes-map-type': 'atomic' },
      ),
    ),
    bfdProfile: about('Name of a BFDProfile: the session ends as soon as BFD misses the peer.', string),
    nodeSelectors: array(SELECTOR),
  },
  {
    required: ['myASN', 'peerASN', 'peerAddress'],
    'x-kubernetes-validations': [
      { rule: '!(has(self.password) && has(self.passwordSecret))', message: 'only one of password and passwordSecret' },
    ],
  },
);

const INTERVAL = about('Milliseconds.', { ...integer(10, 60_000), default: 300 });
const BFD_PROFILE = object({
  receiveInterval: INTERVAL,
  transmitInterval: INTERVAL,
  detectMultiplier: about('Missed in a row, the peer is gone.', { ...integer(2, 255), default: 3 }),
  passiveMode: about('Waits for the peer to begin.', { ...boolean, default: false }),
});

const COMMUNITIES = object({
  communities: array(object({ name: { ...string, minLength: 1 }, value: COMMUNITY }, { required: ['name', 'value'] }), {
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': ['name'],
  }),
});

const KINDS: readonly Omit<CustomKind, 'group' | 'version'>[] = [
  {
    kind: 'IPAddressPool',
    plural: 'ipaddresspools',
    shortNames: ['ippool', 'ippools'],
    spec: POOL,
    isSpecRequired: true,
    status: POOL_STATUS,
    columns: [
      ['Auto Assign', '.spec.autoAssign', 'boolean'],
      ['Avoid Buggy IPs', '.spec.avoidBuggyIPs', 'boolean'],
      ['Addresses', '.spec.addresses'],
      ['Assigned', '.status.assignedIPv4', 'integer'],
      ['Available', '.status.availableIPv4', 'integer'],
    ],
  },
  {
    kind: 'L2Advertisement',
    plural: 'l2advertisements',
    spec: object({
      ...CHOICE,
      interfaces: about(
        'Links to announce on; the one with the address of the node, when none is given.',
        array({ ...string, minLength: 1, maxLength: 15 }),
      ),
    }),
    columns: [
      ['IPAddressPools', '.spec.ipAddressPools'],
      ['IPAddressPool Selectors', '.spec.ipAddressPoolSelectors'],
      ['Interfaces', '.spec.interfaces'],
    ],
  },
  {
    kind: 'BGPAdvertisement',
    plural: 'bgpadvertisements',
    spec: BGP_ADVERTISEMENT,
    columns: [
      ['IPAddressPools', '.spec.ipAddressPools'],
      ['IPAddressPool Selectors', '.spec.ipAddressPoolSelectors'],
      ['Peers', '.spec.peers'],
    ],
  },
  {
    kind: 'BGPPeer',
    plural: 'bgppeers',
    spec: BGP_PEER,
    isSpecRequired: true,
    columns: [
      ['Address', '.spec.peerAddress'],
      ['ASN', '.spec.peerASN', 'integer'],
      ['BFD Profile', '.spec.bfdProfile'],
      ['Multi Hops', '.spec.ebgpMultiHop'],
    ],
  },
  {
    kind: 'BFDProfile',
    plural: 'bfdprofiles',
    spec: BFD_PROFILE,
    columns: [
      ['Passive Mode', '.spec.passiveMode', 'boolean'],
      ['Transmit Interval', '.spec.transmitInterval', 'integer'],
      ['Receive Interval', '.spec.receiveInterval', 'integer'],
      ['Multiplier', '.spec.detectMultiplier', 'integer'],
    ],
  },
  {
    kind: 'LoadBalancerProvider',
    plural: 'loadbalancerproviders',
    isSpecRequired: true,
    spec: object(
      {
        socket: about('Unix socket that the provider serves; an absolute path.', {
          ...string,
          pattern: '^/[^\\x00]+$',
          maxLength: 107,
        }),
        loadBalancerClass: about('Serves Services of this class; without it, those without a class.', {
          ...string,
          minLength: 1,
        }),
        serves: about('What it is asked for: LoadBalancer (default), Instances, Routes.', {
          type: 'array',
          items: { ...string, enum: ['LoadBalancer', 'Instances', 'Routes'] },
          minItems: 1,
          'x-kubernetes-list-type': 'set',
        }),
      },
      { required: ['socket'] },
    ),
    columns: [
      ['Class', '.spec.loadBalancerClass'],
      ['Serves', '.spec.serves'],
      ['Socket', '.spec.socket'],
    ],
  },
  { kind: 'Community', plural: 'communities', spec: COMMUNITIES, columns: [] },
];

export const LOAD_BALANCER_DEFINITIONS: readonly CustomResourceDefinition[] = KINDS.map(kind =>
  definitionOf({ ...kind, group: GROUP, version: VERSION }),
);
