/** What tests of gateways share: objects in a few words, the state they come to, and a request asked of it. */

import type { Namespace, Service } from '../../api/core/v1.gen.ts';
import type {
  BackendTLSPolicy,
  Gateway,
  HTTPRouteRule,
  Listener,
  ListenerSet,
  ReferenceGrant,
  Route,
} from '../../api/gateway/v1.ts';
import { type HttpFrontend, matchRequest } from './frontends.ts';
import { buildGatewayState, type GatewayState } from './gateway-model.ts';
import type { GatewayObjects, RouteKind, RoutesByKind } from './gateway-objects.ts';

/** A certificate of an authority that nobody has the key of. */
export const CA = `-----BEGIN CERTIFICATE-----
MIIBcDCCARWgAwIBAgIUIkVL/Kr7I1+B1Z+FM0RP0HIN3lYwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYTAgFw0yNjExMjIyMzIwMjdaGA8yMTI2MTAyOTIzMjAyN1ow
DDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABN9xvjmn92U3
VE/fPTyO+HumAyaj2QqzFiqI/Uh9b9oE1PWOyxBH2SFO4I2VfJYXRR6aIoTH3dw/
Dae57J7YgxyjUzBRMB0GA1UdDgQWBBTUNhuaWXCagMCThp9W58NSKqA5/DAfBgNV
HSMEGDAWgBTUNhuaWXCagMCThp9W58NSKqA5/DAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0kAMEYCIQDxo1mzOQM3CiMvO6Kx0bOzB80h0yWBawSBwBpxZ9Xi
ywIhAMh3AR/lbI09KzfUxT4AvitJdF3CsO8EpCZpD33wHYlI
-----END CERTIFICATE-----
`;

let ages = 0;
export const metadata = (name: string, namespace = 'default') => ({
  name,
  namespace,
  generation: 1,
  creationTimestamp: new Date(++ages * 1000).toISOString(),
});
export const listener = (more: Partial<Listener> = {}): Listener => ({
  name: 'http',
  port: 80,
  protocol: 'HTTP',
  ...more,
});
export const gateway = (...listeners: Listener[]): Gateway => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'Gateway',
  metadata: metadata('g'),
  spec: { gatewayClassName: 'coxswain', listeners },
});
export const to = (name: string, more: object = {}) => ({ name, port: 80, ...more });
export const path = (value: string, type = 'PathPrefix') => ({ path: { type, value } }) as never;
export const rule = (service: string, ...matches: object[]): HTTPRouteRule => ({
  ...(matches.length > 0 ? { matches: matches as never } : {}),
  backendRefs: [to(service)],
});
export function route(
  name: string,
  rules: readonly unknown[],
  hostnames: string[] = ['a.test'],
  namespace = 'default',
): Route {
  return {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'HTTPRoute',
    metadata: metadata(name, namespace),
    spec: { parentRefs: [{ name: 'g', namespace: 'default' }], hostnames, rules },
  };
}

export interface Given {
  readonly gateways?: readonly Gateway[];
  readonly sets?: readonly ListenerSet[];
  readonly http?: readonly Route[];
  readonly others?: Partial<Record<RouteKind, readonly Route[]>>;
  readonly grants?: readonly ReferenceGrant[];
  readonly policies?: readonly BackendTLSPolicy[];
  readonly configMaps?: Readonly<Record<string, Record<string, string>>>;
  /** Service → application protocol of its port 80. */
  readonly appProtocols?: Readonly<Record<string, string>>;
  readonly secrets?: Readonly<Record<string, Record<string, string>>>;
}
export function build({ gateways = [gateway(listener())], http = [], others = {}, ...given }: Given): GatewayState {
  const routes = { HTTPRoute: http, GRPCRoute: [], TLSRoute: [], TCPRoute: [], UDPRoute: [], ...others };
  const objects: GatewayObjects = {
    classes: [
      {
        apiVersion: 'gateway.networking.k8s.io/v1',
        kind: 'GatewayClass',
        metadata: metadata('coxswain'),
        spec: { controllerName: 'coxswain.dev/gateway' },
      },
    ],
    gateways,
    listenerSets: given.sets ?? [],
    routes: routes as unknown as RoutesByKind,
    grants: given.grants ?? [],
    policies: given.policies ?? [],
    namespace: name => ({ metadata: { name, labels: { team: name } } }) as unknown as Namespace,
    service: (namespace, name) =>
      name === 'missing'
        ? undefined
        : ({
            metadata: { name, namespace },
            spec: {
              ports: [
                { port: 80, name: 'http', appProtocol: given.appProtocols?.[name] },
                { port: 53, name: 'dns', protocol: 'UDP' },
              ],
            },
          } as Service),
    secret: ({ namespace, name }) => given.secrets?.[`${namespace}/${name}`],
    configMap: ({ name }) => given.configMaps?.[name],
  };
  const ports = new Map([80, 81, 82, 443, 444, 445, 5000].map((port, at) => [port, 11_000 + at]));
  return buildGatewayState(objects, new Map(gateways.map(each => [`default/${each.metadata.name}`, ports])));
}
export const ask = (
  state: GatewayState,
  url: string,
  headers: Record<string, string> = {},
  method = 'GET',
  port = 80,
) => {
  const { hostname, pathname, searchParams } = new URL(url);
  const frontend = state.frontends.find(each => each.port === port) as HttpFrontend;
  const asked = {
    host: hostname,
    path: pathname,
    method,
    headers: new Map(Object.entries(headers)),
    query: searchParams,
  };
  return matchRequest(frontend, asked).candidate?.choices[0]?.backend.service?.name;
};
export const saidOf = (state: GatewayState, at = 0) =>
  state.routes[at]!.parents.map(({ conditions }) =>
    conditions.map(({ type, status, reason }) => `${type} ${status} ${reason}`).join(', '),
  );
