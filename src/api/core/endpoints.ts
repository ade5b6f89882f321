/** Endpoints: the old, unsliced list of a Service's backends. */

import { defineKind } from '../kind.ts';
import { warnOfAddress } from '../machinery/address-forms.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { dnsLabelProblems, dnsSubdomainProblems, ipProblems, portNumberProblems } from '../machinery/names.ts';
import { addProblems, addRequired, type Errors, eachAt, requireOneOf } from '../machinery/validation.ts';
import { checkNonSpecialAddress } from './address-validation.ts';
import { PROTOCOLS } from './container-validation.ts';
import type { EndpointAddress, EndpointPort, Endpoints } from './v1.gen.ts';

const SHOWN_MAX = 3;

export const endpoints = defineKind<Endpoints>({
  group: '',
  version: 'v1',
  kind: 'Endpoints',
  createOnUpdate: true,
  deprecation: 'v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice',
  defaults: object => {
    for (const subset of object.subsets ?? []) for (const port of subset.ports ?? []) port.protocol ||= 'TCP';
  },
  validate,
  ratchets: true,
  // What is as it was may be as older versions took it.
  validateUpdate: (object, old) => {
    const errors = validate(object);
    return errors.length > 0 && semanticEqual(object.subsets, old.subsets) ? [] : errors;
  },
  warnings: object => {
    const found: string[] = [];
    // The controller's own are in order; there are many of them.
    if (object.metadata.labels?.['endpoints.kubernetes.io/managed-by'] === 'endpoint-controller') return found;
    eachAt(object.subsets, 'subsets', (subset, at) => {
      eachAt(subset.addresses, `${at}.addresses`, ({ ip }, ipAt) => warnOfAddress(found, `${ipAt}.ip`, ip));
      eachAt(subset.notReadyAddresses, `${at}.notReadyAddresses`, ({ ip }, ipAt) =>
        warnOfAddress(found, `${ipAt}.ip`, ip),
      );
    });
    return found;
  },
  columns: [nameColumn, text('Endpoints', formatEndpoints), ageColumn],
});

function validate(object: Endpoints): Errors {
  const errors: Errors = [];
  eachAt(object.subsets, 'subsets', (subset, at) => {
    if (!subset.addresses?.length && !subset.notReadyAddresses?.length)
      addRequired(errors, at, 'must specify `addresses` or `notReadyAddresses`');
    eachAt(subset.addresses, `${at}.addresses`, (address, addressAt) => checkAddress(errors, addressAt, address));
    eachAt(subset.notReadyAddresses, `${at}.notReadyAddresses`, (address, addressAt) =>
      checkAddress(errors, addressAt, address),
    );
    eachAt(subset.ports, `${at}.ports`, (port, portAt) =>
      checkEndpointPort(errors, portAt, port, subset.ports!.length > 1),
    );
  });
  return errors;
}

function checkAddress(errors: Errors, path: string, address: EndpointAddress): void {
  const ip = address.ip ?? '';
  addProblems(errors, `${path}.ip`, ip, ipProblems(ip));
  if (address.hostname) addProblems(errors, `${path}.hostname`, address.hostname, dnsLabelProblems(address.hostname));
  if (address.nodeName !== undefined)
    addProblems(errors, `${path}.nodeName`, address.nodeName, dnsSubdomainProblems(address.nodeName));
  checkNonSpecialAddress(errors, `${path}.ip`, ip);
}

function checkEndpointPort(errors: Errors, path: string, port: EndpointPort, nameRequired: boolean): void {
  if (port.name) addProblems(errors, `${path}.name`, port.name, dnsLabelProblems(port.name));
  else if (nameRequired) addRequired(errors, `${path}.name`);
  addProblems(errors, `${path}.port`, port.port ?? 0, portNumberProblems(port.port ?? 0));
  requireOneOf(errors, `${path}.protocol`, port.protocol, PROTOCOLS);
  if (port.appProtocol !== undefined)
    addProblems(errors, `${path}.appProtocol`, port.appProtocol, qualifiedNameProblems(port.appProtocol));
}

/** `10.0.0.1:80,10.0.0.2:80 + 3 more...`; a subset without ports shows addresses alone. */
function formatEndpoints(object: Endpoints): string {
  if (!object.subsets?.length) return '<none>';
  const shown: string[] = [];
  let count = 0;
  const add = (address: string): void => {
    if (shown.length < SHOWN_MAX) shown.push(address);
    count++;
  };
  for (const subset of object.subsets) {
    const addresses = subset.addresses ?? [];
    if (!subset.ports?.length) for (const { ip } of addresses) add(ip);
    else
      for (const { port } of subset.ports)
        for (const { ip } of addresses) add(ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`);
  }
  const list = shown.join(',');
  return count > SHOWN_MAX ? `${list} + ${count - SHOWN_MAX} more...` : list;
}
