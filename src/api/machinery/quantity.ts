/**
 * Resource quantities: `100m`, `1.5Gi`, `2e3`. Held exactly as an integer of 10⁻⁹ units (nano), rounded up beyond that,
 * as apimachinery `resource.Quantity`.
 */

const SUFFIX_NANO: Readonly<Record<string, bigint>> = {
  n: 1n,
  u: 1_000n,
  m: 1_000_000n,
  '': 10n ** 9n,
  k: 10n ** 12n,
  M: 10n ** 15n,
  G: 10n ** 18n,
  T: 10n ** 21n,
  P: 10n ** 24n,
  E: 10n ** 27n,
  Ki: 2n ** 10n * 10n ** 9n,
  Mi: 2n ** 20n * 10n ** 9n,
  Gi: 2n ** 30n * 10n ** 9n,
  Ti: 2n ** 40n * 10n ** 9n,
  Pi: 2n ** 50n * 10n ** 9n,
  Ei: 2n ** 60n * 10n ** 9n,
};

const PATTERN = /^([+-]?)(\d*)(?:\.(\d*))?(?:(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE])|[eE]([+-]?\d+))?$/;

const EXPONENT_MAX = 64;

/** Thrown message of upstream's parser. */
export const QUANTITY_ERROR =
  "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/** The quantity in units of 10⁻⁹, or undefined when it is malformed. */
export function parseNano(text: string | number): bigint | undefined {
  const match = PATTERN.exec(String(text).trim());
  if (!match) return undefined;
  const [, sign, whole, fraction = '', suffix, exponent] = match;
  if (whole === '' && fraction === '') return undefined;
  const digits = BigInt((whole || '0') + fraction);
  let scale = SUFFIX_NANO[suffix ?? '']!;
  let divisor = 10n ** BigInt(fraction.length);
  if (exponent !== undefined) {
    // Nothing that anybody means is beyond; 1e999999999 would fill memory with zeros.
    const power = Math.max(-EXPONENT_MAX, Math.min(EXPONENT_MAX, Number(exponent)));
    if (power >= 0) scale *= 10n ** BigInt(power);
    else divisor *= 10n ** BigInt(-power);
  }
  const product = digits * scale;
  const value = product / divisor + (product % divisor === 0n ? 0n : 1n);
  return sign === '-' ? -value : value;
}

/** Whole units, rounded up (bytes, pods); 0 for malformed input. */
export function quantityValue(text: string | number | undefined): number {
  const nano = text === undefined ? 0n : (parseNano(text) ?? 0n);
  const unit = 10n ** 9n;
  return Number(nano / unit + (nano % unit > 0n ? 1n : 0n));
}

/** Thousandths, rounded up (CPU); 0 for malformed input. */
export function quantityMilli(text: string | number | undefined): number {
  const nano = text === undefined ? 0n : (parseNano(text) ?? 0n);
  return Number(nano / 1_000_000n + (nano % 1_000_000n > 0n ? 1n : 0n));
}

/** -1, 0 or 1. Malformed counts as zero. */
export function compareQuantity(a: string, b: string): number {
  const x = parseNano(a) ?? 0n;
  const y = parseNano(b) ?? 0n;
  return x < y ? -1 : x > y ? 1 : 0;
}

const DECIMAL = ['n', 'u', 'm', '', 'k', 'M', 'G', 'T', 'P', 'E'];
const BINARY = ['Ei', 'Pi', 'Ti', 'Gi', 'Mi', 'Ki'];

/** Upstream's canonical form: no fractions, the largest suffix that divides, the family (binary, decimal, exponent) kept. */
export function canonicalQuantity(text: string | number): string {
  const source = String(text).trim();
  const nano = parseNano(source);
  if (nano === undefined) return source;
  return formatNano(nano, /[KMGTPE]i$/.test(source) ? 'binary' : /[eE][+-]?\d+$/.test(source) ? 'exponent' : 'decimal');
}

export function formatNano(nano: bigint, family: 'binary' | 'decimal' | 'exponent' = 'decimal'): string {
  if (nano === 0n) return '0';
  const sign = nano < 0n ? '-' : '';
  const size = nano < 0n ? -nano : nano;
  if (family === 'binary' && size % 10n ** 9n === 0n && size >= 1024n * 10n ** 9n) {
    for (const suffix of BINARY) {
      const unit = SUFFIX_NANO[suffix]!;
      if (size >= unit && size % unit === 0n) return `${sign}${size / unit}${suffix}`;
    }
    return `${sign}${size / 10n ** 9n}`;
  }
  for (let i = DECIMAL.length - 1; i >= 0; i--) {
    const unit = SUFFIX_NANO[DECIMAL[i]!]!;
    if (size % unit !== 0n) continue;
    const exponent = (i - 3) * 3;
    return `${sign}${size / unit}${family === 'exponent' ? (exponent === 0 ? '' : `e${exponent}`) : DECIMAL[i]}`;
  }
  return `${sign}${size}n`;
}
