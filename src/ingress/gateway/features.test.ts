/** Nothing is said of the class that no test shows: each feature names one, by its file and a part of its title. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { FEATURES } from './features.ts';

const ROOT = join(import.meta.dirname, '../../..');
const FILES = {
  model: 'src/ingress/gateway/gateway-model.test.ts',
  conditions: 'src/ingress/gateway/gateway-conditions.test.ts',
  network: 'test/network/gateway.test.ts',
  features: 'test/network/gateway-features.test.ts',
  cluster: 'test/e2e/gateway.test.ts',
} as const;

const SHOWN: Readonly<Record<string, readonly [file: keyof typeof FILES, title: string]>> = {
  BackendTLSPolicy: ['network', 'a backend by TLS is checked'],
  GRPCRoute: ['network', 'gRPC by service and method'],
  GRPCRouteNamedRouteRule: ['network', 'gRPC by service and method'],
  Gateway: ['cluster', 'an applied Gateway is served'],
  GatewayAddressEmpty: ['conditions', 'addresses: one is asked for'],
  GatewayBackendClientCertificate: ['network', 'a backend by TLS is checked'],
  GatewayFrontendClientCertificateValidation: ['network', 'HTTPS by the listener’s certificate'],
  GatewayFrontendClientCertificateValidationInsecureFallback: ['network', 'HTTPS by the listener’s certificate'],
  GatewayHTTPListenerIsolation: ['model', 'listeners are apart'],
  GatewayHTTPSListenerDetectMisdirectedRequests: ['network', 'HTTPS by the listener’s certificate'],
  GatewayInfrastructurePropagation: ['conditions', 'infrastructure: labels and annotations'],
  GatewayListenerSet: ['cluster', 'a ListenerSet of another namespace'],
  GatewayPort8080: ['cluster', 'an applied Gateway is served'],
  GatewayStaticAddresses: ['conditions', 'addresses: one is asked for'],
  HTTPRoute: ['network', 'hosts, wildcards of many labels, paths'],
  HTTPRoute303RedirectStatusCode: ['features', '301 to 308'],
  HTTPRoute307RedirectStatusCode: ['features', '301 to 308'],
  HTTPRoute308RedirectStatusCode: ['features', '301 to 308'],
  HTTPRouteBackendProtocolH2C: ['features', 'HTTPRouteBackendProtocolH2C'],
  HTTPRouteBackendProtocolWebSocket: ['features', 'HTTPRouteBackendProtocolH2C, …WebSocket'],
  HTTPRouteBackendRequestHeaderModification: ['features', 'HTTPRouteBackendRequestHeaderModifier'],
  HTTPRouteBackendTimeout: ['network', 'timeouts answer 504'],
  HTTPRouteCORS: ['features', 'HTTPRouteCORS'],
  HTTPRouteDestinationPortMatching: ['conditions', 'routes say why they are not attached'],
  HTTPRouteHostRewrite: ['network', 'headers are changed, paths and hosts rewritten'],
  HTTPRouteMethodMatching: ['network', 'methods, headers and parameters'],
  HTTPRouteNamedRouteRule: ['features', 'NamedRule'],
  HTTPRouteParentRefPort: ['conditions', 'routes say why they are not attached'],
  HTTPRoutePathRedirect: ['network', 'headers are changed, paths and hosts rewritten'],
  HTTPRoutePathRewrite: ['network', 'headers are changed, paths and hosts rewritten'],
  HTTPRoutePortRedirect: ['features', 'HTTPRouteRedirectScheme, …Port'],
  HTTPRouteQueryParamMatching: ['network', 'methods, headers and parameters'],
  HTTPRouteRequestMirror: ['network', 'requests are mirrored'],
  HTTPRouteRequestMultipleMirrors: ['features', 'HTTPRouteRequestMultipleMirrors'],
  HTTPRouteRequestPercentageMirror: ['features', '…PercentageMirror'],
  HTTPRouteRequestTimeout: ['network', 'timeouts answer 504'],
  HTTPRouteResponseHeaderModification: ['features', '…ResponseHeaderModifier'],
  HTTPRouteSchemeRedirect: ['features', 'HTTPRouteRedirectScheme'],
  ReferenceGrant: ['cluster', 'by a ReferenceGrant'],
  TCPRoute: ['cluster', 'datagrams and streams'],
  TLSRoute: ['network', 'TLS passes through beside it'],
  UDPRoute: ['cluster', 'datagrams and streams'],
};

test('every feature of the class has a test that shows it', () => {
  assert.deepEqual(FEATURES.map(({ name }) => name).sort(), Object.keys(SHOWN).sort());
  for (const [feature, [file, title]] of Object.entries(SHOWN)) {
    const titles = readFileSync(join(ROOT, FILES[file]), 'utf8').match(/^\s*(?:test|it)\(\s*['"`].*$/gm) ?? [];
    assert.ok(
      titles.some(line => line.includes(title)),
      `${feature}: no test "${title}" in ${FILES[file]}`,
    );
  }
});
