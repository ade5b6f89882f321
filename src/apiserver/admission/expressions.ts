/**
 * Expressions of admission: match conditions, validations, mutations and their variables. Each is compiled once for the object
 * that holds it; what is wrong with it is said when it is used, because it may have been stored by an older version.
 */

import { checkExpression, type Declarations, DYN, type Type } from '../../api/cel/checker.ts';
import { extendedLibrary } from '../../api/cel/environment.ts';
import { Budget, CelBudgetError, compileExpression, type Program, type Scope } from '../../api/cel/evaluator.ts';
import { type Library, type Overload, overload } from '../../api/cel/functions.ts';
import { parse } from '../../api/cel/parser.ts';
import { CelError, fromJson, MapValue, Opaque, type Value } from '../../api/cel/values.ts';
import type { RequestAttributes, UserInfo } from '../request.ts';

/** Upstream's: for one call of an expression, and for all of a policy. */
export const CALL_COST_MAX = 1_000_000;
export const POLICY_COST_MAX = 10_000_000;

export interface Authorizing {
  readonly user: UserInfo;
  readonly authorize: (attributes: RequestAttributes) => { allowed: boolean; reason: string };
}

class Check extends Opaque {
  readonly type = 'kubernetes.authorization.Check';
  readonly by: Authorizing;
  readonly attributes: Partial<RequestAttributes>;
  constructor(by: Authorizing, attributes: Partial<RequestAttributes>) {
    super();
    this.by = by;
    this.attributes = attributes;
  }
  with(attributes: Partial<RequestAttributes>): Check {
    return new Check(this.by, { ...this.attributes, ...attributes });
  }
  equals(other: Opaque): boolean {
    return other === this;
  }
}
export class AuthorizerValue extends Opaque {
  readonly type = 'kubernetes.authorization.Authorizer';
  readonly by: Authorizing;
  /** What the request is about: `authorizer.requestResource`. */
  readonly request: Partial<RequestAttributes>;
  constructor(by: Authorizing, request: Partial<RequestAttributes>) {
    super();
    this.by = by;
    this.request = request;
  }
  override field(name: string): Value | undefined {
    return name === 'requestResource' ? new Check(this.by, this.request) : undefined;
  }
  equals(other: Opaque): boolean {
    return other === this;
  }
}
class DecisionValue extends Opaque {
  readonly type = 'kubernetes.authorization.Decision';
  readonly allowed: boolean;
  readonly reason: string;
  constructor({ allowed, reason }: { allowed: boolean; reason: string }) {
    super();
    this.allowed = allowed;
    this.reason = reason;
  }
  equals(other: Opaque): boolean {
    return other === this;
  }
}

const EMPTY: Omit<RequestAttributes, 'user' | 'verb'> = {
  isResource: true,
  group: '',
  version: '*',
  resource: '',
  subresource: '',
  namespace: '',
  name: '',
  path: '',
};

const AUTHORIZER = 'kubernetes.authorization.Authorizer';
const CHECK = 'kubernetes.authorization.Check';
const DECISION = 'kubernetes.authorization.Decision';

/** Signatures have no dots in receivers, so the long names stand in for short ones. */
function method(receiver: string, signature: string, call: Overload['call']): Overload {
  return { ...overload(`receiver.${signature}`, call), receiver };
}
const step = (name: keyof RequestAttributes): Overload =>
  method(CHECK, `${name}(string): dyn`, ([check, value]) => (check as Check).with({ [name]: value as string }));

const AUTHORIZATION: readonly Overload[] = [
  method(
    AUTHORIZER,
    'path(string): dyn',
    ([a, path]) => new Check((a as AuthorizerValue).by, { isResource: false, path: path as string }),
  ),
  method(
    AUTHORIZER,
    'group(string): dyn',
    ([a, group]) => new Check((a as AuthorizerValue).by, { group: group as string }),
  ),
  method(AUTHORIZER, 'serviceAccount(string, string): dyn', ([a, namespace, name]) => {
    const { by, request } = a as AuthorizerValue;
    const user: UserInfo = {
      name: `system:serviceaccount:${namespace}:${name}`,
      groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
    };
    return new AuthorizerValue({ ...by, user }, request);
  }),
  step('resource'),
  step('subresource'),
  step('namespace'),
  step('name'),
  step('fieldSelector'),
  method(CHECK, 'labelSelector(string): dyn', ([check]) => check!),
  method(CHECK, 'check(string): dyn', ([check, verb], meter) => {
    // Upstream: as dear as 350 000 simple steps.
    meter.spend(350_000);
    const { by, attributes } = check as Check;
    return new DecisionValue(by.authorize({ ...EMPTY, ...attributes, verb: verb as string, user: by.user }));
  }),
  method(DECISION, 'allowed(): bool', ([decision]) => (decision as DecisionValue).allowed),
  method(DECISION, 'reason(): string', ([decision]) => (decision as DecisionValue).reason),
  method(DECISION, 'errored(): bool', () => false),
  method(DECISION, 'error(): string', () => ''),
];

let admissionLibrary: Library | undefined;

function functions(): Library {
  admissionLibrary ??= extendedLibrary(AUTHORIZATION);
  return admissionLibrary;
}

function compileAdmission(source: string): Program {
  return compileExpression(parse(source), functions());
}

/** Throws for an expression that cannot be compiled, or that names a variable which is not there. */
export function checkAdmission(source: string, variables: readonly string[]): void {
  checkExpression(source, functions(), name => (variables.includes(name) ? DYN : undefined));
  compileAdmission(source);
}

/** The type of an expression's value. Throws for what its declarations do not allow. */
export function typeOfAdmission(source: string, declarations: Declarations): Type {
  return checkExpression(source, functions(), declarations);
}

/** Programs of a stored object's expressions, by their text. */
export class Expressions {
  readonly #programs = new Map<string, Program | CelError>();

  /** Throws CelError for an expression that does not compile. */
  program(source: string): Program {
    let found = this.#programs.get(source);
    if (!found) {
      try {
        found = compileAdmission(source);
      } catch (error) {
        found = new CelError(`compilation error: ${(error as Error).message}`);
      }
      this.#programs.set(source, found);
    }
    if (found instanceof CelError) throw found;
    return found;
  }
}

/** Runs a program within its own budget and the policy's. */
export function evaluate(program: Program, scope: Scope, total: Budget): Value {
  const limit = Math.min(CALL_COST_MAX, total.left);
  const budget = new Budget(limit);
  try {
    return program(scope, budget);
  } catch (error) {
    if (error instanceof CelBudgetError) throw new CelError(error.message);
    throw error;
  } finally {
    total.spend(Math.min(limit, limit - Math.max(0, budget.left)));
  }
}

/** The variables that every expression of admission has. */
export function scopeOf(variables: Readonly<Record<string, unknown>>, authorizer?: AuthorizerValue): Scope {
  const values = new Map<string, Value>();
  for (const [name, value] of Object.entries(variables)) values.set(name, fromJson(value));
  if (authorizer) values.set('authorizer', authorizer);
  return name => values.get(name);
}

/** `variables.x`, each evaluated when first asked for and at most once. */
export class LazyVariables extends MapValue {
  readonly #sources: ReadonlyMap<string, () => Value>;
  readonly #values = new Map<string, Value>();
  constructor(sources: ReadonlyMap<string, () => Value>) {
    super();
    this.#sources = sources;
  }
  get size(): number {
    return this.#sources.size;
  }
  get(key: Value): Value | undefined {
    if (typeof key !== 'string') return undefined;
    const known = this.#values.get(key);
    if (known !== undefined) return known;
    const source = this.#sources.get(key);
    if (!source) return undefined;
    const value = source();
    this.#values.set(key, value);
    return value;
  }
  keys(): Iterable<Value> {
    return this.#sources.keys();
  }
}
