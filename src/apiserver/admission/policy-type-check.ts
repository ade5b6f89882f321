/**
 * What the validations of a policy get wrong about the kinds that it matches: fields that a kind does not have, operators
 * between types that cannot meet. Told in the policy's status and never refused, because a policy may match kinds that come
 * later. Only rules without wildcards are looked at, as upstream does. Pure.
 */

import type { ExpressionWarning, ValidatingAdmissionPolicy } from '../../api/admissionregistration/v1.gen.ts';
import { schemaType } from '../../api/apiextensions/schema-types.ts';
import type { JSONSchemaProps } from '../../api/apiextensions/v1.gen.ts';
import { type Declarations, DYN, listOf, mapOf, plain, type Type } from '../../api/cel/checker.ts';
import { fieldOf, hasType } from '../../api/schema-registry.ts';
import type { ResourceTable, Served } from '../resource-table.ts';
import { splitApiVersion } from '../resource-table.ts';
import { typeOfAdmission } from './expressions.ts';

const TYPES_MAX = 10;
/** Scalars whose JSON has one type; the others may be a number or a text. */
const SCALARS: Readonly<Record<string, string>> = {
  string: 'string',
  duration: 'string',
  bool: 'bool',
  int32: 'int',
  int64: 'int',
  double: 'double',
  bytes: 'bytes',
  time: 'timestamp',
  microtime: 'timestamp',
};

export function typeWarnings({ spec }: ValidatingAdmissionPolicy, table: ResourceTable): ExpressionWarning[] {
  const matched = matchedKinds(spec, table);
  const params = paramsOf(spec, table);
  const warnings: ExpressionWarning[] = [];
  const check = (fieldRef: string, expression: string | undefined) => {
    if (!expression) return;
    const problems = matched.flatMap(served => {
      const { group, version, kind } = served.info;
      try {
        typeOfAdmission(expression, declarations(spec, { object: typeOf(served), params }));
        return [];
      } catch (error) {
        return [`${group}/${version}, Kind=${kind}: ${(error as Error).message}`];
      }
    });
    if (problems.length > 0) warnings.push({ fieldRef, warning: problems.join('\n') });
  };
  for (const [index, { expression, messageExpression }] of (spec.validations ?? []).entries()) {
    check(`spec.validations[${index}].expression`, expression);
    check(`spec.validations[${index}].messageExpression`, messageExpression);
  }
  return warnings;
}

function matchedKinds({ matchConstraints }: ValidatingAdmissionPolicy['spec'], table: ResourceTable): Served[] {
  const found = new Map<string, Served>();
  for (const { apiGroups = [], apiVersions = [], resources = [] } of matchConstraints?.resourceRules ?? []) {
    if ([...apiGroups, ...apiVersions, ...resources].some(name => name.includes('*'))) continue;
    for (const group of apiGroups)
      for (const version of apiVersions)
        for (const resource of resources) {
          const served = table.find(group, version, resource);
          if (served) found.set(`${group}/${version}/${resource}`, served);
        }
  }
  return [...found.keys()]
    .sort()
    .slice(0, TYPES_MAX)
    .map(key => found.get(key)!);
}

function paramsOf({ paramKind }: ValidatingAdmissionPolicy['spec'], table: ResourceTable): Type {
  if (!paramKind?.kind) return DYN;
  const { group, version } = splitApiVersion(paramKind.apiVersion ?? '');
  const served = table.ofKind(group, version, paramKind.kind);
  return served ? typeOf(served) : DYN;
}

function declarations(
  { variables = [] }: ValidatingAdmissionPolicy['spec'],
  { object, params }: { readonly object: Type; readonly params: Type },
): Declarations {
  const known = new Map<string, Type>();
  const names: Readonly<Record<string, Type>> = {
    object,
    oldObject: object,
    params,
    request: DYN,
    authorizer: DYN,
    namespaceObject: DYN,
    variables: { is: 'object', field: name => known.get(name) },
  };
  const declared: Declarations = name => (Object.hasOwn(names, name) ? names[name] : undefined);
  // Each sees those before it. One that is wrong itself says nothing about what uses it.
  for (const { name, expression } of variables) {
    try {
      known.set(name, typeOfAdmission(expression, declared));
    } catch {
      known.set(name, DYN);
    }
  }
  return declared;
}

function typeOf({ info, custom }: Served): Type {
  if (!custom) return messageType(info.type);
  const schema = schemaType(custom.published as JSONSchemaProps, true);
  if (schema.is !== 'object') return schema;
  return {
    is: 'object',
    field: name => (name === 'metadata' ? messageType('meta.v1.ObjectMeta') : schema.field(name)),
  };
}

function messageType(type: string): Type {
  return {
    is: 'object',
    field(name) {
      const field = fieldOf(type, name);
      return field && valueType(field.type);
    },
  };
}

function valueType(ref: string): Type {
  if (ref.startsWith('[]')) return listOf(valueType(ref.slice(2)));
  if (ref.startsWith('map[string]')) return mapOf(valueType(ref.slice('map[string]'.length)));
  if (hasType(ref)) return messageType(ref);
  const scalar = SCALARS[ref];
  return scalar ? plain(scalar) : DYN;
}
