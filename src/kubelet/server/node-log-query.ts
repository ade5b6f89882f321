/** What a node log query asks for (KEP 2258): read from the URL and validated with upstream's words. Pure. */

import { failure } from '../../base/errors.ts';

export interface NodeLogQuery {
  readonly services: readonly string[];
  readonly file: string | undefined;
  readonly filter: LineFilter;
}

/** Which lines of a service's log; all of them where nothing is set. */
export interface LineFilter {
  readonly sinceMs?: number;
  readonly untilMs?: number;
  readonly tailLines?: number;
  readonly pattern?: RegExp;
}

const SERVICES_MAX = 4;
const SERVICE_LENGTH_MAX = 256;
const TAIL_LINES_MAX = 100_000;
const RFC_3339 = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$/;

/** Undefined where nothing is queried. Throws BadRequest (400) for what cannot be read, NotAcceptable (406) for what may not be asked. */
export function readNodeLogQuery(url: URLSearchParams): NodeLogQuery | undefined {
  const queries = url.getAll('query');
  const files = queries.filter(one => /[/\\]/.test(one));
  const services = queries.filter(one => !files.includes(one) && one.trim() !== '');
  const unreadable: string[] = [];
  if (queries.length > 0 && files.length + services.length === 0)
    unreadable.push(invalid('query', `[${queries.join(' ')}]`, 'query cannot be empty'));
  const time = (name: string): number | undefined => {
    const value = url.get(name);
    if (!value) return undefined;
    const ms = RFC_3339.test(value) ? Date.parse(value) : Number.NaN;
    if (Number.isNaN(ms)) unreadable.push(invalid(name, value, 'invalid time format'));
    return ms;
  };
  const number = (name: string): number | undefined => {
    const value = url.get(name);
    if (!value) return undefined;
    if (!/^[+-]?\d{1,9}$/.test(value))
      unreadable.push(invalid(name, value, `strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`));
    return Number(value);
  };
  const [sinceMs, untilMs, boot, tailLines] = [
    time('sinceTime'),
    time('untilTime'),
    number('boot'),
    number('tailLines'),
  ];
  const written = url.get('pattern') || undefined;
  if (unreadable.length > 0) throw failure(400, 'BadRequest', aggregate(unreadable));
  const hasOptions = [sinceMs, untilMs, boot, tailLines, written].some(one => one !== undefined);
  if (files.length + services.length === 0 && !hasOptions) return undefined;

  const refused: string[] = [];
  for (const service of services)
    if (service.length > SERVICE_LENGTH_MAX)
      refused.push(invalid('query', service, `length must be less than ${SERVICE_LENGTH_MAX}`));
    else if (/[^a-zA-Z\-_.:0-9@]/.test(service))
      refused.push(invalid('query', service, 'input contains unsupported characters'));
  if (services.length > SERVICES_MAX)
    refused.push(`query: Too many: ${services.length}: must have at most ${SERVICES_MAX} items`);
  if (files.length + services.length === 0) refused.push('query: Required value: cannot be empty with options');
  else if (files.length > 0 && services.length > 0)
    refused.push(
      invalid('query', `[${files.join(' ')}], [${services.join(' ')}]`, 'cannot specify a file and service'),
    );
  else if (files.length > 1)
    refused.push(invalid('query', `[${files.join(' ')}]`, 'cannot specify more than one file'));
  else if (files.length === 1 && hasOptions)
    refused.push(invalid('query', `[${files.join(' ')}]`, 'cannot specify file with options'));
  if (sinceMs !== undefined && untilMs !== undefined && sinceMs > untilMs)
    refused.push(invalid('untilTime', url.get('untilTime')!, 'must be after `sinceTime`'));
  if (boot !== undefined && boot > 0) refused.push(`boot: Invalid value: ${boot}: must be less than 1`);
  if (boot !== undefined && boot < 0)
    refused.push(`boot: Invalid value: ${boot}: this node keeps no logs of boots before this one; leave it out`);
  if (tailLines !== undefined && (tailLines < 0 || tailLines > TAIL_LINES_MAX))
    refused.push(`tailLines: Invalid value: ${tailLines}: must be between 0 and ${TAIL_LINES_MAX}, inclusive`);
  let pattern: RegExp | undefined;
  try {
    pattern = written === undefined ? undefined : new RegExp(written);
  } catch (error) {
    refused.push(invalid('pattern', written!, (error as Error).message));
  }
  if (refused.length > 0) throw failure(406, 'NotAcceptable', aggregate(refused));
  return {
    services,
    file: files[0],
    filter: {
      ...(sinceMs === undefined ? {} : { sinceMs }),
      ...(untilMs === undefined ? {} : { untilMs }),
      ...(tailLines === undefined ? {} : { tailLines }),
      ...(pattern === undefined ? {} : { pattern }),
    },
  };
}

const invalid = (field: string, value: string, why: string): string =>
  `${field}: Invalid value: ${JSON.stringify(value)}: ${why}`;
const aggregate = (errors: readonly string[]): string => (errors.length === 1 ? errors[0]! : `[${errors.join(', ')}]`);
