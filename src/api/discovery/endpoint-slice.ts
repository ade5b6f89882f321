/** Endpoint slices. */

import { fieldErrors } from '../../base/errors.ts';
import { checkNonSpecialAddress } from '../core/address-validation.ts';
import { PROTOCOLS } from '../core/container-validation.ts';
import { defineKind } from '../kind.ts';
import { warnOfAddress } from '../machinery/address-forms.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { labelValueProblems, qualifiedNameProblems, validateLabels } from '../machinery/labels.ts';
import {
  dnsLabelProblems,
  dnsSubdomainProblems,
  ipFamily,
  ipProblems,
  portNumberProblems,
} from '../machinery/names.ts';
import {
  addDuplicate,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkUnchanged,
  type Errors,
  eachAt,
  requireOneOf,
} from '../machinery/validation.ts';
import type { Endpoint, EndpointPort, EndpointSlice } from './v1.gen.ts';

const ENDPOINTS_MAX = 1000;
const ADDRESSES_MAX = 100;
const PORTS_MAX = 20_000;
const TOPOLOGY_MAX = 16;
const HINTS_MAX = 8;
const SHOWN_MAX = 3;
const MANAGED_BY_LABEL = 'endpointslice.kubernetes.io/managed-by';
const CONTROLLERS = ['endpointslice-controller.k8s.io', 'endpointslicemirroring-controller.k8s.io'];

export const endpointSlice = defineKind<EndpointSlice>({
  group: 'discovery.k8s.io',
  version: 'v1',
  kind: 'EndpointSlice',
  createOnUpdate: true,
  defaults: object => {
    for (const port of object.ports ?? []) {
      port.name ??= '';
      port.protocol ??= 'TCP';
    }
  },
  isNewGeneration: (object, old) => {
    const { metadata: _, ...now } = object;
    const { metadata: __, ...then } = old;
    return !semanticEqual(now, then) || !semanticEqual(object.metadata.labels ?? {}, old.metadata.labels ?? {});
  },
  validate: object => validate(object),
  ratchets: true,
  validateUpdate: (object, old) => {
    const errors = validate(object, old);
    checkUnchanged(errors, 'addressType', object.addressType, old.addressType);
    return errors;
  },
  warnings: object => {
    if (object.addressType === 'FQDN') return ['spec.addressType: FQDN endpoints are deprecated'];
    const found: string[] = [];
    // The controllers' own are in order; there are many of them.
    if (CONTROLLERS.includes(object.metadata.labels?.[MANAGED_BY_LABEL] ?? '')) return found;
    eachAt(object.endpoints, 'endpoints', (endpoint, at) =>
      eachAt(endpoint.addresses, `${at}.addresses`, (address, addressAt) => warnOfAddress(found, addressAt, address)),
    );
    return found;
  },
  columns: [
    nameColumn,
    text('AddressType', object => object.addressType ?? ''),
    text('Ports', object => formatPorts(object.ports)),
    text('Endpoints', object => formatEndpoints(object.endpoints)),
    ageColumn,
  ],
});

function validate(object: EndpointSlice, old?: EndpointSlice): Errors {
  const errors: Errors = [];
  requireOneOf(errors, 'addressType', object.addressType, ['FQDN', 'IPv4', 'IPv6']);
  checkPorts(errors, object.ports ?? []);
  const found: Errors = [];
  const list = object.endpoints ?? [];
  if (list.length > ENDPOINTS_MAX) found.push(fieldErrors.tooMany('endpoints', list.length, ENDPOINTS_MAX));
  else eachAt(list, 'endpoints', (endpoint, at) => checkEndpoint(found, at, endpoint, object.addressType));
  // Endpoints that are as they were may be as older versions took them.
  const isForgiven = found.length > 0 && old !== undefined && semanticEqual(object.endpoints, old.endpoints);
  return isForgiven ? errors : [...errors, ...found];
}

/** Of at least two labels; one dot may end it. */
function checkDomainName(errors: Errors, path: string, address: string): void {
  if (!address) return addRequired(errors, path);
  const name = address.replace(/\.$/, '');
  const problems = dnsSubdomainProblems(name);
  if (problems.length > 0) return addInvalid(errors, path, name, problems.join(','));
  const labels = name.split('.');
  if (labels.length < 2)
    return addInvalid(errors, path, name, 'should be a domain with at least two segments separated by dots');
  const bad = labels.find(label => dnsLabelProblems(label).length > 0);
  if (bad !== undefined) addInvalid(errors, path, bad, dnsLabelProblems(bad).join(','));
}

function checkEndpoint(errors: Errors, path: string, endpoint: Endpoint, type: string): void {
  const addresses = endpoint.addresses ?? [];
  if (addresses.length === 0) addRequired(errors, `${path}.addresses`, 'must contain at least 1 address');
  else if (addresses.length > ADDRESSES_MAX)
    errors.push(fieldErrors.tooMany(`${path}.addresses`, addresses.length, ADDRESSES_MAX));
  eachAt(addresses, `${path}.addresses`, (address, at) => {
    if (type === 'FQDN') return checkDomainName(errors, at, address);
    if (type !== 'IPv4' && type !== 'IPv6') return;
    const family = type === 'IPv6' ? 6 : 4;
    const problems = ipProblems(address);
    addProblems(errors, at, address, problems);
    if (problems.length) return;
    if (ipFamily(address) !== family)
      addInvalid(errors, `${path}.addresses`, address, `must be an IPv${family} address`);
    checkNonSpecialAddress(errors, at, address);
  });
  if (endpoint.nodeName !== undefined)
    addProblems(errors, `${path}.nodeName`, endpoint.nodeName, dnsSubdomainProblems(endpoint.nodeName));
  const topology = Object.entries(endpoint.deprecatedTopology ?? {});
  if (topology.length > TOPOLOGY_MAX)
    errors.push(fieldErrors.tooMany(`${path}.deprecatedTopology`, topology.length, TOPOLOGY_MAX));
  errors.push(...validateLabels(endpoint.deprecatedTopology ?? {}, `${path}.deprecatedTopology`));
  if (endpoint.hostname !== undefined)
    addProblems(errors, `${path}.hostname`, endpoint.hostname, dnsLabelProblems(endpoint.hostname));
  if (endpoint.hints) checkHints(errors, `${path}.hints`, endpoint.hints);
}

function checkHints(errors: Errors, path: string, hints: NonNullable<Endpoint['hints']>): void {
  const zones = hints.forZones ?? [];
  if (zones.length > HINTS_MAX) {
    errors.push(fieldErrors.tooMany(`${path}.forZones`, zones.length, HINTS_MAX));
    return;
  }
  const seen = new Set<string>();
  eachAt(zones, `${path}.forZones`, (zone, at) => {
    if (seen.has(zone.name)) addDuplicate(errors, `${at}.name`, zone.name);
    seen.add(zone.name);
    addProblems(errors, `${at}.name`, zone.name, labelValueProblems(zone.name ?? ''));
  });
  const nodes = hints.forNodes ?? [];
  if (nodes.length > HINTS_MAX) {
    errors.push(fieldErrors.tooMany(`${path}.forNodes`, nodes.length, HINTS_MAX));
    return;
  }
  const named = new Set<string>();
  eachAt(nodes, `${path}.forNodes`, ({ name = '' }, at) => {
    if (named.has(name)) addDuplicate(errors, `${at}.name`, name);
    named.add(name);
    addProblems(errors, `${at}.name`, name, dnsSubdomainProblems(name));
  });
}

function checkPorts(errors: Errors, ports: readonly EndpointPort[]): void {
  if (ports.length > PORTS_MAX) {
    errors.push(fieldErrors.tooMany('ports', ports.length, PORTS_MAX));
    return;
  }
  const names = new Set<string>();
  eachAt(ports, 'ports', (port, at) => {
    const name = port.name ?? '';
    if (name) addProblems(errors, `${at}.name`, name, dnsLabelProblems(name));
    if (names.has(name)) addDuplicate(errors, `${at}.name`, name);
    names.add(name);
    if (port.port !== undefined) addProblems(errors, `${at}.port`, port.port, portNumberProblems(port.port));
    allowOneOf(errors, `${at}.protocol`, port.protocol, PROTOCOLS);
    if (port.appProtocol !== undefined)
      addProblems(errors, `${at}.appProtocol`, port.appProtocol, qualifiedNameProblems(port.appProtocol));
  });
}

function shorten(items: readonly string[]): string {
  if (items.length === 0) return '<unset>';
  const list = items.slice(0, SHOWN_MAX).join(',');
  return items.length > SHOWN_MAX ? `${list} + ${items.length - SHOWN_MAX} more...` : list;
}

function formatPorts(ports: readonly EndpointPort[] | undefined): string {
  return shorten((ports ?? []).map(port => String(port.port ?? port.name ?? '*')));
}

function formatEndpoints(list: readonly Endpoint[] | undefined): string {
  return shorten((list ?? []).flatMap(endpoint => endpoint.addresses ?? []));
}
