/** What admission plugins share: their dependencies, and the form of a refusal. */

import type { Clock } from '../../base/clock.ts';
import { type ApiError, forbidden } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { Transport } from '../../client/transport.ts';
import type { AuthorizerChain } from '../authz/authorizer.ts';
import type { AdmissionRequest, Reader } from '../request.ts';

export interface AdmissionContext {
  readonly reader: () => Reader;
  /** In process, with all rights. */
  readonly transport: () => Transport;
  readonly authorizer: AuthorizerChain;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Upstream's `admission.NewForbidden`: `pods "x" is forbidden: why`. */
export function refusal(request: AdmissionRequest, why: string): ApiError {
  const { attributes, object } = request;
  const name = object?.metadata?.name || attributes.name || object?.metadata?.generateName || 'Unknown';
  return forbidden({ group: attributes.group, resource: attributes.resource }, name, why);
}

/** Whether the request is about the resource itself, not a subresource of it. */
export function isAbout(request: AdmissionRequest, group: string, resource: string): boolean {
  const { attributes } = request;
  return attributes.resource === resource && attributes.group === group && attributes.subresource === '';
}

/** A pod that is being created. */
export const isPodCreate = (request: AdmissionRequest): boolean =>
  request.operation === 'CREATE' && isAbout(request, '', 'pods');

/** The name a create handler or plugin sees before the store has given one. */
export const nameOf = (request: AdmissionRequest): string => request.object?.metadata?.name ?? request.attributes.name;
