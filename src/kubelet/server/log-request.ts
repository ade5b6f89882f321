/**
 * `GET /containerLogs/NAMESPACE/POD/CONTAINER`: reads the query, finds the file of the container that the pod's status
 * names (as the kubelet does, so that `--previous` and a container between two runs agree with what `kubectl get` shows),
 * and sends it.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ContainerStatus } from '../../api/core/v1.gen.ts';
import { containerStatus } from '../../api/machinery/pod.ts';
import type { Clock } from '../../base/clock.ts';
import { type ApiError, badRequest, failure, messageOf } from '../../base/errors.ts';
import type { ContainerTarget, KubeletBackend } from './backend.ts';
import { copyLog, type LogOptions, type LogSource, openLog } from './container-log.ts';
import { parseNanos } from './log-line.ts';
import { flag, integer } from './query.ts';

export interface LogContext {
  readonly backend: KubeletBackend;
  readonly clock: Clock;
}

/** Resolves when the log is sent or its client is gone. Throws ApiError before anything was sent. */
export async function serveLog(
  request: IncomingMessage,
  response: ServerResponse,
  path: { readonly namespace: string; readonly pod: string; readonly container: string },
  query: URLSearchParams,
  { backend, clock }: LogContext,
): Promise<void> {
  const options = logOptions(query, clock);
  const target = await backend.resolveContainer(path.namespace, path.pod, path.container, 'logs');
  const source = await logSource(target, path.pod, flag(query, 'previous'), backend);
  const file = await openLog(source.path).catch(error => {
    throw badRequest(messageOf(error));
  });
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  request.on('error', () => {});
  response.writeHead(200, { 'Content-Type': 'text/plain' });
  if (options.follow) response.flushHeaders();
  if (request.method === 'HEAD') await file.close();
  else await copyLog(file, source, options, response, clock, gone.signal);
  response.end();
}

function logOptions(query: URLSearchParams, clock: Clock): LogOptions {
  // `tail` is the older name of tailLines; its "all" is the default.
  const tail = query.get('tail');
  const tailLines = tail ? (tail === 'all' ? undefined : integer(query, 'tail')) : integer(query, 'tailLines');
  const limitBytes = integer(query, 'limitBytes');
  const sinceSeconds = integer(query, 'sinceSeconds');
  const sinceTime = query.get('sinceTime') || undefined;
  const sinceNanos = sinceTime === undefined ? undefined : parseNanos(sinceTime);
  if (sinceTime !== undefined && sinceNanos === undefined) throw badRequest('{"message": "Unable to decode query."}');
  const stream = query.get('stream') || 'All';
  const isValid =
    (tailLines ?? 0) >= 0 &&
    (limitBytes ?? 1) > 0 &&
    (sinceSeconds ?? 1) > 0 &&
    (sinceSeconds === undefined || sinceNanos === undefined) &&
    ['All', 'Stdout', 'Stderr'].includes(stream) &&
    (stream === 'All' || tailLines === undefined);
  if (!isValid) throw failure(422, 'Invalid', '{"message": "Invalid request."}');
  return {
    follow: flag(query, 'follow'),
    timestamps: flag(query, 'timestamps'),
    tailLines,
    limitBytes,
    sinceNanos:
      sinceSeconds === undefined ? sinceNanos : BigInt(Math.floor(clock.now() - sinceSeconds * 1000)) * 1_000_000n,
    stream: stream === 'Stdout' ? 'stdout' : stream === 'Stderr' ? 'stderr' : undefined,
  };
}

async function logSource(
  target: ContainerTarget,
  podName: string,
  previous: boolean,
  backend: KubeletBackend,
): Promise<LogSource> {
  const { pod, containerName } = target;
  const podUid = pod.metadata.uid ?? '';
  const { runtime } = backend;
  const status =
    containerStatus(pod.status?.containerStatuses, containerName) ??
    containerStatus(pod.status?.initContainerStatuses, containerName) ??
    containerStatus(pod.status?.ephemeralContainerStatuses, containerName);
  const id = containerId(status, containerName, podName, previous);
  const find = async () => (await runtime.snapshot(podUid)).containers.find(container => container.id === id);
  const path = (await find())?.logPath ?? target.logPath(previous ? 'previous' : 'current');
  if (path === undefined) throw badRequest(`unable to retrieve container logs for ${status?.containerID ?? id}`);
  return {
    path,
    isLive: async () => (await find())?.state === 'running',
    onChange(callback) {
      const stop = new AbortController();
      void (async () => {
        for await (const event of runtime.events(stop.signal)) if (event.podUid === podUid) callback();
      })().catch(() => {});
      return () => stop.abort();
    },
  };
}

// The container whose log is meant, by the rules and in the words of the kubelet.
function containerId(status: ContainerStatus | undefined, container: string, pod: string, previous: boolean): string {
  const fail = (text: string): ApiError => badRequest(text);
  if (!status) throw fail(`container "${container}" in pod "${pod}" is not available`);
  const { running, terminated, waiting } = status.state ?? {};
  const last = status.lastState?.terminated?.containerID;
  const idOf = (uri: string) => uri.replace(/^.*?:\/\//, '');
  if (previous) {
    if (!last) throw fail(`previous terminated container "${container}" in pod "${pod}" not found`);
    return idOf(last);
  }
  if (running) return idOf(status.containerID ?? '');
  if (terminated?.containerID) return idOf(terminated.containerID);
  if (last) return idOf(last);
  if (terminated || status.lastState?.terminated) throw fail(`container "${container}" in pod "${pod}" is terminated`);
  if (!waiting) throw fail(`container "${container}" in pod "${pod}" is waiting to start - no logs yet`);
  throw noLogYet(container, pod, waiting.reason);
}

const WAITING_FOR: Readonly<Record<string, string>> = {
  ErrImagePull: "image can't be pulled",
  ImagePullBackOff: 'trying and failing to pull image',
};

/** Of a container that has never run, in the kubelet's words. */
export function noLogYet(container: string, pod: string, reason = ''): ApiError {
  return badRequest(`container "${container}" in pod "${pod}" is waiting to start: ${WAITING_FOR[reason] ?? reason}`);
}
