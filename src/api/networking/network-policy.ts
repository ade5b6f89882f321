/** Network policies. */

import { fieldErrors } from '../../base/errors.ts';
import { PROTOCOLS } from '../core/container-validation.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { formatLabelSelector } from '../machinery/labels.ts';
import { cidrProblems, portNameProblems, portNumberProblems } from '../machinery/names.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  checkLabelSelector,
  type Errors,
  eachAt,
} from '../machinery/validation.ts';
import type { IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from './v1.gen.ts';

export const networkPolicy = defineKind<NetworkPolicy>({
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'NetworkPolicy',
  defaults: object => {
    const spec = (object.spec ??= {});
    spec.podSelector ??= {};
    if (!spec.policyTypes?.length) spec.policyTypes = spec.egress?.length ? ['Ingress', 'Egress'] : ['Ingress'];
    for (const rule of [...(spec.ingress ?? []), ...(spec.egress ?? [])])
      for (const port of rule.ports ?? []) port.protocol ??= 'TCP';
  },
  prepareCreate: object => {
    object.metadata.generation = 1;
  },
  prepareUpdate: (object, old) => {
    const changed = !semanticEqual(object.spec, old.spec);
    object.metadata.generation = (old.metadata.generation ?? 0) + (changed ? 1 : 0);
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? {};
    checkLabelSelector(errors, 'spec.podSelector', spec.podSelector);
    eachAt(spec.ingress, 'spec.ingress', (rule, at) => {
      eachAt(rule.ports, `${at}.ports`, (port, portAt) => checkPort(errors, portAt, port));
      eachAt(rule.from, `${at}.from`, (peer, peerAt) => checkPeer(errors, peerAt, peer));
    });
    eachAt(spec.egress, 'spec.egress', (rule, at) => {
      eachAt(rule.ports, `${at}.ports`, (port, portAt) => checkPort(errors, portAt, port));
      eachAt(rule.to, `${at}.to`, (peer, peerAt) => checkPeer(errors, peerAt, peer));
    });
    const types = spec.policyTypes ?? [];
    if (types.length > 2) addInvalid(errors, 'spec.policyTypes', types, 'may not specify more than two policyTypes');
    else
      eachAt(types, 'spec.policyTypes', (type, at) => {
        if (type !== 'Ingress' && type !== 'Egress')
          errors.push(fieldErrors.notSupported(at, type, ['Egress', 'Ingress']));
      });
    return errors;
  },
  columns: [nameColumn, text('Pod-Selector', object => formatLabelSelector(object.spec?.podSelector ?? {})), ageColumn],
});

function checkPort(errors: Errors, path: string, port: NetworkPolicyPort): void {
  if (!PROTOCOLS.includes(port.protocol ?? ''))
    errors.push(fieldErrors.notSupported(`${path}.protocol`, port.protocol ?? '', PROTOCOLS));
  if (typeof port.port === 'number') {
    addProblems(errors, `${path}.port`, port.port, portNumberProblems(port.port));
    if (port.endPort !== undefined) {
      addProblems(errors, `${path}.endPort`, port.endPort, portNumberProblems(port.endPort));
      if (port.endPort < port.port)
        addInvalid(errors, `${path}.endPort`, port.port, 'must be greater than or equal to `port`');
    }
  } else if (typeof port.port === 'string') {
    if (port.endPort !== undefined)
      addInvalid(errors, `${path}.endPort`, port.endPort, 'may not be specified when `port` is non-numeric');
    addProblems(errors, `${path}.port`, port.port, portNameProblems(port.port));
  } else if (port.endPort !== undefined)
    addInvalid(errors, `${path}.endPort`, port.endPort, 'may not be specified when `port` is not specified');
}

function checkPeer(errors: Errors, path: string, peer: NetworkPolicyPeer): void {
  const selects = (peer.podSelector ? 1 : 0) + (peer.namespaceSelector ? 1 : 0);
  checkLabelSelector(errors, `${path}.podSelector`, peer.podSelector);
  checkLabelSelector(errors, `${path}.namespaceSelector`, peer.namespaceSelector);
  if (peer.ipBlock) checkBlock(errors, `${path}.ipBlock`, peer.ipBlock);
  if (selects === 0 && !peer.ipBlock) addRequired(errors, path, 'must specify a peer');
  else if (selects > 0 && peer.ipBlock) addForbidden(errors, path, 'may not specify both ipBlock and another peer');
}

function checkBlock(errors: Errors, path: string, block: IPBlock): void {
  if (!block.cidr) {
    addRequired(errors, `${path}.cidr`);
    return;
  }
  const problems = cidrProblems(block.cidr);
  addProblems(errors, `${path}.cidr`, block.cidr, problems);
  if (problems.length) return;
  eachAt(block.except, `${path}.except`, (range, at) => {
    const own = cidrProblems(range);
    addProblems(errors, at, range, own);
    if (own.length === 0 && !isStrictSubset(range, block.cidr))
      addInvalid(errors, at, range, `must be a strict subset of \`cidr\`: "${block.cidr}"`);
  });
}

function bits(address: string): bigint {
  if (!address.includes(':')) return address.split('.').reduce((sum, octet) => (sum << 8n) | BigInt(octet), 0n);
  const [head = '', tail] = address.split('::');
  const groups = (part: string): string[] => (part ? part.split(':') : []);
  const before = groups(head);
  const after = tail === undefined ? [] : groups(tail);
  const middle = tail === undefined ? [] : Array<string>(8 - before.length - after.length).fill('0');
  return [...before, ...middle, ...after].reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
}

function isStrictSubset(inner: string, outer: string): boolean {
  const [innerAddress = '', innerLength = ''] = inner.split('/');
  const [outerAddress = '', outerLength = ''] = outer.split('/');
  const width = innerAddress.includes(':') ? 128 : 32;
  if ((outerAddress.includes(':') ? 128 : 32) !== width || Number(innerLength) <= Number(outerLength)) return false;
  const shift = BigInt(width - Number(outerLength));
  return bits(innerAddress) >> shift === bits(outerAddress) >> shift;
}
