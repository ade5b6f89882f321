/** httpGet: healthy for a status from 200 to 399. Redirects on the same host are followed; one to another host counts as healthy, with a warning. */

import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { HTTPGetAction } from '../../api/core/v1.gen.ts';
import { dialError, hostPort, type ProbeOutcome, type Prober, portNumber, probePort } from './prober.ts';

const BODY_BYTES_MAX = 10 * 1024;
const REDIRECTS_MAX = 10;

interface Reply {
  readonly status: number;
  readonly location: string | undefined;
  readonly body: string;
}

function get(url: URL, headers: Readonly<Record<string, string | string[]>>, signal: AbortSignal): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const make = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = make(
      url,
      {
        method: 'GET',
        headers,
        agent: false,
        signal,
        ...(url.protocol === 'https:' ? { rejectUnauthorized: false, servername: '' } : {}),
      },
      response => {
        let body = '';
        response.on('data', (chunk: Buffer) => {
          if (body.length < BODY_BYTES_MAX) body += chunk.toString('latin1').slice(0, BODY_BYTES_MAX - body.length);
        });
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, location: response.headers.location, body }),
        );
        response.on('error', reject);
      },
    );
    request.on('error', reject);
    request.end();
  });
}

/** Also the request that an httpGet lifecycle hook makes. Rejects when there is no answer. */
export async function httpGet(
  action: HTTPGetAction,
  target: { readonly podIp: string; readonly container: Parameters<typeof portNumber>[1] },
  options: { readonly signal: AbortSignal; readonly userAgent: string },
): Promise<Reply & { readonly url: string }> {
  const host = action.host || target.podIp;
  const port = portNumber(action.port, target.container);
  const scheme = (action.scheme || 'HTTP').toLowerCase();
  const path = action.path ?? '';
  let url = new URL(`${scheme}://${hostPort(host, port)}${path.startsWith('/') ? '' : '/'}${path}`);
  const headers: Record<string, string | string[]> = {
    'User-Agent': options.userAgent,
    Accept: '*/*',
    Connection: 'close',
  };
  for (const { name, value } of action.httpHeaders ?? []) {
    const key =
      Object.keys(headers).find(
        known => known.toLowerCase() === name.toLowerCase() && ['user-agent', 'accept'].includes(known.toLowerCase()),
      ) ?? name;
    if (value === '' && key !== name) delete headers[key];
    else headers[key] = value;
  }
  for (let hops = 0; ; hops++) {
    const reply = await get(url, headers, options.signal);
    if (reply.status < 300 || reply.status > 399 || reply.status === 304 || !reply.location)
      return { ...reply, url: url.href };
    const next = new URL(reply.location, url);
    if (next.hostname !== url.hostname || hops >= REDIRECTS_MAX) return { ...reply, url: url.href };
    url = next;
  }
}

export const httpProber: Prober<HTTPGetAction> = {
  action: 'httpGet',
  async probe(action, target, { signal }): Promise<ProbeOutcome> {
    const port = probePort(action.port, target.container);
    try {
      const reply = await httpGet(action, target, { signal, userAgent: 'kube-probe/1.36' });
      if (reply.status >= 300 && reply.status < 400)
        return { isSuccess: true, isWarning: true, output: `Probe terminated redirects, Response body: ${reply.body}` };
      if (reply.status >= 200 && reply.status < 300) return { isSuccess: true, output: reply.body };
      return { isSuccess: false, output: `HTTP probe failed with statuscode: ${reply.status}` };
    } catch (error) {
      const address = hostPort(action.host || target.podIp, port);
      const path = action.path ?? '';
      const url = `${(action.scheme || 'HTTP').toLowerCase()}://${address}${path.startsWith('/') ? '' : '/'}${path}`;
      const why = signal.aborted
        ? 'context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        : dialError(error, address);
      return { isSuccess: false, output: `Get "${url}": ${why}` };
    }
  },
};
