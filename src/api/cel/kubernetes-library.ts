/** Kubernetes' own CEL libraries: quantities, addresses, URLs, versions, named formats. */

import { isIPv4, isIPv6 } from 'node:net';
import { isFormat } from '../apiextensions/formats.ts';
import { validateLabels } from '../machinery/labels.ts';
import { dns1035LabelProblems, dnsLabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import { parseNano } from '../machinery/quantity.ts';
import { type Overload, overload } from './functions.ts';
import { ArrayList, CelError, HashMap, NONE, Opaque, Optional, type Value } from './values.ts';

const NANO = 10n ** 9n;
const INT_MAX = 2n ** 63n - 1n;
const sign = (value: bigint): bigint => (value > 0n ? 1n : value < 0n ? -1n : 0n);

class Quantity extends Opaque {
  readonly type = 'kubernetes.Quantity';
  readonly nano: bigint;
  constructor(nano: bigint) {
    super();
    this.nano = nano;
  }
  equals(other: Opaque): boolean {
    return other instanceof Quantity && other.nano === this.nano;
  }
}

const nano = (value: Value | undefined): bigint => (value as Quantity).nano;
const amount = (value: Value | undefined): bigint => (typeof value === 'bigint' ? value * NANO : nano(value));

const quantities: Overload[] = [
  overload('quantity(string): kubernetes.Quantity', ([text]) => {
    const parsed = parseNano(text as string);
    if (parsed === undefined)
      throw new CelError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");
    return new Quantity(parsed);
  }),
  overload('isQuantity(string): bool', ([text]) => parseNano(text as string) !== undefined),
  overload('quantity.sign(): int', ([a]) => sign(nano(a))),
  overload('quantity.isInteger(): bool', ([a]) => nano(a) % NANO === 0n && nano(a) / NANO <= INT_MAX),
  overload('quantity.asInteger(): int', ([a]) => {
    if (nano(a) % NANO !== 0n || nano(a) / NANO > INT_MAX) throw new CelError('cannot convert value to integer');
    return nano(a) / NANO;
  }),
  overload('quantity.asApproximateFloat(): double', ([a]) => Number(nano(a)) / 1e9),
  overload('quantity.isGreaterThan(quantity): bool', ([a, b]) => nano(a) > nano(b)),
  overload('quantity.isLessThan(quantity): bool', ([a, b]) => nano(a) < nano(b)),
  overload('quantity.compareTo(quantity): int', ([a, b]) => sign(nano(a) - nano(b))),
  ...['quantity', 'int'].flatMap(type => [
    overload(`quantity.add(${type}): kubernetes.Quantity`, ([a, b]) => new Quantity(nano(a) + amount(b))),
    overload(`quantity.sub(${type}): kubernetes.Quantity`, ([a, b]) => new Quantity(nano(a) - amount(b))),
  ]),
];

/** The bytes of an address; undefined for what is none, or is written in a way that Kubernetes refuses. */
function addressBytes(text: string): number[] | undefined {
  if (isIPv4(text)) return text.split('.').map(Number);
  if (!isIPv6(text) || text.includes('%') || /^::ffff:\d+\./i.test(text)) return undefined;
  const host = new URL(`http://[${text}]/`).hostname.slice(1, -1);
  const [head = '', tail] = host.split('::');
  const groups = (side: string) => (side === '' ? [] : side.split(':').map(group => Number.parseInt(group, 16)));
  const before = groups(head);
  const after = tail === undefined ? [] : groups(tail);
  const words = tail === undefined ? before : [...before, ...Array(8 - before.length - after.length).fill(0), ...after];
  return words.flatMap(word => [word >> 8, word & 255]);
}

function addressText(bytes: readonly number[]): string {
  if (bytes.length === 4) return bytes.join('.');
  const words = Array.from({ length: 8 }, (_, at) => ((bytes[2 * at]! << 8) | bytes[2 * at + 1]!).toString(16));
  return new URL(`http://[${words.join(':')}]/`).hostname.slice(1, -1);
}

class Address extends Opaque {
  readonly type = 'net.IP';
  readonly bytes: readonly number[];
  constructor(bytes: readonly number[]) {
    super();
    this.bytes = bytes;
  }
  static parse(text: string): Address {
    const bytes = addressBytes(text);
    if (!bytes) throw new CelError(`IP Address ${JSON.stringify(text)} parse error during conversion from string`);
    return new Address(bytes);
  }
  equals(other: Opaque): boolean {
    return other instanceof Address && isPrefix(this.bytes, other.bytes, this.bytes.length * 8);
  }
}

class Cidr extends Opaque {
  readonly type = 'net.CIDR';
  readonly bytes: readonly number[];
  readonly length: number;
  constructor(bytes: readonly number[], length: number) {
    super();
    this.bytes = bytes;
    this.length = length;
  }
  static tryParse(text: string): Cidr | undefined {
    const [address = '', length = '', ...more] = text.split('/');
    const bytes = addressBytes(address);
    if (!bytes || more.length > 0 || !/^(0|[1-9]\d{0,2})$/.test(length) || Number(length) > bytes.length * 8)
      return undefined;
    return new Cidr(bytes, Number(length));
  }
  static parse(text: string): Cidr {
    const parsed = Cidr.tryParse(text);
    if (!parsed)
      throw new CelError(`network address parse error during conversion from string: ${JSON.stringify(text)}`);
    return parsed;
  }
  masked(): Cidr {
    const bytes = this.bytes.map(
      (byte, at) => byte & (0xff00 >> Math.max(0, Math.min(8, this.length - at * 8))) & 0xff,
    );
    return new Cidr(bytes, this.length);
  }
  contains(bytes: readonly number[]): boolean {
    return isPrefix(this.bytes, bytes, this.length);
  }
  equals(other: Opaque): boolean {
    return (
      other instanceof Cidr && other.length === this.length && isPrefix(this.bytes, other.bytes, this.bytes.length * 8)
    );
  }
}

/** Whether the first bits of two addresses of one family are the same. */
function isPrefix(a: readonly number[], b: readonly number[], bits: number): boolean {
  if (a.length !== b.length) return false;
  return a.every((byte, at) => {
    const mask = (0xff00 >> Math.max(0, Math.min(8, bits - at * 8))) & 0xff;
    return (byte & mask) === (b[at]! & mask);
  });
}

const bytesOf = (value: Value | undefined): readonly number[] =>
  (typeof value === 'string' ? Address.parse(value) : (value as Address)).bytes;
const cidrOf = (value: Value | undefined): Cidr => (typeof value === 'string' ? Cidr.parse(value) : (value as Cidr));
const is =
  (test: (bytes: readonly number[]) => boolean): Overload['call'] =>
  ([a]) =>
    test((a as Address).bytes);
const isV4 = (bytes: readonly number[]) => bytes.length === 4;
const isUnspecified = (bytes: readonly number[]) => bytes.every(byte => byte === 0);
const isLoopback = (bytes: readonly number[]) =>
  isV4(bytes) ? bytes[0] === 127 : bytes.every((byte, at) => byte === (at === 15 ? 1 : 0));
const isMulticast = (bytes: readonly number[]) =>
  isV4(bytes) ? bytes[0]! >= 224 && bytes[0]! < 240 : bytes[0] === 255;
const isLinkLocal = (bytes: readonly number[]) =>
  isV4(bytes) ? bytes[0] === 169 && bytes[1] === 254 : bytes[0] === 0xfe && (bytes[1]! & 0xc0) === 0x80;
const isLinkLocalMulticast = (bytes: readonly number[]) =>
  isV4(bytes) ? bytes[0] === 224 && bytes[1] === 0 && bytes[2] === 0 : bytes[0] === 255 && (bytes[1]! & 15) === 2;

const addresses: Overload[] = [
  overload('ip(string): net.IP', ([text]) => Address.parse(text as string)),
  overload('isIP(string): bool', ([text]) => addressBytes(text as string) !== undefined),
  overload('#ip.isCanonical(string): bool', ([text]) => addressText(Address.parse(text as string).bytes) === text),
  overload('string(ip): string', ([a]) => addressText((a as Address).bytes)),
  overload('ip.family(): int', ([a]) => (isV4((a as Address).bytes) ? 4n : 6n)),
  overload('ip.isUnspecified(): bool', is(isUnspecified)),
  overload('ip.isLoopback(): bool', is(isLoopback)),
  overload('ip.isLinkLocalMulticast(): bool', is(isLinkLocalMulticast)),
  overload('ip.isLinkLocalUnicast(): bool', is(isLinkLocal)),
  overload(
    'ip.isGlobalUnicast(): bool',
    is(
      bytes =>
        !isUnspecified(bytes) &&
        !isLoopback(bytes) &&
        !isMulticast(bytes) &&
        !isLinkLocal(bytes) &&
        !(isV4(bytes) && bytes.every(byte => byte === 255)),
    ),
  ),
  overload('cidr(string): net.CIDR', ([text]) => Cidr.parse(text as string)),
  overload('isCIDR(string): bool', ([text]) => Cidr.tryParse(text as string) !== undefined),
  overload('string(cidr): string', ([a]) => `${addressText((a as Cidr).bytes)}/${(a as Cidr).length}`),
  overload('cidr.ip(): net.IP', ([a]) => new Address((a as Cidr).bytes)),
  overload('cidr.prefixLength(): int', ([a]) => BigInt((a as Cidr).length)),
  overload('cidr.masked(): net.CIDR', ([a]) => (a as Cidr).masked()),
  ...['ip', 'string'].map(type =>
    overload(`cidr.containsIP(${type}): bool`, ([a, b]) => (a as Cidr).contains(bytesOf(b))),
  ),
  ...['cidr', 'string'].map(type =>
    overload(`cidr.containsCIDR(${type}): bool`, ([a, b]) => {
      const inner = cidrOf(b);
      return (a as Cidr).contains(inner.bytes) && inner.length >= (a as Cidr).length;
    }),
  ),
];

class Url extends Opaque {
  readonly type = 'kubernetes.URL';
  readonly text: string;
  readonly url: URL;
  readonly isAbsolute: boolean;
  constructor(text: string, url: URL, isAbsolute: boolean) {
    super();
    this.text = text;
    this.url = url;
    this.isAbsolute = isAbsolute;
  }
  /** Absolute URLs and absolute paths, as Go's ParseRequestURI. */
  static tryParse(text: string): Url | undefined {
    if (/[\u0000-\u0020\u007f]/.test(text)) return undefined;
    if (text.startsWith('/'))
      return URL.canParse(text, 'http://x') ? new Url(text, new URL(text, 'http://x'), false) : undefined;
    return /^[a-z][a-z0-9+.-]*:/i.test(text) && URL.canParse(text) ? new Url(text, new URL(text), true) : undefined;
  }
  equals(other: Opaque): boolean {
    return other instanceof Url && other.text === this.text;
  }
}

/** The authority as it was written: `example.com:80`; what URL drops (default ports) is kept. */
function authority({ text, isAbsolute }: Url): string {
  if (!isAbsolute) return '';
  return /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?([^/?#]*)/i.exec(text)?.[1] ?? '';
}

const urls: Overload[] = [
  overload('url(string): kubernetes.URL', ([text]) => {
    const parsed = Url.tryParse(text as string);
    if (!parsed)
      throw new CelError(
        `URL parse error during conversion from string: parse ${JSON.stringify(text)}: invalid URI for request`,
      );
    return parsed;
  }),
  overload('isURL(string): bool', ([text]) => Url.tryParse(text as string) !== undefined),
  overload('url.getScheme(): string', ([a]) => ((a as Url).isAbsolute ? (a as Url).url.protocol.slice(0, -1) : '')),
  overload('url.getHost(): string', ([a]) => authority(a as Url)),
  overload('url.getHostname(): string', ([a]) =>
    authority(a as Url)
      .replace(/:\d*$/, '')
      .replace(/^\[(.*)\]$/, '$1'),
  ),
  overload('url.getPort(): string', ([a]) => /:(\d+)$/.exec(authority(a as Url))?.[1] ?? ''),
  overload('url.getEscapedPath(): string', ([a]) => {
    const { text, url, isAbsolute } = a as Url;
    return isAbsolute && !/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*\//i.test(text) ? '' : url.pathname;
  }),
  overload('url.getQuery(): map', ([a]) => {
    const { searchParams } = (a as Url).url;
    return new HashMap([...new Set(searchParams.keys())].map(key => [key, new ArrayList(searchParams.getAll(key))]));
  }),
];

class Semver extends Opaque {
  readonly type = 'kubernetes.Semver';
  readonly numbers: readonly bigint[];
  readonly pre: readonly string[];
  constructor(numbers: readonly bigint[], pre: readonly string[]) {
    super();
    this.numbers = numbers;
    this.pre = pre;
  }
  static tryParse(text: string, normalize: boolean): Semver | undefined {
    let source = text;
    if (normalize) {
      const loose = /^v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(.*)$/.exec(text);
      if (!loose) return undefined;
      source = `${[loose[1], loose[2] ?? '0', loose[3] ?? '0'].map(part => BigInt(part!)).join('.')}${loose[4]}`;
    }
    const match =
      /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?$/.exec(
        source,
      );
    if (!match) return undefined;
    const pre = match[4]?.split('.') ?? [];
    return pre.some(part => /^0\d+$/.test(part))
      ? undefined
      : new Semver(
          [match[1], match[2], match[3]].map(part => BigInt(part!)),
          pre,
        );
  }
  compare(other: Semver): bigint {
    for (const [at, number] of this.numbers.entries())
      if (number !== other.numbers[at]) return number < other.numbers[at]! ? -1n : 1n;
    if (this.pre.length === 0 || other.pre.length === 0)
      return BigInt(Number(other.pre.length > 0) - Number(this.pre.length > 0));
    for (let at = 0; at < Math.max(this.pre.length, other.pre.length); at++) {
      const [a, b] = [this.pre[at], other.pre[at]];
      if (a === b) continue;
      if (a === undefined || b === undefined) return a === undefined ? -1n : 1n;
      const [aNumber, bNumber] = [/^\d+$/.test(a), /^\d+$/.test(b)];
      if (aNumber !== bNumber) return aNumber ? -1n : 1n;
      return (aNumber ? BigInt(a) < BigInt(b) : a < b) ? -1n : 1n;
    }
    return 0n;
  }
  equals(other: Opaque): boolean {
    return other instanceof Semver && this.compare(other) === 0n;
  }
}

const semver = (text: Value | undefined, normalize: Value | undefined): Value => {
  const parsed = Semver.tryParse(text as string, normalize === true);
  if (!parsed) throw new CelError(`semver parse error: ${JSON.stringify(text)}`);
  return parsed;
};

const semvers: Overload[] = [
  overload('semver(string): kubernetes.Semver', ([text]) => semver(text, false)),
  overload('semver(string, bool): kubernetes.Semver', ([text, normalize]) => semver(text, normalize)),
  overload('isSemver(string): bool', ([text]) => Semver.tryParse(text as string, false) !== undefined),
  overload(
    'isSemver(string, bool): bool',
    ([text, normalize]) => Semver.tryParse(text as string, normalize === true) !== undefined,
  ),
  overload('semver.major(): int', ([a]) => (a as Semver).numbers[0]!),
  overload('semver.minor(): int', ([a]) => (a as Semver).numbers[1]!),
  overload('semver.patch(): int', ([a]) => (a as Semver).numbers[2]!),
  overload('semver.isGreaterThan(semver): bool', ([a, b]) => (a as Semver).compare(b as Semver) > 0n),
  overload('semver.isLessThan(semver): bool', ([a, b]) => (a as Semver).compare(b as Semver) < 0n),
  overload('semver.compareTo(semver): int', ([a, b]) => (a as Semver).compare(b as Semver)),
];

class Format extends Opaque {
  readonly type = 'kubernetes.NamedFormat';
  readonly name: string;
  readonly check: (text: string) => readonly string[];
  constructor(name: string, check: (text: string) => readonly string[]) {
    super();
    this.name = name;
    this.check = check;
  }
  equals(other: Opaque): boolean {
    return other instanceof Format && other.name === this.name;
  }
}

const asPrefix = (check: (text: string) => readonly string[]) => (text: string) => check(text.replace(/-$/, 'a'));
const byFormat = (format: string, says: string) => (text: string) => (isFormat(format, text) ? [] : [says]);

const FORMATS: Readonly<Record<string, (text: string) => readonly string[]>> = {
  dns1123Label: dnsLabelProblems,
  dns1123Subdomain: dnsSubdomainProblems,
  dns1035Label: dns1035LabelProblems,
  dns1123LabelPrefix: asPrefix(dnsLabelProblems),
  dns1123SubdomainPrefix: asPrefix(dnsSubdomainProblems),
  dns1035LabelPrefix: asPrefix(dns1035LabelProblems),
  qualifiedName: text => validateLabels({ [text]: '' }, '').map(error => error.message),
  labelValue: text => validateLabels({ a: text }, '').map(error => error.message),
  uri: text => (Url.tryParse(text) ? [] : [`parse ${JSON.stringify(text)}: invalid URI for request`]),
  uuid: byFormat('uuid', 'does not match the UUID format'),
  byte: byFormat('byte', 'invalid base64'),
  date: byFormat('date', 'invalid date'),
  datetime: byFormat('date-time', 'invalid datetime'),
};

const formats: Overload[] = [
  overload('#format.named(string): optional', ([name]) => {
    const check = Object.hasOwn(FORMATS, name as string) ? FORMATS[name as string] : undefined;
    return check ? new Optional(new Format(name as string, check)) : NONE;
  }),
  ...Object.entries(FORMATS).map(([name, check]) =>
    overload(`#format.${name}(): kubernetes.NamedFormat`, () => new Format(name, check)),
  ),
  overload('format.validate(string): optional', ([format, text]) => {
    const problems = (format as Format).check(text as string);
    return problems.length === 0 ? NONE : new Optional(new ArrayList(problems));
  }),
];

export const KUBERNETES: readonly Overload[] = [
  ...quantities,
  ...addresses,
  ...urls,
  ...semvers,
  ...formats,
  overload('#jsonpatch.escapeKey(string): string', ([text]) =>
    (text as string).replaceAll('~', '~0').replaceAll('/', '~1'),
  ),
];
