/**
 * `rewrite`: asks for another name or type than the client did, or changes times to live. The reply always carries the
 * client's own name: wherever the other one stands in it, the client's is put back, so that no resolver takes it for forged.
 * Of the fields it knows name, type and ttl.
 */

import { messageOf } from '../../base/errors.ts';
import type { Directive } from '../corefile.ts';
import { type Answer, bareAnswer, type DecodedRecord, RCODE, TYPE } from '../message.ts';
import { encodeName, FormatError } from '../name.ts';
import { answerOf, recordsOf, textOf, wireOf } from '../records.ts';
import { type Plugin, type Reply, type Request, type Stage, wholeNumber, wrong } from './plugin.ts';

interface Rule {
  readonly goesOn: boolean;
  /** The request as it goes on; undefined: the rule does not match. */
  readonly change: (request: Request) => Request | undefined;
  /** Names in the reply, text to text; the question's own is put back besides. */
  readonly restore?: (name: string) => string;
  readonly ttlSeconds?: number;
}

const MATCHES = ['exact', 'prefix', 'suffix', 'substring', 'regex'] as const;
type MatchKind = (typeof MATCHES)[number];
const SERVFAIL = bareAnswer(RCODE.SERVFAIL);

export const rewrite: Plugin = {
  name: 'rewrite',
  repeats: true,
  setup(directives) {
    const rules = directives.map(ruleOf);
    return { stage: (request, next) => apply(rules, request, next) };
  },
};

function apply(rules: readonly Rule[], request: Request, next: Parameters<Stage>[1]): Reply {
  let changed = request;
  const applied: Rule[] = [];
  try {
    for (const rule of rules) {
      const after = rule.change(changed);
      if (!after) continue;
      changed = after;
      applied.push(rule);
      if (!rule.goesOn) break;
    }
  } catch (error) {
    if (error instanceof FormatError) return SERVFAIL;
    throw error;
  }
  if (applied.length === 0) return next(request);
  const reply = next(changed);
  const restored = (answer: Answer): Answer => restore(answer, { asked: changed, request, applied });
  return reply instanceof Promise ? reply.then(restored) : restored(reply);
}

function restore(
  answer: Answer,
  {
    asked,
    request,
    applied,
  }: { readonly asked: Request; readonly request: Request; readonly applied: readonly Rule[] },
): Answer {
  const own = textOf(request.name);
  const other = textOf(asked.name).toLowerCase();
  const ttl = applied.findLast(rule => rule.ttlSeconds !== undefined)?.ttlSeconds;
  const back = (name: string): string =>
    name.toLowerCase() === other ? own : applied.reduceRight((text, rule) => rule.restore?.(text) ?? text, name);
  const records = recordsOf(answer, asked.name).map(
    (record): DecodedRecord => ({
      ...record,
      name: back(record.name),
      ...(ttl === undefined ? {} : { ttlSeconds: ttl }),
    }),
  );
  return answerOf(request.name, records, { rcode: answer.rcode, ...(answer.flags ? { flags: answer.flags } : {}) });
}

function ruleOf(directive: Directive): Rule {
  const words = [...directive.args, ...directive.block.flatMap(line => [line.name, ...line.args])];
  const mode = words[0] === 'continue' || words[0] === 'stop' ? words.shift() : 'stop';
  const goesOn = mode === 'continue';
  const field = words.shift();
  if (field === 'type') {
    const [from, to] = words.map(text => typeOf(directive, text));
    if (from === undefined || to === undefined || words.length > 2)
      wrong(directive, 'type rules must have exactly two arguments');
    return { goesOn, change: request => (request.type === from ? { ...request, type: to } : undefined) };
  }
  if (field !== 'name' && field !== 'ttl')
    wrong(directive, `field '${field ?? ''}' is not supported; use name, type or ttl`);
  const kind = MATCHES.includes(words[0] as MatchKind) && words.length > 2 ? (words.shift() as MatchKind) : 'exact';
  const [from, to, ...options] = words;
  if (from === undefined || to === undefined) wrong(directive, `${field} rules must have a pattern and a replacement`);
  const replaced = replacementOf(directive, kind, from, field === 'name' ? to : '');
  if (field === 'ttl') {
    if (options.length > 0) wrong(directive, `unexpected '${options[0]}'`);
    const ttlSeconds = wholeNumber(directive, to, { min: 0, max: 2 ** 31 - 1 });
    return {
      goesOn,
      ttlSeconds,
      change: request => (replaced(dotted(request.name)) === undefined ? undefined : request),
    };
  }
  const restoreName = restoreOf(directive, { kind, from, to, options });
  return {
    goesOn,
    change(request) {
      const name = replaced(dotted(request.name));
      return name === undefined ? undefined : { ...request, name: wireOf(name) };
    },
    ...(restoreName ? { restore: restoreName } : {}),
  };
}

const dotted = (name: string): string => `${textOf(name)}.`;
const withDot = (text: string): string => (text.endsWith('.') ? text : `${text}.`);

/** Text with a final dot to text; undefined when the pattern does not match. */
function replacementOf(
  directive: Directive,
  kind: MatchKind,
  from: string,
  to: string,
): (name: string) => string | undefined {
  const wanted = from.toLowerCase();
  if (kind === 'exact') {
    try {
      encodeName(to);
    } catch (error) {
      wrong(directive, `'${to}': ${messageOf(error)}`);
    }
    return name => (name === withDot(wanted) ? to : undefined);
  }
  if (kind === 'prefix') return name => (name.startsWith(wanted) ? to + name.slice(wanted.length) : undefined);
  if (kind === 'suffix') {
    const end = withDot(wanted);
    return name => (name.endsWith(end) ? name.slice(0, -end.length) + withDot(to) : undefined);
  }
  if (kind === 'substring') return name => (name.includes(wanted) ? name.replaceAll(wanted, to) : undefined);
  const pattern = patternOf(directive, from);
  return name => {
    const match = pattern.exec(name);
    return match ? to.replace(/\{(\d+)\}/g, (_, group: string) => match[Number(group)] ?? '') : undefined;
  };
}

function patternOf(directive: Directive, text: string): RegExp {
  try {
    // Go's named groups.
    return new RegExp(text.replaceAll('(?P<', '(?<'), 'i');
  } catch (error) {
    return wrong(directive, `invalid regex pattern: ${messageOf(error)}`);
  }
}

function restoreOf(
  directive: Directive,
  { kind, from, to, options }: { kind: MatchKind; from: string; to: string; options: readonly string[] },
): ((name: string) => string) | undefined {
  const steps: ((name: string) => string)[] = [];
  const rest = [...options];
  while (rest.length > 0) {
    if (rest[0] === 'answer') rest.shift();
    const what = rest.shift();
    if (what === 'auto') {
      if (kind !== 'suffix') continue;
      const back = replacementOf(directive, 'suffix', to, from);
      steps.push(name => back(withDot(name.toLowerCase()))?.replace(/\.$/, '') ?? name);
    } else if (what === 'name') {
      const [pattern, target] = [rest.shift(), rest.shift()];
      if (pattern === undefined || target === undefined)
        wrong(directive, 'answer name must have a pattern and a replacement');
      const back = replacementOf(directive, 'regex', pattern, target);
      steps.push(name => back(withDot(name))?.replace(/\.$/, '') ?? name);
    } else
      wrong(
        directive,
        `'${what ?? ''}' is not supported behind the replacement; use answer auto, or answer name FROM TO`,
      );
  }
  return steps.length === 0 ? undefined : name => steps.reduce((text, step) => step(text), name);
}

function typeOf(directive: Directive, text: string): number {
  const type = (TYPE as Readonly<Record<string, number>>)[text.toUpperCase()];
  return type ?? wrong(directive, `invalid type '${text}'`);
}
