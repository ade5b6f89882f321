/** Schemas of what HTTPRoute and GRPCRoute say: matches, filters, rules. As `schemas.ts`, data and no behaviour. */

import {
  atomic,
  backendObjectReference,
  backendReference,
  defaulted,
  duration,
  headerName,
  hostname,
  integer,
  localReference,
  mapBy,
  object,
  oneOf,
  parentReferences,
  port,
  preciseHostname,
  type Rule,
  rule,
  type Schema,
  sectionName,
  setOf,
  text,
  validated,
} from './schemas.ts';

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH'] as const;
const PATH = "^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$";
const RULES_MAX = 16;

const forPlain = (message: string, expression: string): Rule =>
  rule(
    `${message} when type one of ['Exact', 'PathPrefix']`,
    `(self.type in ['Exact','PathPrefix']) ? ${expression} : true`,
  );
const pathMatch = validated(
  object({
    type: defaulted(oneOf('Exact', 'PathPrefix', 'RegularExpression'), 'PathPrefix'),
    value: defaulted(text(undefined, 1024), '/'),
  }),
  forPlain("value must be an absolute path and start with '/'", "self.value.startsWith('/')"),
  ...['//', '/./', '/../', '%2f', '%2F', '#'].map(part =>
    forPlain(`must not contain '${part}'`, `!self.value.contains('${part}')`),
  ),
  ...['/..', '/.'].map(end => forPlain(`must not end with '${end}'`, `!self.value.endsWith('${end}')`)),
  rule(
    "type must be one of ['Exact', 'PathPrefix', 'RegularExpression']",
    "self.type in ['Exact','PathPrefix'] || self.type == 'RegularExpression'",
  ),
  rule(
    `must only contain valid characters (matching ${PATH}) for types ['Exact', 'PathPrefix']`,
    `(self.type in ['Exact','PathPrefix']) ? self.value.matches(r"""${PATH}""") : true`,
  ),
);
const valueMatch = (valueMax: number) =>
  object(
    { type: defaulted(oneOf('Exact', 'RegularExpression'), 'Exact'), name: headerName, value: text(1, valueMax) },
    ['name', 'value'],
  );
const headerMatches = mapBy('name', valueMatch(4096), 16);
const httpMatch = object({
  path: defaulted(pathMatch, { type: 'PathPrefix', value: '/' }),
  headers: headerMatches,
  queryParams: mapBy('name', valueMatch(1024), 16),
  method: oneOf(...METHODS),
});
const SERVICE = '^(?i)\\.?[a-z_][a-z_0-9]*(\\.[a-z_][a-z_0-9]*)*$';
const METHOD = '^[A-Za-z_][A-Za-z_0-9]*$';
const forExact = (field: string, pattern: string): Rule =>
  rule(
    `${field} must only contain valid characters (matching ${pattern})`,
    `(!has(self.type) || self.type == 'Exact') && has(self.${field}) ? self.${field}.matches(r"""${pattern}"""): true`,
  );
const grpcMatch = object({
  method: validated(
    object({
      type: defaulted(oneOf('Exact', 'RegularExpression'), 'Exact'),
      service: text(undefined, 1024),
      method: text(undefined, 1024),
    }),
    rule(
      "One or both of 'service' or 'method' must be specified",
      'has(self.type) ? has(self.service) || has(self.method) : true',
    ),
    forExact('service', SERVICE),
    forExact('method', METHOD),
  ),
  headers: headerMatches,
});

const header = object({ name: headerName, value: text(1, 4096) }, ['name', 'value']);
const headerModifier = object({
  set: mapBy('name', header, 16),
  add: mapBy('name', header, 16),
  remove: setOf(text(), 16),
});
const PATH_MODIFIERS = [
  ['ReplaceFullPath', 'replaceFullPath'],
  ['ReplacePrefixMatch', 'replacePrefixMatch'],
] as const;
const pathModifier = validated(
  object(
    {
      type: oneOf('ReplaceFullPath', 'ReplacePrefixMatch'),
      replaceFullPath: text(undefined, 1024),
      replacePrefixMatch: text(undefined, 1024),
    },
    ['type'],
  ),
  ...PATH_MODIFIERS.flatMap(([type, field]) => [
    rule(
      `${field} must be specified when type is set to '${type}'`,
      `self.type == '${type}' ? has(self.${field}) : true`,
    ),
    rule(`type must be '${type}' when ${field} is set`, `has(self.${field}) ? self.type == '${type}' : true`),
  ]),
);
const alone = (what: string) =>
  rule(
    `${what} cannot contain '*' alongside other ${what === 'AllowOrigins' ? 'origins' : 'methods'}`,
    "!('*' in self && self.size() > 1)",
  );
const ORIGIN = '(^\\*$)|(^([a-zA-Z][a-zA-Z0-9+\\-.]+):\\/\\/([^:/?#]+)(:([0-9]{1,5}))?$)';
const cors = object({
  allowOrigins: validated(setOf(text(1, 253, ORIGIN), 64), alone('AllowOrigins')),
  allowCredentials: { type: 'boolean' },
  allowMethods: validated(setOf(oneOf(...METHODS, '*'), 9), alone('AllowMethods')),
  allowHeaders: validated(setOf(headerName, 64), alone('AllowHeaders')),
  exposeHeaders: setOf(headerName, 64),
  maxAge: defaulted(integer(1), 5),
});
const FILTERS = {
  requestHeaderModifier: headerModifier,
  responseHeaderModifier: headerModifier,
  requestMirror: validated(
    object(
      {
        backendRef: backendObjectReference,
        percent: integer(0, 100),
        fraction: validated(
          object({ numerator: integer(0), denominator: defaulted(integer(1), 100) }, ['numerator']),
          rule('numerator must be less than or equal to denominator', 'self.numerator <= self.denominator'),
        ),
      },
      ['backendRef'],
    ),
    rule(
      'Only one of percent or fraction may be specified in HTTPRequestMirrorFilter',
      '!(has(self.percent) && has(self.fraction))',
    ),
  ),
  requestRedirect: object({
    scheme: oneOf('http', 'https'),
    hostname: preciseHostname,
    path: pathModifier,
    port,
    statusCode: defaulted(oneOf(301, 302, 303, 307, 308), 302),
  }),
  urlRewrite: object({ hostname: preciseHostname, path: pathModifier }),
  cors,
  extensionRef: localReference,
} as const;
type FilterField = keyof typeof FILTERS;
const typeOf = (field: FilterField): string =>
  field === 'cors' ? 'CORS' : field === 'urlRewrite' ? 'URLRewrite' : field[0]!.toUpperCase() + field.slice(1);
const filterOf = (...fields: readonly FilterField[]): Schema =>
  validated(
    object(
      { type: oneOf(...fields.map(typeOf)), ...Object.fromEntries(fields.map(field => [field, FILTERS[field]])) },
      ['type'],
    ),
    ...fields.flatMap(field => [
      rule(
        `filter.${field} must be nil if the filter.type is not ${typeOf(field)}`,
        `!(has(self.${field}) && self.type != '${typeOf(field)}')`,
      ),
      rule(
        `filter.${field} must be specified for ${typeOf(field)} filter.type`,
        `!(!has(self.${field}) && self.type == '${typeOf(field)}')`,
      ),
    ]),
  );
const once = (...fields: readonly FilterField[]): Rule[] =>
  fields.map(field =>
    rule(`${typeOf(field)} filter cannot be repeated`, `self.filter(f, f.type == '${typeOf(field)}').size() <= 1`),
  );
const httpFilters = validated(
  atomic(filterOf(...(Object.keys(FILTERS) as FilterField[])), 16),
  rule(
    'May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both',
    "!(self.exists(f, f.type == 'RequestRedirect') && self.exists(f, f.type == 'URLRewrite'))",
  ),
  ...once('cors', 'requestHeaderModifier', 'responseHeaderModifier', 'requestRedirect', 'urlRewrite'),
);
const grpcFilters = validated(
  atomic(filterOf('requestHeaderModifier', 'responseHeaderModifier', 'requestMirror', 'extensionRef'), 16),
  ...once('requestHeaderModifier', 'responseHeaderModifier'),
);

const replacesPrefix = (field: 'requestRedirect' | 'urlRewrite') =>
  `f, has(f.${field}) && has(f.${field}.path) && f.${field}.path.type == 'ReplacePrefixMatch' && has(f.${field}.path.replacePrefixMatch)`;
const ONE_PREFIX =
  "((size(self.matches) != 1 || !has(self.matches[0].path) || self.matches[0].path.type != 'PathPrefix') ? false : true) : true";
const prefixRules = (['requestRedirect', 'urlRewrite'] as const).flatMap(field => {
  const using = `using ${typeOf(field)} filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified`;
  return [
    rule(`When ${using}`, `(has(self.filters) && self.filters.exists_one(${replacesPrefix(field)})) ? ${ONE_PREFIX}`),
    rule(
      `Within backendRefs, ${field === 'urlRewrite' ? 'W' : 'w'}hen ${using}`,
      `(has(self.backendRefs) && self.backendRefs.exists_one(b, (has(b.filters) && b.filters.exists_one(${replacesPrefix(field)})) )) ? ${ONE_PREFIX}`,
    ),
  ];
});
const ANY_PATH = [{ path: { type: 'PathPrefix', value: '/' } }];
const httpRule = validated(
  object({
    name: sectionName,
    matches: defaulted(atomic(httpMatch, 64), ANY_PATH),
    filters: httpFilters,
    backendRefs: atomic(backendReference({ filters: httpFilters }), 16),
    timeouts: validated(
      object({ request: duration, backendRequest: duration }),
      rule(
        'backendRequest timeout cannot be longer than request timeout',
        "!(has(self.request) && has(self.backendRequest) && duration(self.request) != duration('0s') && duration(self.backendRequest) > duration(self.request))",
      ),
    ),
    retry: object({
      codes: { type: 'array', 'x-kubernetes-list-type': 'set', items: { type: 'integer', minimum: 400, maximum: 599 } },
      attempts: { type: 'integer' },
      backoff: duration,
    }),
  }),
  rule(
    'RequestRedirect filter must not be used together with backendRefs',
    '(has(self.backendRefs) && size(self.backendRefs) > 0) ? (!has(self.filters) || self.filters.all(f, !has(f.requestRedirect))): true',
  ),
  ...prefixRules,
);
const grpcRule = object({
  name: sectionName,
  matches: atomic(grpcMatch, 64),
  filters: grpcFilters,
  backendRefs: atomic(backendReference({ filters: grpcFilters }), 16),
});

const total = (sizeOf: (at: number) => string): Rule =>
  rule(
    'While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than 128',
    `${Array.from({ length: RULES_MAX }, (_, at) => `(self.size() > ${at} ? ${sizeOf(at)} : 0)`).join(' + ')} <= 128`,
  );
const uniqueNames = rule(
  'Rule name must be unique within the route',
  'self.all(l1, !has(l1.name) || self.exists_one(l2, has(l2.name) && l1.name == l2.name))',
);
const hostnames = atomic(hostname, 16);

export const httpRouteSpec = object({
  parentRefs: parentReferences,
  hostnames,
  rules: defaulted(
    validated(
      atomic(httpRule, RULES_MAX, 1),
      uniqueNames,
      total(at => `self[${at}].matches.size()`),
    ),
    [{ matches: ANY_PATH }],
  ),
});
export const grpcRouteSpec = object({
  parentRefs: parentReferences,
  hostnames,
  rules: validated(
    atomic(grpcRule, RULES_MAX),
    uniqueNames,
    total(at => `(has(self[${at}].matches) ? self[${at}].matches.size() : 0)`),
  ),
});

const streamRules = atomic(
  object({ name: sectionName, backendRefs: atomic(backendReference(), 16, 1) }, ['backendRefs']),
  1,
  1,
);
export const streamRouteSpec = object({ parentRefs: parentReferences, rules: streamRules }, ['rules']);
const NAME = '^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)$';
export const tlsRouteSpec = object(
  {
    parentRefs: parentReferences,
    hostnames: validated(
      atomic(hostname, 16, 1),
      rule('Hostnames cannot contain an IP', 'self.all(h, !isIP(h))'),
      rule('Hostnames must be valid based on RFC-1123', `self.all(h, !h.contains('*') ? h.matches('${NAME}') : true)`),
      rule(
        'Wildcards on hostnames must be the first label, and the rest of hostname must be valid based on RFC-1123',
        `self.all(h, h.contains('*') ? (h.startsWith('*.') && h.substring(2).matches('${NAME}')) : true)`,
      ),
    ),
    rules: streamRules,
  },
  ['hostnames', 'rules'],
);
