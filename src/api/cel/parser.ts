/**
 * Tokens to a tree. Macros (`has`, `all`, `map`, `cel.bind` …) are recognised here, so that what evaluates a tree knows
 * them as nodes of their own. Depth and size are bounded: no expression can exhaust the stack.
 */

import { CelSyntaxError, type Token, tokenize } from './lexer.ts';

export type Expression =
  | {
      readonly is: 'literal';
      readonly value: string | number | bigint | boolean | null | Uint8Array;
      readonly unsigned?: true;
      readonly at: number;
    }
  | { readonly is: 'name'; readonly name: string; readonly at: number }
  | {
      readonly is: 'select';
      readonly operand: Expression;
      readonly field: string;
      readonly optional?: true;
      readonly at: number;
    }
  | { readonly is: 'has'; readonly operand: Expression; readonly field: string; readonly at: number }
  | {
      readonly is: 'index';
      readonly operand: Expression;
      readonly index: Expression;
      readonly optional?: true;
      readonly at: number;
    }
  | {
      readonly is: 'call';
      readonly target?: Expression;
      readonly name: string;
      readonly args: readonly Expression[];
      readonly at: number;
    }
  | {
      readonly is: 'list';
      readonly items: readonly { readonly value: Expression; readonly optional: boolean }[];
      readonly at: number;
    }
  | { readonly is: 'map'; readonly entries: readonly MapEntry[]; readonly at: number }
  | { readonly is: 'message'; readonly type: string; readonly fields: readonly MessageField[]; readonly at: number }
  | {
      readonly is: 'fold';
      readonly fold: Fold;
      readonly range: Expression;
      readonly names: readonly string[];
      readonly filter?: Expression;
      readonly body: Expression;
      readonly value?: Expression;
      readonly at: number;
    }
  | {
      readonly is: 'bind';
      readonly name: string;
      readonly value: Expression;
      readonly body: Expression;
      readonly at: number;
    }
  | {
      readonly is: 'optional';
      readonly operand: Expression;
      readonly name: string;
      readonly body: Expression;
      readonly flat: boolean;
      readonly at: number;
    };

export type Fold =
  | 'all'
  | 'exists'
  | 'exists_one'
  | 'filter'
  | 'map'
  | 'transformList'
  | 'transformMap'
  | 'transformMapEntry';

export interface MapEntry {
  readonly key: Expression;
  readonly value: Expression;
  readonly optional: boolean;
}
export interface MessageField {
  readonly name: string;
  readonly value: Expression;
  readonly optional: boolean;
}

/** cel-go's bounds. */
const DEPTH_MAX = 250;
const SOURCE_LENGTH_MAX = 100_000;

const RELATIONS = ['==', '!=', '<', '<=', '>', '>=', 'in'];
const RESERVED = new Set(
  'as break const continue else for function if import let loop package namespace return var void while'.split(' '),
);
const FOLDS: Readonly<Record<string, Fold>> = {
  all: 'all',
  exists: 'exists',
  exists_one: 'exists_one',
  existsOne: 'exists_one',
  filter: 'filter',
  map: 'map',
  transformList: 'transformList',
  transformMap: 'transformMap',
  transformMapEntry: 'transformMapEntry',
};

export function parse(source: string): Expression {
  if (source.length > SOURCE_LENGTH_MAX)
    throw new CelSyntaxError(
      `Syntax error: expression code point size exceeds limit: size: ${source.length}, limit ${SOURCE_LENGTH_MAX}`,
      '',
      0,
    );
  return new Parser(source).parse();
}

class Parser {
  readonly #source: string;
  readonly #tokens: readonly Token[];
  #next = 0;
  #depth = 0;

  constructor(source: string) {
    this.#source = source;
    this.#tokens = tokenize(source);
  }

  parse(): Expression {
    const expression = this.#expression();
    if (this.#token.kind !== 'end') this.#unexpected();
    return expression;
  }

  get #token(): Token {
    return this.#tokens[this.#next]!;
  }
  #is(text: string): boolean {
    const { kind, text: found } = this.#token;
    return found === text && (kind === 'punctuation' || kind === 'name');
  }
  #accept(text: string): Token | undefined {
    if (!this.#is(text)) return undefined;
    return this.#tokens[this.#next++];
  }
  #expect(text: string): Token {
    return this.#accept(text) ?? this.#unexpected();
  }
  #unexpected(): never {
    const { text, at } = this.#token;
    throw new CelSyntaxError(`Syntax error: mismatched input '${text}'`, this.#source, at);
  }
  #deeper<T>(read: () => T): T {
    if (++this.#depth > DEPTH_MAX)
      throw new CelSyntaxError(
        `Syntax error: expression recursion limit exceeded: ${DEPTH_MAX}`,
        this.#source,
        this.#token.at,
      );
    try {
      return read();
    } finally {
      this.#depth--;
    }
  }

  #expression(): Expression {
    return this.#deeper(() => {
      const condition = this.#binary(0);
      const mark = this.#accept('?');
      if (!mark) return condition;
      const then = this.#binary(0);
      this.#expect(':');
      return { is: 'call', name: '_?_:_', args: [condition, then, this.#expression()], at: mark.at };
    });
  }

  #binary(level: number): Expression {
    if (level === LEVELS.length) return this.#unary();
    const operators = LEVELS[level]!;
    let left = this.#binary(level + 1);
    for (let length = 0; ; length++) {
      const { text, at } = this.#token;
      if (!operators.includes(text) || !this.#is(text)) return left;
      if (length >= DEPTH_MAX * 4) throw new CelSyntaxError('Syntax error: expression is too long', this.#source, at);
      this.#next++;
      left = { is: 'call', name: text === 'in' ? '@in' : `_${text}_`, args: [left, this.#binary(level + 1)], at };
    }
  }

  #unary(): Expression {
    const { text, at } = this.#token;
    if (this.#is('!')) {
      this.#next++;
      return this.#deeper(() => ({ is: 'call', name: '!_', args: [this.#unary()], at }));
    }
    if (!this.#is('-')) return this.#member();
    this.#next++;
    const number = this.#token;
    if (number.kind === 'int' || number.kind === 'double') {
      this.#next++;
      const value = number.value as bigint | number;
      return this.#suffixes({ is: 'literal', value: typeof value === 'bigint' ? -value : -value, at });
    }
    void text;
    return this.#deeper(() => ({ is: 'call', name: '-_', args: [this.#unary()], at }));
  }

  #member(): Expression {
    return this.#suffixes(this.#primary());
  }

  #suffixes(start: Expression): Expression {
    let operand = start;
    for (let length = 0; ; length++) {
      if (length > DEPTH_MAX * 4) this.#unexpected();
      const { at } = this.#token;
      if (this.#accept('.')) {
        const optional = this.#accept('?') !== undefined;
        const name = this.#token;
        if (name.kind !== 'name') this.#unexpected();
        this.#next++;
        if (!optional && this.#is('(')) operand = this.#method(operand, name);
        else operand = { is: 'select', operand, field: name.text, ...(optional ? { optional } : {}), at };
      } else if (this.#accept('[')) {
        const optional = this.#accept('?') !== undefined;
        const index = this.#expression();
        this.#expect(']');
        operand = { is: 'index', operand, index, ...(optional ? { optional } : {}), at };
      } else if (this.#is('{') && typeNameOf(operand) !== undefined) operand = this.#message(typeNameOf(operand)!, at);
      else return operand;
    }
  }

  #arguments(): Expression[] {
    this.#expect('(');
    const args: Expression[] = [];
    if (this.#accept(')')) return args;
    do args.push(this.#expression());
    while (this.#accept(','));
    this.#expect(')');
    return args;
  }

  #method(target: Expression, { text: name, at }: Token): Expression {
    const args = this.#arguments();
    if (target.is === 'name' && target.name === 'cel' && name === 'bind' && args.length === 3)
      return { is: 'bind', name: this.#variable(args[0]!), value: args[1]!, body: args[2]!, at };
    if ((name === 'optMap' || name === 'optFlatMap') && args.length === 2)
      return {
        is: 'optional',
        operand: target,
        name: this.#variable(args[0]!),
        body: args[1]!,
        flat: name === 'optFlatMap',
        at,
      };
    const fold = Object.hasOwn(FOLDS, name) ? FOLDS[name] : undefined;
    if (fold) {
      const folded = this.#fold(fold, target, args, at);
      if (folded) return folded;
    }
    return { is: 'call', target, name, args, at };
  }

  #fold(fold: Fold, range: Expression, args: readonly Expression[], at: number): Expression | undefined {
    const [first, second, third, fourth] = args;
    const base = { is: 'fold' as const, fold, range, at };
    if (fold === 'map' && args.length === 2) return { ...base, names: [this.#variable(first!)], body: second! };
    if (fold === 'map' && args.length === 3)
      return { ...base, names: [this.#variable(first!)], filter: second!, body: third! };
    if (fold.startsWith('transform')) {
      if (args.length !== 3 && args.length !== 4) return undefined;
      const names = [this.#variable(first!), this.#variable(second!)];
      return args.length === 3 ? { ...base, names, body: third! } : { ...base, names, filter: third!, body: fourth! };
    }
    if (fold === 'map') return undefined;
    if (args.length === 2) return { ...base, names: [this.#variable(first!)], body: second! };
    if (args.length === 3 && fold !== 'filter')
      return { ...base, names: [this.#variable(first!), this.#variable(second!)], body: third! };
    return undefined;
  }

  #variable(expression: Expression): string {
    if (expression.is === 'name') return expression.name;
    throw new CelSyntaxError('argument must be a simple name', this.#source, expression.at);
  }

  #primary(): Expression {
    const token = this.#token;
    const { at } = token;
    switch (token.kind) {
      case 'int':
        this.#next++;
        if ((token.value as bigint) >= 2n ** 63n)
          throw new CelSyntaxError('Syntax error: invalid int literal', this.#source, at);
        return { is: 'literal', value: token.value as bigint, at };
      case 'uint':
        this.#next++;
        return { is: 'literal', value: token.value as bigint, unsigned: true, at };
      case 'double':
      case 'string':
      case 'bytes':
        this.#next++;
        return { is: 'literal', value: token.value as string | number | Uint8Array, at };
      case 'name':
        return this.#named();
    }
    if (this.#accept('(')) {
      const inner = this.#expression();
      this.#expect(')');
      return inner;
    }
    if (this.#accept('[')) return this.#list(at);
    if (this.#accept('{')) return this.#map(at);
    if (this.#accept('.')) return this.#primary();
    return this.#unexpected();
  }

  #named(): Expression {
    const { text: name, at } = this.#token;
    if (name === 'true' || name === 'false' || name === 'null') {
      this.#next++;
      return { is: 'literal', value: name === 'null' ? null : name === 'true', at };
    }
    if (RESERVED.has(name) || name === 'in') this.#unexpected();
    this.#next++;
    if (!this.#is('(')) return { is: 'name', name, at };
    const args = this.#arguments();
    if (name !== 'has' || args.length !== 1) return { is: 'call', name, args, at };
    const [field] = args;
    if (field?.is !== 'select') throw new CelSyntaxError('invalid argument to has() macro', this.#source, at);
    return { is: 'has', operand: field.operand, field: field.field, at };
  }

  #list(at: number): Expression {
    const items: { value: Expression; optional: boolean }[] = [];
    while (!this.#is(']')) {
      const optional = this.#accept('?') !== undefined;
      items.push({ value: this.#expression(), optional });
      if (!this.#accept(',')) break;
    }
    this.#expect(']');
    return { is: 'list', items, at };
  }

  #map(at: number): Expression {
    const entries: MapEntry[] = [];
    while (!this.#is('}')) {
      const optional = this.#accept('?') !== undefined;
      const key = this.#expression();
      this.#expect(':');
      entries.push({ key, value: this.#expression(), optional });
      if (!this.#accept(',')) break;
    }
    this.#expect('}');
    return { is: 'map', entries, at };
  }

  #message(type: string, at: number): Expression {
    this.#expect('{');
    const fields: MessageField[] = [];
    while (!this.#is('}')) {
      const optional = this.#accept('?') !== undefined;
      const name = this.#token;
      if (name.kind !== 'name') this.#unexpected();
      this.#next++;
      this.#expect(':');
      fields.push({ name: name.text, value: this.#expression(), optional });
      if (!this.#accept(',')) break;
    }
    this.#expect('}');
    return { is: 'message', type, fields, at };
  }
}

/** From loosest to tightest. */
const LEVELS: readonly (readonly string[])[] = [['||'], ['&&'], RELATIONS, ['+', '-'], ['*', '/', '%']];

/** `Object.spec` in `Object.spec{…}`: a type is named by names alone. */
function typeNameOf(expression: Expression): string | undefined {
  if (expression.is === 'name') return expression.name;
  if (expression.is !== 'select' || expression.optional) return undefined;
  const home = typeNameOf(expression.operand);
  return home === undefined ? undefined : `${home}.${expression.field}`;
}
