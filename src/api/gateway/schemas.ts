/**
 * Schemas of the Gateway API's parts that several kinds share, with the limits, defaults and rules that its documentation states for
 * each field. Data and functions that put data together; nothing here is read at run time but by the API server.
 */

import { GROUP } from './v1.ts';

export type Schema = Readonly<Record<string, unknown>>;
export interface Rule {
  readonly message: string;
  readonly rule: string;
}

export const rule = (message: string, expression: string): Rule => ({ message, rule: expression });
export const validated = (schema: Schema, ...rules: readonly Rule[]): Schema => ({
  ...schema,
  'x-kubernetes-validations': [...((schema['x-kubernetes-validations'] as Rule[]) ?? []), ...rules],
});
export const object = (properties: Readonly<Record<string, Schema>>, required: readonly string[] = []): Schema => ({
  type: 'object',
  properties,
  ...(required.length > 0 ? { required } : {}),
});
export const text = (minLength?: number, maxLength?: number, pattern?: string): Schema => ({
  type: 'string',
  ...(minLength === undefined ? {} : { minLength }),
  ...(maxLength === undefined ? {} : { maxLength }),
  ...(pattern === undefined ? {} : { pattern }),
});
export const oneOf = (...values: readonly (string | number)[]): Schema => ({
  type: typeof values[0] === 'number' ? 'integer' : 'string',
  enum: values,
});
export const integer = (minimum: number, maximum?: number): Schema => ({
  type: 'integer',
  format: 'int32',
  minimum,
  ...(maximum === undefined ? {} : { maximum }),
});
export const defaulted = (schema: Schema, value: unknown): Schema => ({ ...schema, default: value });
const list = (type: Schema, items: Schema, maxItems: number, minItems?: number): Schema => ({
  type: 'array',
  items,
  maxItems,
  ...(minItems === undefined ? {} : { minItems }),
  ...type,
});
export const atomic = (items: Schema, maxItems: number, minItems?: number): Schema =>
  list({ 'x-kubernetes-list-type': 'atomic' }, items, maxItems, minItems);
export const setOf = (items: Schema, maxItems: number): Schema =>
  list({ 'x-kubernetes-list-type': 'set' }, items, maxItems);
export const mapBy = (key: string, items: Schema, maxItems: number, minItems?: number): Schema =>
  list({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': [key] }, items, maxItems, minItems);

const LABEL = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';
const DOMAIN = `${LABEL}(\\.${LABEL})*`;
export const hostname = text(1, 253, `^(\\*\\.)?${DOMAIN}$`);
export const preciseHostname = text(1, 253, `^${DOMAIN}$`);
export const group = text(undefined, 253, `^$|^${DOMAIN}$`);
export const kind = text(1, 63, '^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$');
export const namespace = text(1, 63, `^${LABEL}$`);
export const objectName = text(1, 253);
export const sectionName = text(1, 253, `^${DOMAIN}$`);
export const port = integer(1, 65535);
export const headerName = text(1, 256, "^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$");
export const duration = text(undefined, undefined, '^([0-9]{1,5}(h|m|s|ms)){1,4}$');
export const controllerName = text(1, 253, `^${DOMAIN}\\/[A-Za-z0-9\\/\\-._~%!$&'()*+,;=:]+$`);
const QUALIFIED = `^(${DOMAIN}\\/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$`;
export const hostnameRule = (schema: string, mayBeEmpty: boolean): Rule =>
  rule(
    `Hostname value must ${mayBeEmpty ? 'be empty or contain only' : 'only contain'} valid characters (matching ^(\\*\\.)?${DOMAIN}$)`,
    `${schema}.type == 'Hostname' ? ${mayBeEmpty ? `(!has(${schema}.value) || ` : ''}${schema}.value.matches(r"""^(\\*\\.)?${DOMAIN}$""")${mayBeEmpty ? ')' : ''}: true`,
  );

export const selector: Schema = {
  ...object({
    matchLabels: { type: 'object', additionalProperties: text() },
    matchExpressions: {
      type: 'array',
      'x-kubernetes-list-type': 'atomic',
      items: object(
        {
          key: text(),
          operator: text(),
          values: { type: 'array', 'x-kubernetes-list-type': 'atomic', items: text() },
        },
        ['key', 'operator'],
      ),
    },
  }),
  'x-kubernetes-map-type': 'atomic',
};

export const condition = object(
  {
    lastTransitionTime: { type: 'string', format: 'date-time' },
    message: text(undefined, 32768),
    observedGeneration: { type: 'integer', format: 'int64', minimum: 0 },
    reason: text(1, 1024, '^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$'),
    status: oneOf('True', 'False', 'Unknown'),
    type: text(
      undefined,
      316,
      '^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$',
    ),
  },
  ['lastTransitionTime', 'message', 'reason', 'status', 'type'],
);
export const conditions = mapBy('type', condition, 8);
export const waiting = (...types: readonly string[]): object[] =>
  types.map(type => ({
    type,
    status: 'Unknown',
    reason: 'Pending',
    message: 'Waiting for controller',
    lastTransitionTime: '1970-01-01T00:00:00Z',
  }));
export const options = {
  type: 'object',
  maxProperties: 16,
  additionalProperties: text(0, 4096),
};
/** Keys of labels or annotations. */
export const keyed = (what: 'Label' | 'Annotation', maxProperties: number): Schema =>
  validated(
    {
      type: 'object',
      maxProperties,
      additionalProperties:
        what === 'Label' ? text(0, 63, '^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$') : text(0, 4096),
    },
    rule(
      `${what} keys must be in the form of an optional DNS subdomain prefix followed by a required name segment of up to 63 characters.`,
      `self.all(key, key.matches(r"""${QUALIFIED.replace('\\/', '/')}"""))`,
    ),
    rule(
      `If specified, the ${what.toLowerCase()} key's prefix must be a DNS subdomain not longer than 253 characters in total.`,
      'self.all(key, key.split("/")[0].size() < 253)',
    ),
  );

export const localReference = object({ group, kind, name: objectName }, ['group', 'kind', 'name']);
export const secretReference = object(
  { group: defaulted(group, ''), kind: defaulted(kind, 'Secret'), name: objectName, namespace },
  ['name'],
);
export const objectReference = object({ group, kind, name: objectName, namespace }, ['group', 'kind', 'name']);
export const routeGroupKind = object({ group: defaulted(group, GROUP), kind }, ['kind']);
export const parentReference = object(
  { group: defaulted(group, GROUP), kind: defaulted(kind, 'Gateway'), namespace, name: objectName, sectionName, port },
  ['name'],
);

const unset = (of: string, field: string, nothing: string) => `(!has(${of}.${field}) || ${of}.${field} == ${nothing})`;
const same = (field: string, nothing: string) =>
  `((${unset('p1', field, nothing)} && ${unset('p2', field, nothing)}) || (has(p1.${field}) && has(p2.${field}) && p1.${field} == p2.${field}))`;
const alike = (field: string, nothing: string) => `${unset('p1', field, nothing)} == ${unset('p2', field, nothing)}`;
const SAME_PARENT = `p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name && ${same('__namespace__', "''")}`;
const SAME_TARGET = 'p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name';

/** Of routes. The port of a parent is a field of both channels, so its rules are those that know it. */
export const parentReferences = validated(
  atomic(parentReference, 32),
  rule(
    'sectionName or port must be specified when parentRefs includes 2 or more references to the same parent',
    `self.all(p1, self.all(p2, ${SAME_PARENT} ? (${alike('sectionName', "''")} && ${alike('port', '0')}) : true))`,
  ),
  rule(
    'sectionName or port must be unique when parentRefs includes 2 or more references to the same parent',
    `self.all(p1, self.exists_one(p2, ${SAME_PARENT} && ${same('sectionName', "''")} && ${same('port', '0')}))`,
  ),
);
export const policyTargets = validated(
  atomic(object({ group, kind, name: objectName, sectionName }, ['group', 'kind', 'name']), 16, 1),
  rule(
    'sectionName must be specified when targetRefs includes 2 or more references to the same target',
    `self.all(p1, self.all(p2, ${SAME_TARGET} ? (${alike('sectionName', "''")}) : true))`,
  ),
  rule(
    'sectionName must be unique when targetRefs includes 2 or more references to the same target',
    `self.all(p1, self.exists_one(p2, ${SAME_TARGET} && ${same('sectionName', "''")}))`,
  ),
);
export const routeStatus = object(
  {
    parents: atomic(
      object({ parentRef: parentReference, controllerName, conditions: { ...conditions, minItems: 1 } }, [
        'parentRef',
        'controllerName',
        'conditions',
      ]),
      32,
    ),
  },
  ['parents'],
);

const PORT_OF_SERVICE = rule(
  'Must have port for Service reference',
  "(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true",
);
const backend = {
  group: defaulted(group, ''),
  kind: defaulted(kind, 'Service'),
  name: objectName,
  namespace,
  port,
};
export const backendObjectReference = validated(object(backend, ['name']), PORT_OF_SERVICE);
export const backendReference = (more: Readonly<Record<string, Schema>> = {}): Schema =>
  validated(object({ ...backend, weight: defaulted(integer(0, 1_000_000), 1), ...more }, ['name']), PORT_OF_SERVICE);
