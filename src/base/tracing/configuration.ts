/** Where spans go and how many: the fields of upstream's TracingConfiguration, in the API server's file and the kubelet's, and its rules for them. */

import { badRequest } from '../errors.ts';

export interface TracingSettings {
  /** A target of gRPC; absent, `localhost:4317`. */
  readonly endpoint?: string;
  /** Absent or 0, only what others have sampled is. */
  readonly samplingRatePerMillion?: number;
}

/** Where a collector listens. */
export type TracingEndpoint = { readonly host: string; readonly port: number } | { readonly path: string };

const DEFAULT_ENDPOINT = 'localhost:4317';
const RATE_MAX = 1_000_000;
/** gRPC's, for names without a port. */
const PORT_DEFAULT = 443;
const SCHEMES = ['dns', 'unix', 'unix-abstract'];

/** What is wrong, each with the field that it is of. */
export function tracingProblems({ endpoint, samplingRatePerMillion: rate }: TracingSettings): readonly {
  readonly field: 'endpoint' | 'samplingRatePerMillion';
  readonly value: string | number;
  readonly detail: string;
}[] {
  const detail =
    rate === undefined
      ? undefined
      : rate < 0
        ? 'sampling rate must be positive'
        : rate > RATE_MAX
          ? 'sampling rate per million must be less than or equal to one million'
          : undefined;
  const problem = endpoint === undefined ? undefined : endpointProblem(endpoint);
  return [
    ...(detail ? [{ field: 'samplingRatePerMillion' as const, value: rate!, detail }] : []),
    ...(problem ? [{ field: 'endpoint' as const, value: withScheme(endpoint!), detail: problem }] : []),
  ];
}

/** As upstream, a name alone is one of the DNS, and stands where the server that is asked for it would. */
const withScheme = (endpoint: string): string => (endpoint.includes('//') ? endpoint : `dns://${endpoint}`);

function endpointProblem(endpoint: string): string | undefined {
  const url = withScheme(endpoint);
  const [, scheme, authority, path = ''] = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/([^/?#]*)(.*)$/.exec(url) ?? [];
  if (scheme === undefined || authority === undefined)
    return `parse ${JSON.stringify(url)}: ${url.startsWith(':') ? 'missing protocol scheme' : 'first path segment in URL cannot contain colon'}`;
  const bad = /[\s"<>\\^`{|}]/.exec(authority)?.[0];
  if (bad) return `parse ${JSON.stringify(url)}: invalid character ${JSON.stringify(bad)} in host name`;
  const port = /^\[[^\]]*\](.*)$/.exec(authority)?.[1] ?? /:[^:]*$/.exec(authority)?.[0] ?? '';
  if (!/^(:\d*)?$/.test(port)) return `parse ${JSON.stringify(url)}: invalid port ${JSON.stringify(port)} after host`;
  if (!SCHEMES.includes(scheme.toLowerCase()))
    return `unsupported scheme: ${scheme.toLowerCase()}.  Options are none, dns, unix, or unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md`;
  // gRPC finds these when it connects, and upstream never says so.
  if (!endpoint.includes('//')) return path ? `a name and a port, and no path: ${path}` : undefined;
  if (authority !== '')
    return `${scheme}:///${authority}${path} has no authority: another server for names cannot be asked here`;
  return path.length > 1 ? undefined : 'it names no place';
}

/** Of settings without problems. */
export function tracingEndpoint({ endpoint }: TracingSettings): TracingEndpoint {
  const target = endpoint || DEFAULT_ENDPOINT;
  const [, scheme = 'dns', path] = /^([A-Za-z-]+):\/\/(\/.*)$/.exec(target) ?? [];
  if (scheme === 'unix') return { path: path! };
  if (scheme === 'unix-abstract') return { path: `\0${path}` };
  const place = path?.slice(1) ?? target;
  const [, six, name = '', port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(place) ?? [];
  if (six === undefined && name === '') throw badRequest(`tracing endpoint ${JSON.stringify(target)} names no host`);
  return { host: six ?? name, port: port ? Number(port) : PORT_DEFAULT };
}
