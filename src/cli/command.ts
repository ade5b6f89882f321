/**
 * A command of the CLI: its words, options and action. `main.ts` holds the ordered registry; help texts and option checks
 * follow from what is declared here, so that a wrong word always names the right one.
 */

import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';
import { failure } from '../base/errors.ts';

export interface OptionSpec {
  readonly type: 'string' | 'boolean';
  readonly short?: string;
  /** Shown in help as `--name VALUE`. */
  readonly value?: string;
  readonly help: string;
  readonly default?: string | boolean;
  /** May be given several times; its value is then a list. */
  readonly multiple?: boolean;
}

export interface Invocation {
  readonly options: Readonly<Record<string, string | boolean | readonly string[] | undefined>>;
  readonly words: readonly string[];
  /** `-o json` was asked for. */
  readonly json: boolean;
  /** The cluster's name, `--name`. */
  readonly cluster: string;
}

export interface Command {
  /** One or two words: `up`, `image load`. */
  readonly name: string;
  readonly summary: string;
  /** Behind `cox NAME`: `[options] FILE...`. */
  readonly usage: string;
  /** Takes words besides options; all others refuse them: `cox down ci` would end the cluster "dev". */
  readonly takesWords?: boolean;
  readonly options?: Readonly<Record<string, OptionSpec>>;
  readonly examples?: readonly string[];
  /** The words are not parsed but handed on (`cox kubectl get pods -A`); only a leading --name is read. */
  readonly passThrough?: boolean;
  /** Not listed in help: started by Coxswain itself. */
  readonly hidden?: boolean;
  /** Exit code; default 0. */
  readonly run: (invocation: Invocation) => Promise<number | void> | number | void;
}

const COMMON_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  name: { type: 'string', value: 'NAME', help: 'the cluster', default: 'dev' },
  output: { type: 'string', short: 'o', value: 'json', help: 'print data as JSON' },
  help: { type: 'boolean', short: 'h', help: 'show this' },
};

export function usageError(message: string): never {
  throw failure(400, 'BadRequest', message);
}

/** Undefined when help was asked for and printed. */
export function parseInvocation(command: Command, args: readonly string[]): Invocation | undefined {
  if (command.passThrough) return parsePassThrough(command, args);
  const declared = { ...command.options, ...COMMON_OPTIONS };
  let parsed: { values: Record<string, string | boolean | string[] | undefined>; positionals: string[] };
  try {
    const config: ParseArgsOptionsConfig = Object.fromEntries(
      Object.entries(declared).map(([name, { type, short, multiple = false }]) => [
        name,
        { type, multiple, ...(short ? { short } : {}) },
      ]),
    );
    parsed = parseArgs({ args: [...args], options: config, allowPositionals: true, strict: true }) as typeof parsed;
  } catch (error) {
    usageError(`${(error as Error).message.split('. ')[0]}; see: cox ${command.name} --help`);
  }
  if (parsed.values['help']) {
    process.stdout.write(helpOf(command));
    return undefined;
  }
  if (!command.takesWords && parsed.positionals.length > 0)
    usageError(`unexpected "${parsed.positionals[0]}"; see: cox ${command.name} --help`);
  const options: Record<string, string | boolean | readonly string[] | undefined> = {};
  for (const [name, option] of Object.entries(declared)) options[name] = parsed.values[name] ?? option.default;
  if (options['output'] !== undefined && options['output'] !== 'json')
    usageError(`--output: Unsupported value: "${options['output']}": supported values: "json"`);
  return { options, words: parsed.positionals, json: options['output'] === 'json', cluster: String(options['name']) };
}

function parsePassThrough(command: Command, args: readonly string[]): Invocation | undefined {
  let cluster = 'dev';
  let rest = [...args];
  for (;;) {
    const first = rest[0];
    if (first === '--name' && rest.length > 1) {
      cluster = rest[1]!;
      rest = rest.slice(2);
    } else if (first?.startsWith('--name=')) {
      cluster = first.slice('--name='.length);
      rest = rest.slice(1);
    } else if (rest.length === 1 && (first === '--help' || first === '-h')) {
      process.stdout.write(helpOf(command));
      return undefined;
    } else break;
  }
  return { options: {}, words: rest, json: false, cluster };
}

export function helpOf(command: Command): string {
  const lines = [`${command.summary}\n`, `Usage: cox ${command.name} ${command.usage}`.trimEnd(), ''];
  const options = Object.entries({
    ...command.options,
    ...(command.passThrough ? { name: COMMON_OPTIONS['name']! } : COMMON_OPTIONS),
  });
  lines.push('Options:');
  for (const [name, { short, value, help, default: fallback }] of options) {
    const left = `${short ? `-${short}, ` : '    '}--${name}${value ? ` ${value}` : ''}`;
    lines.push(
      `  ${left.padEnd(26)} ${help}${fallback !== undefined && fallback !== false ? ` (default ${fallback})` : ''}`,
    );
  }
  if (command.examples?.length) lines.push('', 'Examples:', ...command.examples.map(example => `  ${example}`));
  return `${lines.join('\n')}\n`;
}

export function printJson(data: unknown): void {
  process.stdout.write(`${JSON.stringify(data, null, 2)}\n`);
}

/** Columns padded to their widest cell, as kubectl prints tables. */
export function printTable(header: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map(row => row[column]!.length)));
  for (const row of [header, ...rows])
    process.stdout.write(
      `${row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column]! + 3))).join('')}\n`,
    );
}
