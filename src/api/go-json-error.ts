/**
 * Why Go's JSON decoder would refuse a value for a scalar or a type, in its words. Only texts; the walk is in
 * `structural.ts`.
 */
import { parseNano, QUANTITY_ERROR } from './machinery/quantity.ts';

const goScalar: Readonly<Record<string, string>> = {
  string: 'string',
  bool: 'bool',
  int32: 'int32',
  int64: 'int64',
  double: 'float64',
  bytes: '[]uint8',
  time: 'v1.Time',
  microtime: 'v1.MicroTime',
  duration: 'v1.Duration',
  quantity: 'resource.Quantity',
  intOrString: 'intstr.IntOrString',
  raw: 'runtime.RawExtension',
  json: 'v1.JSON',
  fieldsV1: 'v1.FieldsV1',
};

/**
 * Message for a value of the wrong JSON type. `struct` is the type that holds the field, '' for the body itself; `fields`
 * lead from the body to the field, without indexes and map keys.
 */
export function typeError(value: unknown, ref: string, struct: string, fields: readonly string[]): string {
  const where = struct === '' ? 'value' : `struct field ${localName(struct)}.${fields.join('.')}`;
  return `json: cannot unmarshal ${jsonType(value, ref)} into Go ${where} of type ${goType(ref)}`;
}

/** Message of the decoder for a scalar, or undefined when it takes the value. Null is never given. */
export function decodeError(
  scalar: string,
  value: unknown,
  struct: string,
  fields: readonly string[],
): string | undefined {
  switch (scalar) {
    case 'string':
      return typeof value === 'string' ? undefined : typeError(value, scalar, struct, fields);
    case 'bool':
      return typeof value === 'boolean' ? undefined : typeError(value, scalar, struct, fields);
    case 'int32':
    case 'int64':
      return isInteger(value, scalar) ? undefined : typeError(value, scalar, struct, fields);
    case 'double':
      return typeof value === 'number' ? undefined : typeError(value, scalar, struct, fields);
    case 'bytes':
      return typeof value === 'string' ? base64Error(value) : typeError(value, scalar, struct, fields);
    case 'quantity':
      return isQuantity(value) ? undefined : QUANTITY_ERROR;
    case 'intOrString':
      if (typeof value === 'string' || isInteger(value, 'int32')) return undefined;
      return typeError(value, 'int32', '', fields);
    case 'time':
      return typeof value === 'string' ? timeError(value, '') : typeError(value, 'string', '', fields);
    case 'microtime':
      return typeof value === 'string' ? timeError(value, '.000000') : typeError(value, 'string', '', fields);
    case 'duration':
      return typeof value === 'string' ? durationError(value) : typeError(value, 'string', '', fields);
    default:
      return undefined;
  }
}

function goType(ref: string): string {
  if (ref.startsWith('[]')) return `[]${goType(ref.slice(2))}`;
  if (ref.startsWith('map[string]')) return `map[string]${goType(ref.slice(11))}`;
  return goScalar[ref] ?? ref.slice(ref.indexOf('.') + 1);
}

const localName = (type: string) => type.slice(type.lastIndexOf('.') + 1);

function jsonType(value: unknown, ref: string): string {
  if (Array.isArray(value)) return 'array';
  // A number of the right kind that does not fit is named; of the wrong kind it is just a number.
  if (typeof value === 'number' && ref.startsWith('int')) return `number ${value}`;
  return typeof value === 'boolean' ? 'bool' : typeof value;
}

const INT32 = 2 ** 31;

function isInteger(value: unknown, scalar: 'int32' | 'int64'): boolean {
  if (!Number.isInteger(value)) return false;
  const limit = scalar === 'int32' ? INT32 : 2 ** 63;
  return (value as number) >= -limit && (value as number) < limit;
}

function isQuantity(value: unknown): boolean {
  return (typeof value === 'string' || typeof value === 'number') && parseNano(value) !== undefined;
}

/** Go's decoder skips line breaks and names the offset of the first byte that it cannot use. */
function base64Error(text: string): string | undefined {
  if (/^[A-Za-z0-9+/\r\n]*={0,2}[\r\n]*$/.test(text) && text.replace(/[\r\n]/g, '').length % 4 === 0) return undefined;
  const valid = /^(?:[\r\n]*[A-Za-z0-9+/])*/.exec(text)![0].length;
  return `illegal base64 data at input byte ${valid < text.length ? valid : text.length - (text.length % 4)}`;
}

const dateLayout: readonly (readonly [RegExp, string])[] = [
  [/^\d{4}/, '2006'],
  [/^-/, '-'],
  [/^\d{2}/, '01'],
  [/^-/, '-'],
  [/^\d{2}/, '02'],
  [/^T/, 'T'],
  [/^\d{2}/, '15'],
  [/^:/, ':'],
  [/^\d{2}/, '04'],
  [/^:/, ':'],
  [/^\d{2}/, '05'],
];

/** Message of Go's time.Parse with RFC 3339; `fraction` as the layout has it. */
export function timeError(text: string, fraction: '' | '.000000'): string | undefined {
  const layout = `2006-01-02T15:04:05${fraction}Z07:00`;
  const steps = [
    ...dateLayout,
    [fraction === '' ? /^(?:\.\d+)?/ : /^\.\d{6}/, fraction],
    [/^(?:Z|[+-]\d{2}:\d{2})/, 'Z07:00'],
  ] as const;
  let rest = text;
  for (const [pattern, name] of steps) {
    const match = pattern.exec(rest);
    if (match === null) return `parsing time "${text}" as "${layout}": cannot parse "${rest}" as "${name}"`;
    rest = rest.slice(match[0].length);
  }
  if (rest !== '') return `parsing time "${text}": extra text: "${rest}"`;
  const [month, day, hour, minute, second] = [5, 8, 11, 14, 17].map(at => Number(text.slice(at, at + 2)));
  const range = (what: string) => `parsing time "${text}": ${what} out of range`;
  if (month! < 1 || month! > 12) return range('month');
  if (day! < 1 || day! > new Date(Date.UTC(Number(text.slice(0, 4)), month!, 0)).getUTCDate()) return range('day');
  if (hour! > 23) return range('hour');
  if (minute! > 59) return range('minute');
  return second! > 59 ? range('second') : undefined;
}

function durationError(text: string): string | undefined {
  if (/^[+-]?(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)$/.test(text)) return undefined;
  return `time: invalid duration ${JSON.stringify(text)}`;
}
