/**
 * Expected failures: each is a Kubernetes `Status` that a client can read. Anything else that is thrown is a bug.
 * Reasons, codes and messages are those of apimachinery `api/errors` and `util/validation/field`.
 */

export interface StatusCause {
  readonly reason?: string;
  readonly message?: string;
  readonly field?: string;
}

export interface StatusDetails {
  readonly name?: string;
  readonly group?: string;
  readonly kind?: string;
  readonly uid?: string;
  readonly causes?: readonly StatusCause[];
  readonly retryAfterSeconds?: number;
}

export interface Status {
  readonly kind: 'Status';
  readonly apiVersion: 'v1';
  readonly metadata: Record<string, unknown>;
  readonly status: 'Success' | 'Failure';
  readonly message?: string;
  readonly reason?: string;
  readonly details?: StatusDetails;
  readonly code: number;
}

export type StatusReason =
  | 'Unauthorized'
  | 'Forbidden'
  | 'NotFound'
  | 'AlreadyExists'
  | 'Conflict'
  | 'Gone'
  | 'Invalid'
  | 'ServerTimeout'
  | 'Timeout'
  | 'TooManyRequests'
  | 'BadRequest'
  | 'MethodNotAllowed'
  | 'NotAcceptable'
  | 'UnsupportedMediaType'
  | 'RequestEntityTooLarge'
  | 'InternalError'
  | 'Expired'
  | 'ServiceUnavailable'
  | 'StoreReadError';

export class ApiError extends Error {
  override name = 'ApiError';
  readonly status: Status;
  constructor(status: Status) {
    super(status.message ?? status.reason ?? `status ${status.code}`);
    this.status = status;
  }
  get code(): number {
    return this.status.code;
  }
  get reason(): string | undefined {
    return this.status.reason;
  }
}

export function failure(code: number, reason: StatusReason, message: string, details?: StatusDetails): ApiError {
  return new ApiError({
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message,
    reason,
    ...(details ? { details } : {}),
    code,
  });
}

/** A failure without a reason, as upstream answers for errors of its own that are no Status. */
export function unknownFailure(message: string): ApiError {
  return new ApiError({ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, code: 500 });
}

/** Names a resource in messages: `deployments.apps "web" not found`. */
export interface ResourceName {
  readonly group: string;
  readonly resource: string;
}

export function qualified(of: ResourceName): string {
  return of.group === '' ? of.resource : `${of.resource}.${of.group}`;
}

function detailsOf(of: ResourceName, name: string): StatusDetails {
  return { ...(name ? { name } : {}), ...(of.group ? { group: of.group } : {}), kind: of.resource };
}

export const notFound = (of: ResourceName, name: string): ApiError =>
  failure(404, 'NotFound', `${qualified(of)} "${name}" not found`, detailsOf(of, name));
export const alreadyExists = (of: ResourceName, name: string): ApiError =>
  failure(409, 'AlreadyExists', `${qualified(of)} "${name}" already exists`, detailsOf(of, name));
export const conflict = (of: ResourceName, name: string, why: string): ApiError =>
  failure(409, 'Conflict', `Operation cannot be fulfilled on ${qualified(of)} "${name}": ${why}`, detailsOf(of, name));
export const forbidden = (of: ResourceName, name: string, why: string): ApiError =>
  failure(
    403,
    'Forbidden',
    name ? `${qualified(of)} "${name}" is forbidden: ${why}` : `${qualified(of)} is forbidden: ${why}`,
    detailsOf(of, name),
  );
export const badRequest = (message: string): ApiError => failure(400, 'BadRequest', message);
export const unauthorized = (): ApiError => failure(401, 'Unauthorized', 'Unauthorized');
export const expired = (message: string): ApiError => failure(410, 'Expired', message);
export const tooManyRequests = (message: string, retryAfterSeconds: number): ApiError =>
  failure(429, 'TooManyRequests', message, { retryAfterSeconds });
export const internalError = (message: string): ApiError =>
  failure(500, 'InternalError', `Internal error occurred: ${message}`, { causes: [{ message }] });
export const serviceUnavailable = (message: string): ApiError => failure(503, 'ServiceUnavailable', message);
export const tooLargeResourceVersion = (asked: number, current: number): ApiError =>
  failure(504, 'Timeout', `Timeout: Too large resource version: ${asked}, current: ${current}`, {
    retryAfterSeconds: 1,
    causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
  });

/** One finding of validation: `field` is a path such as `spec.containers[0].image`. */
export interface FieldError {
  readonly type:
    | 'FieldValueNotFound'
    | 'FieldValueRequired'
    | 'FieldValueDuplicate'
    | 'FieldValueInvalid'
    | 'FieldValueNotSupported'
    | 'FieldValueForbidden'
    | 'FieldValueTooLong'
    | 'FieldValueTooMany'
    | 'InternalError'
    | 'FieldValueTypeInvalid';
  readonly field: string;
  /** The message as upstream prints it behind the path: `Invalid value: "x": must be …`. */
  readonly message: string;
}

function show(value: unknown): string {
  if (value === null || value === undefined) return 'null';
  // As Go prints bytes.
  if (value instanceof Uint8Array) return `[]byte{${[...value].map(byte => `0x${byte.toString(16)}`).join(', ')}}`;
  return typeof value === 'object' || typeof value === 'string' ? JSON.stringify(value) : String(value);
}

export const fieldErrors = {
  required: (field: string, detail = ''): FieldError => ({
    type: 'FieldValueRequired',
    field,
    message: `Required value${detail && `: ${detail}`}`,
  }),
  invalid: (field: string, value: unknown, detail: string): FieldError => ({
    type: 'FieldValueInvalid',
    field,
    message: `Invalid value: ${show(value)}${detail && `: ${detail}`}`,
  }),
  duplicate: (field: string, value: unknown): FieldError => ({
    type: 'FieldValueDuplicate',
    field,
    message: `Duplicate value: ${show(value)}`,
  }),
  notFound: (field: string, value: unknown): FieldError => ({
    type: 'FieldValueNotFound',
    field,
    message: `Not found: ${show(value)}`,
  }),
  forbidden: (field: string, detail: string): FieldError => ({
    type: 'FieldValueForbidden',
    field,
    message: `Forbidden: ${detail}`,
  }),
  tooLong: (field: string, max: number): FieldError => ({
    type: 'FieldValueTooLong',
    field,
    message: `Too long: may not be more than ${max} bytes`,
  }),
  tooMany: (field: string, actual: number, max: number): FieldError => ({
    type: 'FieldValueTooMany',
    field,
    message: `Too many: ${actual}: must have at most ${max} items`,
  }),
  /** `supported` in the order in which upstream names them: mostly sorted. */
  notSupported: (field: string, value: unknown, supported: readonly string[]): FieldError => ({
    type: 'FieldValueNotSupported',
    field,
    message: `Unsupported value: ${show(value)}${
      supported.length ? `: supported values: ${supported.map(item => JSON.stringify(item)).join(', ')}` : ''
    }`,
  }),
};

/** The 422 that kubectl prints as `The Pod "x" is invalid: …`. */
export function invalid(kind: { group: string; kind: string }, name: string, errors: readonly FieldError[]): ApiError {
  const lines = [...new Set(errors.map(error => `${error.field}: ${error.message}`))];
  const text = lines.length === 1 ? lines[0]! : `[${lines.join(', ')}]`;
  const qualifiedKind = kind.group ? `${kind.kind}.${kind.group}` : kind.kind;
  return failure(422, 'Invalid', `${qualifiedKind} "${name}" is invalid: ${text}`, {
    ...(name ? { name } : {}),
    ...(kind.group ? { group: kind.group } : {}),
    ...(kind.kind ? { kind: kind.kind } : {}),
    causes: errors.map(error => ({ reason: error.type, message: error.message, field: error.field })),
  });
}

export function isReason(error: unknown, ...reasons: StatusReason[]): error is ApiError {
  return error instanceof ApiError && reasons.includes(error.status.reason as StatusReason);
}

/** Text of anything thrown, for a log field or an event message. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
