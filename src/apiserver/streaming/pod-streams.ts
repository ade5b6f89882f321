/**
 * `pods/log`, `exec`, `attach` and `portforward`: finds the pod's kubelet and lets the client talk to it. What the
 * subresource is about (which container) is settled here, in upstream's words; the protocols (WebSocket, SPDY) are the kubelet's.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Container, Pod } from '../../api/core/v1.gen.ts';
import { timeError } from '../../api/go-json-error.ts';
import {
  badRequest,
  type FieldError,
  failure,
  fieldErrors,
  internalError,
  invalid,
  notFound,
  type StatusReason,
} from '../../base/errors.ts';
import { PODS } from '../../client/resources.ts';
import { forbiddenRequest } from '../authz/denial.ts';
import type { Authorizer, ConnectContext, ConnectHandler, Reader } from '../request.ts';
import { numberOf } from '../request-options.ts';
import { dialText } from './dial.ts';
import { type KubeletConnections, plainFailure } from './kubelet-connection.ts';
import { type Frames, isWebSocket, openMessages } from './message-replies.ts';
import { copyBody, forwardedHeaders, requestHead, tunnel } from './tunnel.ts';

/** Upstream reads that much of a kubelet's error. */
const ERROR_BYTES_MAX = 2048;
/** By subprotocol; what a client that names none gets stands first. */
const LOG_FRAMES: Readonly<Record<string, Frames>> = {
  '': 'binary',
  'binary.k8s.io': 'binary',
  'base64.binary.k8s.io': 'base64',
};
const TEXT = { 'content-type': 'text/plain' };

export interface PodStreamsOptions {
  readonly reader: () => Reader;
  readonly kubelets: KubeletConnections;
  readonly authorizer: Authorizer;
}

export function podStreams(options: PodStreamsOptions): ConnectHandler[] {
  const upgraded = (subresource: string, locate: (pod: Pod, query: URLSearchParams) => string): ConnectHandler => ({
    of: PODS,
    subresource,
    async handle(context) {
      await mayCreate(options.authorizer, context);
      const pod = readPod(options.reader(), context);
      const path = locate(pod, context.query);
      const nodeName = pod.spec?.nodeName;
      if (!nodeName) throw badRequest(`pod ${pod.metadata.name} does not have a host assigned`);
      const endpoint = options.kubelets.locate(nodeName);
      const { socket } = context;
      if (!socket) throw badRequest('Upgrade request required');
      const backend = await options.kubelets.connect(endpoint);
      const headers = forwardedHeaders(context.req.headers, { upgrade: true });
      await tunnel(
        { socket, head: context.head },
        backend,
        requestHead({ method: context.req.method ?? 'GET', path, host: `${endpoint.host}:${endpoint.port}`, headers }),
      );
    },
  });
  return [
    { of: PODS, subresource: 'log', handle: context => log(options, context) },
    upgraded('exec', (pod, query) => withContainer('exec', pod, query)),
    upgraded('attach', (pod, query) => withContainer('attach', pod, query)),
    upgraded(
      'portforward',
      (pod, query) => `/portForward/${pod.metadata.namespace}/${pod.metadata.name}${search(query)}`,
    ),
  ];
}

// A WebSocket opens with a GET, but starting a command takes the right to create (upstream since 1.35).
async function mayCreate(authorizer: Authorizer, { attributes, socket }: ConnectContext): Promise<void> {
  if (attributes.verb !== 'get' || !socket) return;
  const asked = { ...attributes, verb: 'create' };
  const decision = await authorizer.authorize(asked);
  if (!decision.allowed) throw forbiddenRequest(asked, decision.reason);
}

function readPod(reader: Reader, { attributes: { namespace, name } }: ConnectContext): Pod {
  const pod = reader.get(PODS, namespace, name) as Pod | undefined;
  if (!pod) throw notFound(PODS, name);
  return pod;
}

const search = (query: URLSearchParams): string => (query.size ? `?${query}` : '');

function withContainer(action: string, pod: Pod, query: URLSearchParams): string {
  const parameters = new URLSearchParams();
  for (const name of ['stdin', 'stdout', 'stderr', 'tty']) {
    const value = query.get(name);
    // The kubelet's own parameters are called input, output and error.
    if (value !== null && /^(1|t|true)$/i.test(value))
      parameters.set({ stdin: 'input', stdout: 'output', stderr: 'error', tty: 'tty' }[name]!, '1');
  }
  if (action === 'exec') for (const word of query.getAll('command')) parameters.append('command', word);
  const container = chooseContainer(pod, query.get('container') ?? '');
  return `/${action}/${pod.metadata.namespace}/${pod.metadata.name}/${container}${search(parameters)}`;
}

/** The container asked for, or the only one. Throws BadRequest. */
function chooseContainer(pod: Pod, asked: string): string {
  const name = pod.metadata.name;
  const {
    containers = [],
    initContainers = [],
    ephemeralContainers = [],
  } = pod.spec ?? ({} as Partial<NonNullable<Pod['spec']>>);
  if (asked !== '') {
    if ([...containers, ...initContainers, ...ephemeralContainers].some(container => container.name === asked))
      return asked;
    throw badRequest(`container ${asked} is not valid for pod ${name}`);
  }
  if (containers.length === 1) return containers[0]!.name;
  if (containers.length === 0) throw badRequest(`a container name must be specified for pod ${name}`);
  const names = (list: readonly Pick<Container, 'name'>[]) => `[${list.map(container => container.name).join(' ')}]`;
  const others = initContainers.length ? ` or one of the init containers: ${names(initContainers)}` : '';
  throw badRequest(`a container name must be specified for pod ${name}, choose one of: ${names(containers)}${others}`);
}

async function log(options: PodStreamsOptions, context: ConnectContext): Promise<void> {
  const { query, res, socket } = context;
  const parameters = logParameters(context.attributes.name, query);
  const pod = readPod(options.reader(), context);
  const container = chooseContainer(pod, query.get('container') ?? '');
  if (!res && !isWebSocket(context.req.headers)) throw badRequest('logs are upgraded to a WebSocket only');
  const begin = async () => {
    if (!res)
      return openMessages(
        { request: context.req as IncomingMessage, socket: socket!, head: context.head! },
        LOG_FRAMES,
      );
    (res as ServerResponse).writeHead(200, TEXT);
    if ('flushHeaders' in res) res.flushHeaders();
    return res;
  };
  const nodeName = pod.spec?.nodeName;
  if (!nodeName) {
    (await begin()).end();
    return;
  }
  const endpoint = options.kubelets.locate(nodeName);
  const path = `/containerLogs/${pod.metadata.namespace}/${pod.metadata.name}/${container}${search(parameters)}`;
  const reply = await new Promise<IncomingMessage | undefined>((resolve, reject) => {
    const open = (again: boolean) => {
      const request = options.kubelets.request(endpoint, { method: 'GET', path }, resolve);
      request.once('error', (error: NodeJS.ErrnoException) => {
        // The kubelet may have closed a kept connection just as it was used again.
        if (again && request.reusedSocket && error.code === 'ECONNRESET') return open(false);
        reject(plainFailure(`Get "https://${endpoint.host}:${endpoint.port}${path}": ${dialText(endpoint, error)}`));
      });
      (res ?? socket!).once('close', () => {
        resolve(undefined);
        request.destroy();
      });
      request.end();
    };
    open(true);
  });
  if (!reply) return;
  if (reply.statusCode !== 200) throw await kubeletError(reply, pod.metadata.name);
  await copyBody(reply, await begin());
}

async function kubeletError(reply: IncomingMessage, name: string): Promise<Error> {
  let text = '';
  for await (const chunk of reply.setEncoding('utf8')) if ((text += chunk).length > ERROR_BYTES_MAX) break;
  text = text.slice(0, ERROR_BYTES_MAX);
  const code = reply.statusCode ?? 500;
  if (code === 400) return badRequest(text);
  if (code === 500) return internalError(text);
  const reasons: Readonly<Record<number, StatusReason>> = {
    401: 'Unauthorized',
    403: 'Forbidden',
    404: 'NotFound',
    405: 'MethodNotAllowed',
    429: 'TooManyRequests',
    503: 'ServiceUnavailable',
  };
  const known =
    code === 404
      ? 'the server could not find the requested resource'
      : code === 401
        ? 'the server has asked for the client to provide credentials'
        : text || 'unknown';
  return failure(code, reasons[code] ?? 'InternalError', `${known} ( pods/log ${name})`, {
    name,
    kind: 'pods/log',
    causes: [{ reason: 'UnexpectedServerResponse', message: text }],
  });
}

// Only parameters that are set are passed on, checked as upstream's ValidatePodLogOptions does.
function logParameters(name: string, query: URLSearchParams): URLSearchParams {
  const parameters = new URLSearchParams();
  const errors: FieldError[] = [];
  const number = (key: string, least: number, detail: string) => {
    const value = numberOf(query, key);
    if (value === undefined) return;
    if (value < least) errors.push(fieldErrors.invalid(key, value, detail));
    parameters.set(key, String(value));
  };
  for (const key of ['follow', 'previous', 'timestamps'])
    if (/^(1|t|true)$/i.test(query.get(key) ?? '')) parameters.set(key, 'true');
  number('tailLines', 0, 'must be greater than or equal to 0');
  number('limitBytes', 1, 'must be greater than 0');
  number('sinceSeconds', 1, 'must be greater than 0');
  const since = query.get('sinceTime');
  if (since) {
    const problem = timeError(since, '');
    if (problem !== undefined) throw badRequest(problem);
    parameters.set('sinceTime', since);
  }
  if (since && query.get('sinceSeconds'))
    errors.push(fieldErrors.forbidden('sinceSeconds', 'at most one of `sinceTime` or `sinceSeconds` may be specified'));
  const stream = query.get('stream');
  if (stream && !['All', 'Stdout', 'Stderr'].includes(stream))
    errors.push(fieldErrors.notSupported('stream', stream, ['All', 'Stdout', 'Stderr']));
  if (stream && stream !== 'All') {
    parameters.set('stream', stream);
    if (parameters.has('tailLines'))
      errors.push(
        fieldErrors.forbidden('tailLines', '`tailLines` and specific `stream` are mutually exclusive for now'),
      );
  }
  if (errors.length) throw invalid({ group: '', kind: 'PodLogOptions' }, name, errors);
  return parameters;
}
