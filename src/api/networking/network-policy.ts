/** Network policies. */

import { fieldErrors } from '../../base/errors.ts';
import { PROTOCOLS } from '../core/container-validation.ts';
import { defineKind } from '../kind.ts';
import { warnOfRange } from '../machinery/address-forms.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { isNewSpec } from '../machinery/equality.ts';
import { IpPrefix } from '../machinery/ip-prefix.ts';
import { formatLabelSelector } from '../machinery/labels.ts';
import { cidrProblems, ipFamily, portNameProblems, portNumberProblems } from '../machinery/names.ts';
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
  isNewGeneration: isNewSpec,
  defaults: object => {
    const spec = (object.spec ??= {});
    spec.podSelector ??= {};
    if (!spec.policyTypes?.length) spec.policyTypes = spec.egress?.length ? ['Ingress', 'Egress'] : ['Ingress'];
    for (const rule of [...(spec.ingress ?? []), ...(spec.egress ?? [])])
      for (const port of rule.ports ?? []) port.protocol ??= 'TCP';
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
  warnings: object => {
    const found: string[] = [];
    const ofPeer = (peer: NetworkPolicyPeer, at: string): void => {
      warnOfRange(found, `${at}.ipBlock.cidr`, peer.ipBlock?.cidr);
      eachAt(peer.ipBlock?.except, `${at}.ipBlock.except`, (range, rangeAt) => warnOfRange(found, rangeAt, range));
    };
    eachAt(object.spec?.ingress, 'spec.ingress', (rule, at) => eachAt(rule.from, `${at}.from`, ofPeer));
    eachAt(object.spec?.egress, 'spec.egress', (rule, at) => eachAt(rule.to, `${at}.to`, ofPeer));
    return found;
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
  addProblems(errors, `${path}.cidr`, block.cidr, cidrProblems(block.cidr));
  const outer = readPrefix(block.cidr);
  if (!outer) return;
  eachAt(block.except, `${path}.except`, (range, at) => {
    addProblems(errors, at, range, cidrProblems(range));
    const inner = readPrefix(range);
    if (inner && !(outer.covers(inner) && inner.length > outer.length))
      addInvalid(errors, at, range, 'must be a strict subset of `cidr`');
  });
}

/** Also of a range in a form that is refused: what it is about is clear all the same. */
function readPrefix(range: string): IpPrefix | undefined {
  const [address = '', length = ''] = range.split('/');
  return ipFamily(address) && /^\d{1,3}$/.test(length) ? new IpPrefix(range) : undefined;
}
