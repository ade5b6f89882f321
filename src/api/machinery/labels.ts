/** Label selectors: parsing the string form, compiling the object form, and matching. Syntax and messages as apimachinery `labels`. */

import { badRequest, type FieldError, fieldErrors } from '../../base/errors.ts';
import type { LabelSelector } from '../meta.ts';

export type Labels = Readonly<Record<string, string>> | undefined;
export type Match = (labels: Labels) => boolean;

interface Requirement {
  readonly key: string;
  readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist' | 'Gt' | 'Lt';
  readonly values: readonly string[];
}

export const matchEverything: Match = () => true;
export const matchNothing: Match = () => false;

function compile(requirements: readonly Requirement[]): Match {
  if (requirements.length === 0) return matchEverything;
  return labels =>
    requirements.every(({ key, operator, values }) => {
      const value = labels && Object.hasOwn(labels, key) ? labels[key] : undefined;
      switch (operator) {
        case 'In':
          return value !== undefined && values.includes(value);
        case 'NotIn':
          return value === undefined || !values.includes(value);
        case 'Exists':
          return value !== undefined;
        case 'DoesNotExist':
          return value === undefined;
        case 'Gt':
          return value !== undefined && /^-?\d+$/.test(value) && Number(value) > Number(values[0]);
        case 'Lt':
          return value !== undefined && /^-?\d+$/.test(value) && Number(value) < Number(values[0]);
        default:
          return false;
      }
    });
}

/**
 * A `metav1.LabelSelector`. undefined matches nothing, an empty one everything, as in upstream's LabelSelectorAsSelector.
 * Also accepts the requirements of node selector terms (Gt, Lt).
 */
export function labelSelectorMatch(selector: LabelSelector | undefined): Match {
  if (!selector) return matchNothing;
  const requirements: Requirement[] = Object.entries(selector.matchLabels ?? {}).map(([key, value]) => ({
    key,
    operator: 'In',
    values: [value],
  }));
  for (const { key, operator, values } of selector.matchExpressions ?? [])
    requirements.push({ key, operator: operator as Requirement['operator'], values: values ?? [] });
  return compile(requirements);
}

/** A plain map, as in `service.spec.selector`; undefined or empty matches nothing. */
export function mapSelectorMatch(selector: Labels): Match {
  if (!selector || Object.keys(selector).length === 0) return matchNothing;
  return labelSelectorMatch({ matchLabels: selector });
}

/** The string form of an object selector: `app=web,tier in (a,b)`; keys sorted. */
export function formatLabelSelector(selector: LabelSelector | undefined): string {
  if (!selector) return '<none>';
  const parts = Object.entries(selector.matchLabels ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`);
  for (const { key, operator, values } of selector.matchExpressions ?? []) {
    const list = [...(values ?? [])].sort().join(',');
    if (operator === 'In') parts.push(`${key} in (${list})`);
    else if (operator === 'NotIn') parts.push(`${key} notin (${list})`);
    else if (operator === 'Exists') parts.push(key);
    else parts.push(`!${key}`);
  }
  return parts.length ? parts.join(',') : '<none>';
}

const TOKEN = /\s*(?:(!=|==|=|!|\(|\)|,|>|<)|([^\s!=(),<>]+))/y;

/** Parses `a=b,c!=d,e in (f,g),h,!i,j>5`. Throws BadRequest naming the selector. */
export function parseLabelSelector(text: string): Match {
  return compile(parseRequirements(text));
}

/** Requirements `key=value` that hold for every match; used to narrow a search. */
export function parseRequirements(text: string): readonly Requirement[] {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const start = TOKEN.lastIndex;
    const match = TOKEN.exec(text);
    if (!match) {
      if (text.slice(start).trim() === '') break;
      throw badRequest(`unable to parse requirement: invalid character in selector ${JSON.stringify(text)}`);
    }
    tokens.push((match[1] ?? match[2])!);
  }
  const requirements: Requirement[] = [];
  let at = 0;
  const fail = (found: string | undefined, expected: string): never => {
    throw badRequest(`unable to parse requirement: found '${found ?? ''}', expected: ${expected}`);
  };
  const isWord = (token: string | undefined): token is string =>
    token !== undefined && !/^(!=|==|=|!|\(|\)|,|>|<)$/.test(token);
  const checkedKey = (key: string): string => {
    const problems = qualifiedNameProblems(key);
    if (problems.length)
      throw badRequest(
        `unable to parse requirement: <nil>: Invalid value: ${JSON.stringify(key)}: ${problems.join('; ')}`,
      );
    return key;
  };
  const checkedValue = (key: string, value: string): string => {
    const problems = labelValueProblems(value);
    if (problems.length)
      throw badRequest(
        `unable to parse requirement: values[0][${key}]: Invalid value: ${JSON.stringify(value)}: ${problems.join('; ')}`,
      );
    return value;
  };
  while (at < tokens.length) {
    if (tokens[at] === '!') {
      const key = tokens[at + 1];
      if (!isWord(key)) fail(key, 'identifier');
      requirements.push({ key: checkedKey(key!), operator: 'DoesNotExist', values: [] });
      at += 2;
    } else {
      const key = tokens[at];
      if (!isWord(key)) {
        fail(key, "!, identifier, or 'end of string'");
        break;
      }
      checkedKey(key);
      const operator = tokens[at + 1];
      if (operator === undefined || operator === ',') {
        requirements.push({ key, operator: 'Exists', values: [] });
        at += 1;
      } else if (operator === '=' || operator === '==' || operator === '!=') {
        const next = tokens[at + 2];
        if (next !== undefined && next !== ',' && !isWord(next)) fail(next, 'identifier');
        const value = isWord(next) ? next : '';
        requirements.push({ key, operator: operator === '!=' ? 'NotIn' : 'In', values: [checkedValue(key, value)] });
        at += value === '' ? 2 : 3;
      } else if (operator === '>' || operator === '<') {
        const bound = tokens[at + 2] ?? '';
        if (!/^[+-]?\d+$/.test(bound))
          throw badRequest(
            `unable to parse requirement: values[0]: Invalid value: ${JSON.stringify(bound)}: for 'Gt', 'Lt' operators, the value must be an integer`,
          );
        requirements.push({ key, operator: operator === '>' ? 'Gt' : 'Lt', values: [bound] });
        at += 3;
      } else if (operator === 'in' || operator === 'notin') {
        if (tokens[at + 2] !== '(') fail(tokens[at + 2], "'('");
        const values: string[] = [];
        at += 3;
        while (at < tokens.length && tokens[at] !== ')') {
          if (tokens[at] !== ',') {
            values.push(checkedValue(key, tokens[at]!));
            if (tokens[at + 1] !== ',' && tokens[at + 1] !== ')') fail(tokens[at + 1], "',' or ')'");
          }
          at++;
        }
        if (tokens[at] !== ')') fail(tokens[at], "')'");
        at++;
        if (values.length === 0)
          throw badRequest(
            "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
          );
        requirements.push({ key, operator: operator === 'in' ? 'In' : 'NotIn', values });
      } else fail(operator, 'in, notin, =, ==, !=, gt, lt');
    }
    if (at < tokens.length) {
      if (tokens[at] !== ',') fail(tokens[at], "',' or 'end of string'");
      at++;
    }
  }
  return requirements;
}

const QUALIFIED_NAME_ERROR =
  "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/** What is wrong with a label or annotation key; empty when right. */
export function qualifiedNameProblems(key: string): string[] {
  const problems: string[] = [];
  const parts = key.split('/');
  let name = key;
  if (parts.length === 2) {
    name = parts[1]!;
    const prefix = parts[0]!;
    if (prefix === '') problems.push('prefix part must be non-empty');
    else if (prefix.length > 253 || !/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(prefix))
      problems.push(
        "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
      );
  } else if (parts.length > 2) {
    return [
      `a valid label key must consist of a name and an optional DNS subdomain prefix separated by '/' (e.g. 'example.com/MyName'); ${QUALIFIED_NAME_ERROR}`,
    ];
  }
  if (name === '') problems.push('name part must be non-empty');
  else if (name.length > 63) problems.push('name part must be no more than 63 bytes');
  if (!/^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/.test(name)) problems.push(QUALIFIED_NAME_ERROR);
  return problems;
}

/** What is wrong with a label value; empty when right. */
export function labelValueProblems(value: string): string[] {
  const problems: string[] = [];
  if (value.length > 63) problems.push('must be no more than 63 bytes');
  if (!/^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/.test(value))
    problems.push(
      "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
    );
  return problems;
}

/** Findings for a map of labels at `path` (`metadata.labels`). */
export function validateLabels(labels: Labels, path: string): FieldError[] {
  const errors: FieldError[] = [];
  for (const [key, value] of Object.entries(labels ?? {})) {
    for (const problem of qualifiedNameProblems(key)) errors.push(fieldErrors.invalid(path, key, problem));
    for (const problem of labelValueProblems(value)) errors.push(fieldErrors.invalid(path, value, problem));
  }
  return errors;
}
