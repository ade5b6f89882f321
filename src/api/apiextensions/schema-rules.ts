/**
 * The `x-kubernetes-validations` of a schema: compiled when first needed, run over an object and its old state, with upstream's
 * messages and budgets. A rule about a value that an update does not touch is not run again, unless it speaks of `oldSelf`.
 */

import { isDeepStrictEqual } from 'node:util';
import { systemClock } from '../../base/clock.ts';
import { type FieldError, fieldErrors } from '../../base/errors.ts';
import { metrics } from '../../base/metrics.ts';
import { checkExpression, type Declarations, optionalOf, type Type } from '../cel/checker.ts';
import { estimateCost } from '../cel/cost-estimate.ts';
import { compile, kubernetesLibrary } from '../cel/environment.ts';
import { Budget, CelBudgetError, type Program, type Scope } from '../cel/evaluator.ts';
import { type Expression, parse } from '../cel/parser.ts';
import { NONE, Optional, type Value } from '../cel/values.ts';
import { addForbidden, addInvalid, addRequired, type Errors } from '../machinery/validation.ts';
import { schemaType, valuesMax } from './schema-types.ts';
import { schemaValue } from './schema-values.ts';
import { isObject, type SchemaNode } from './structural-schema.ts';
import type { JSONSchemaProps, ValidationRule } from './v1.gen.ts';

/** Upstream's: for one run of a rule, and for all rules of an object. */
const RULE_COST_MAX = 1_000_000;
const OBJECT_COST_MAX = 10_000_000;
const MESSAGE_LENGTH_MAX = 5_120;

/** Those of Prometheus' libraries. */
const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const compilations = metrics
  .histogram('apiserver_cel_compilation_duration_seconds', 'CEL compilation time in seconds.', SECONDS)
  .series();
const evaluations = metrics
  .histogram('apiserver_cel_evaluation_duration_seconds', 'CEL evaluation time in seconds.', SECONDS)
  .series();
const secondsSince = (ms: number): number => (systemClock.monotonic() - ms) / 1000;

interface CompiledRule {
  readonly rule: ValidationRule;
  readonly program: Program;
  readonly message: Program | undefined;
  readonly usesOldSelf: boolean;
}

const compiled = new WeakMap<ValidationRule, CompiledRule>();
const withRules = new WeakMap<SchemaNode, boolean>();

function compiledRule(rule: ValidationRule): CompiledRule {
  let found = compiled.get(rule);
  if (!found) {
    const startMs = systemClock.monotonic();
    found = {
      rule,
      program: compile(rule.rule),
      message: rule.messageExpression ? compile(rule.messageExpression) : undefined,
      usesOldSelf: mentions(parse(rule.rule), 'oldSelf'),
    };
    compiled.set(rule, found);
    compilations.observe(secondsSince(startMs));
  }
  return found;
}

/** Whether an expression names a variable. */
export function mentions(expression: Expression, name: string): boolean {
  const look = (value: unknown): boolean => {
    if (typeof value !== 'object' || value === null) return false;
    if (Array.isArray(value)) return value.some(look);
    const node = value as { is?: string; name?: unknown };
    return (node.is === 'name' && node.name === name) || Object.values(value).some(look);
  };
  return look(expression);
}

/** Whether the schema has rules anywhere. */
export function hasRules(node: SchemaNode): boolean {
  let found = withRules.get(node);
  if (found === undefined) {
    found = node.rules.length > 0 || childrenOf(node).some(hasRules);
    withRules.set(node, found);
  }
  return found;
}

function childrenOf(node: SchemaNode): SchemaNode[] {
  return [
    ...node.properties.values(),
    ...(node.additional && node.additional !== true ? [node.additional] : []),
    ...(node.items ? [node.items] : []),
  ];
}

/** Findings of all rules about the object; `old` for an update. */
export function ruleProblems(root: SchemaNode, object: unknown, old?: unknown): FieldError[] {
  if (!hasRules(root)) return [];
  const run = new RuleRun();
  const startMs = systemClock.monotonic();
  try {
    run.visit(root, { value: object, old, path: '', isResource: true });
  } catch (error) {
    if (!(error instanceof CelBudgetError)) throw error;
    run.errors.push(
      fieldErrors.invalid(
        '<nil>',
        null,
        'validation failed due to running out of cost budget, no further validation rules will be run',
      ),
    );
  }
  evaluations.observe(secondsSince(startMs));
  return run.errors;
}

interface Place {
  readonly value: unknown;
  readonly old: unknown;
  readonly path: string;
  readonly isResource: boolean;
}

class RuleRun {
  readonly errors: FieldError[] = [];
  readonly #total = new Budget(OBJECT_COST_MAX);

  visit(node: SchemaNode, place: Place): void {
    const { value, old, path } = place;
    if (!hasRules(node) || value === null || value === undefined) return;
    for (const rule of node.rules) this.#check(node, rule, place);
    if (Array.isArray(value)) {
      if (!node.items) return;
      for (let at = 0; at < value.length; at++)
        this.visit(node.items, {
          value: value[at],
          old: oldItem(node, value[at], old),
          path: `${path}[${at}]`,
          isResource: node.items.embedded,
        });
      return;
    }
    if (!isObject(value)) return;
    for (const name of Object.keys(value)) {
      const known = node.properties.get(name) ?? node.additional;
      if (!known || known === true) continue;
      const before = isObject(old) && Object.hasOwn(old, name) ? old[name] : undefined;
      const below = node.properties.has(name) ? (path === '' ? name : `${path}.${name}`) : `${path}[${name}]`;
      this.visit(known, { value: value[name], old: before, path: below, isResource: known.embedded });
    }
  }

  #check(node: SchemaNode, rule: ValidationRule, { value, old, path, isResource }: Place): void {
    const { program, message, usesOldSelf } = compiledRule(rule);
    const hasOld = old !== undefined;
    if (usesOldSelf && !hasOld && !rule.optionalOldSelf) return;
    if (!usesOldSelf && hasOld && isDeepStrictEqual(value, old)) return;
    const self = schemaValue(node, value, isResource);
    const before = hasOld ? schemaValue(node, old, isResource) : undefined;
    const oldSelf: Value | undefined = rule.optionalOldSelf
      ? before === undefined
        ? NONE
        : new Optional(before)
      : before;
    const scope: Scope = name => (name === 'self' ? self : name === 'oldSelf' ? oldSelf : undefined);
    const shown = node.type || 'object';
    const limit = Math.min(RULE_COST_MAX, this.#total.left);
    const budget = new Budget(limit);
    try {
      const result = program(scope, budget);
      this.#total.spend(limit - budget.left);
      if (result === true) return;
      this.errors.push(errorOf(rule, `${path}${rule.fieldPath ?? ''}`, value, messageOf(rule, message, scope)));
    } catch (error) {
      if (error instanceof CelBudgetError) {
        if (limit < RULE_COST_MAX) throw error;
        this.errors.push(fieldErrors.invalid(path, shown, `call cost exceeds limit for rule: ${rule.rule}`));
        this.#total.spend(limit);
        return;
      }
      const said = (error as Error).message;
      const hint = said.startsWith('no such overload')
        ? `${said}: call arguments did not match a supported operator, function or macro signature for rule: ${rule.rule}`
        : `${said} evaluating rule: ${rule.message || rule.rule}`;
      this.errors.push(fieldErrors.invalid(path, shown, hint));
    }
  }
}

/** What an item was before: items of a list map go by their keys, others cannot be told. */
function oldItem(node: SchemaNode, item: unknown, old: unknown): unknown {
  if (!Array.isArray(old) || node.listType !== 'map' || !isObject(item)) return undefined;
  return old.find(other => isObject(other) && node.listKeys.every(key => isDeepStrictEqual(other[key], item[key])));
}

function messageOf(rule: ValidationRule, program: Program | undefined, scope: Scope): string {
  if (program) {
    try {
      const text = program(scope, new Budget(RULE_COST_MAX));
      if (typeof text === 'string' && text.trim() !== '' && !text.includes('\n') && text.length <= MESSAGE_LENGTH_MAX)
        return text.trim();
    } catch {
      // The fixed message stands in for one that cannot be made.
    }
  }
  return rule.message?.trim() || `failed rule: ${rule.rule.trim()}`;
}

/** Since 1.35 with the value that the rule refuses, unless it is an object or a list. */
function errorOf(rule: ValidationRule, path: string, value: unknown, message: string): FieldError {
  const isSimple = typeof value !== 'object' || value === null;
  switch (rule.reason) {
    case 'FieldValueForbidden':
      return fieldErrors.forbidden(path, message);
    case 'FieldValueRequired':
      return fieldErrors.required(path, message);
    case 'FieldValueDuplicate':
      return isSimple
        ? fieldErrors.duplicate(path, value)
        : { type: 'FieldValueDuplicate', field: path, message: 'Duplicate value' };
    default:
      return isSimple
        ? fieldErrors.invalid(path, value, message)
        : { type: 'FieldValueInvalid', field: path, message: `Invalid value: ${message}` };
  }
}

const REASONS = ['FieldValueDuplicate', 'FieldValueForbidden', 'FieldValueInvalid', 'FieldValueRequired'];

/** Findings about the rules of a schema themselves: that they compile, and what they may speak of where they stand. */
export function ruleDefinitionProblems(schema: JSONSchemaProps, path: string): FieldError[] {
  const errors: Errors = [];
  const costs: RuleCost[] = [];
  checkRulesBelow(schema, path, { correlatable: true, isRoot: true, times: 1, errors, costs });
  checkWholeCost(costs, path, errors);
  return errors;
}

interface RuleCost {
  readonly path: string;
  readonly cost: number;
}

interface RulePlace {
  readonly correlatable: boolean;
  readonly isRoot: boolean;
  /** How many values stand here at most; undefined where a list or map above has no bound. */
  readonly times: number | undefined;
  readonly errors: Errors;
  readonly costs: RuleCost[];
}

function checkRulesBelow(schema: JSONSchemaProps, path: string, place: RulePlace): void {
  const { correlatable, times } = place;
  (schema['x-kubernetes-validations'] ?? []).forEach((rule, index) => {
    checkDefinition(rule, `${path}.x-kubernetes-validations[${index}]`, { schema, ...place });
  });
  const into = (below: unknown, where: string, now: Partial<RulePlace> = {}) => {
    if (isObject(below)) checkRulesBelow(below as JSONSchemaProps, where, { ...place, isRoot: false, ...now });
  };
  const each = (max: number | undefined) => (times === undefined || max === undefined ? undefined : times * max);
  for (const [name, property] of Object.entries(schema.properties ?? {})) into(property, `${path}.properties[${name}]`);
  into(schema.additionalProperties, `${path}.additionalProperties`, { times: each(schema.maxProperties) });
  into(schema.items, `${path}.items`, {
    correlatable: correlatable && schema['x-kubernetes-list-type'] === 'map',
    times: each(schema.maxItems),
  });
}

/** Upstream's StaticEstimatedCostLimit and StaticEstimatedCRDCostLimit. */
const RULE_ESTIMATE_MAX = 10_000_000;
const DEFINITION_COST_MAX = 100_000_000;
const COSTLIEST_SHOWN = 4;

function costProblem(what: string, cost: number, max: number): string {
  const factor = cost / max;
  const times = factor > 100 ? 'more than 100x' : `${factor.toFixed(factor < 1.5 ? 6 : 1)}x`;
  return `${what} exceeds budget by factor of ${times} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)`;
}

function checkWholeCost(costs: readonly RuleCost[], path: string, errors: Errors): void {
  const whole = costs.reduce((sum, { cost }) => sum + cost, 0);
  if (whole <= DEFINITION_COST_MAX) return;
  const costliest = [...costs].sort((a, b) => b.cost - a.cost).slice(0, COSTLIEST_SHOWN);
  for (const one of costliest)
    addForbidden(
      errors,
      one.path,
      'contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema',
    );
  const what = 'x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema';
  addForbidden(errors, path, costProblem(what, whole, DEFINITION_COST_MAX));
}

function checkDefinition(
  rule: ValidationRule,
  path: string,
  at: RulePlace & { readonly schema: JSONSchemaProps },
): void {
  const { schema, correlatable, isRoot, times, errors, costs } = at;
  if (!rule.rule?.trim()) {
    addRequired(errors, `${path}.rule`, 'rule is not specified');
    return;
  }
  if (rule.message !== undefined && rule.message !== '' && rule.message.trim() === '')
    addInvalid(errors, `${path}.message`, rule.message, 'message must be non-empty if specified');
  else if (rule.message?.trim().includes('\n'))
    addInvalid(errors, `${path}.message`, rule.message, 'message must not contain line breaks');
  else if (rule.rule.trim().includes('\n') && !rule.message)
    addRequired(errors, `${path}.message`, 'message must be specified if rule contains line breaks');
  if (rule.reason && !REASONS.includes(rule.reason))
    errors.push(fieldErrors.notSupported(`${path}.reason`, rule.reason, REASONS));
  if (rule.fieldPath && !isFieldOf(schema, rule.fieldPath))
    addInvalid(errors, `${path}.fieldPath`, rule.fieldPath, 'fieldPath must be a valid path');
  try {
    const { usesOldSelf } = compiledRule(rule);
    const self = schemaType(schema, isRoot || schema['x-kubernetes-embedded-resource'] === true);
    const declared: Declarations = name =>
      name === 'self' ? self : name === 'oldSelf' ? (rule.optionalOldSelf ? optionalOf(self) : self) : undefined;
    const result = checkExpression(rule.rule, kubernetesLibrary(), declared);
    if (!isResult(result, 'bool'))
      addInvalid(errors, `${path}.rule`, rule.rule, 'cel expression must evaluate to a bool');
    if (rule.messageExpression) checkMessage(rule.messageExpression, `${path}.messageExpression`, declared, errors);
    if (usesOldSelf && !correlatable)
      addInvalid(
        errors,
        `${path}.rule`,
        rule.rule,
        'oldSelf cannot be used on the uncorrelatable portion of the schema within the list that is not of type map',
      );
    const cost = estimateCost(rule.rule, kubernetesLibrary(), declared) * (times ?? valuesMax(schema));
    costs.push({ path: `${path}.rule`, cost });
    if (cost > RULE_ESTIMATE_MAX)
      addForbidden(errors, `${path}.rule`, costProblem('estimated rule cost', cost, RULE_ESTIMATE_MAX));
    if (rule.optionalOldSelf && !usesOldSelf)
      addInvalid(errors, `${path}.optionalOldSelf`, true, 'may not be set if oldSelf is not used in rule');
  } catch (error) {
    addInvalid(errors, `${path}.rule`, rule.rule, `compilation failed: ${(error as Error).message}`);
  }
}

function checkMessage(source: string, path: string, declared: Declarations, errors: Errors): void {
  try {
    const result = checkExpression(source, kubernetesLibrary(), declared);
    if (!isResult(result, 'string')) addInvalid(errors, path, source, 'messageExpression must evaluate to a string');
  } catch (error) {
    addInvalid(errors, path, source, `messageExpression compilation failed: ${(error as Error).message}`);
  }
}

function isResult(type: Type, name: string): boolean {
  return type.is === 'dyn' || (type.is === 'plain' && type.name === name);
}

function isFieldOf(schema: JSONSchemaProps, path: string): boolean {
  let node: JSONSchemaProps | undefined = schema;
  const steps = [...path.matchAll(/\.([A-Za-z_][\w-]*)|\['([^']+)'\]/g)];
  if (steps.map(step => step[0]).join('') !== path) return false;
  for (const [, plain, quoted] of steps) {
    const name = plain ?? quoted!;
    const properties: Readonly<Record<string, JSONSchemaProps>> = node?.properties ?? {};
    const rest: unknown = node?.additionalProperties;
    node = Object.hasOwn(properties, name) ? properties[name] : isObject(rest) ? (rest as JSONSchemaProps) : undefined;
    if (!node) return false;
  }
  return true;
}
