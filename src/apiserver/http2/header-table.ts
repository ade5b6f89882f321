/** The static table of HPACK (RFC 7541, appendix A) and the dynamic one that a decoder keeps. */

const FIXED = `:authority
:method=GET
:method=POST
:path=/
:path=/index.html
:scheme=http
:scheme=https
:status=200
:status=204
:status=206
:status=304
:status=400
:status=404
:status=500
accept-charset
accept-encoding=gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate`;

export interface HeaderField {
  readonly name: string;
  readonly value: string;
}

/** By index minus one. */
export const STATIC_FIELDS: readonly HeaderField[] = FIXED.split('\n').map(line => {
  const [name = '', value = ''] = line.split('=');
  return { name, value };
});

/** The first index of each name. */
export const STATIC_NAMES: ReadonlyMap<string, number> = new Map(
  STATIC_FIELDS.map(({ name }, at) => [name, at + 1] as const).reverse(),
);

/** What a field counts in the table beside its text. */
const FIELD_OVERHEAD_BYTES = 32;

export function fieldSize({ name, value }: HeaderField): number {
  return name.length + value.length + FIELD_OVERHEAD_BYTES;
}

export class DynamicTable {
  /** Oldest first, so that adding moves nothing; those before `#first` are gone. */
  #fields: HeaderField[] = [];
  #first = 0;
  #size = 0;
  #sizeMax: number;

  constructor(sizeMax: number) {
    this.#sizeMax = sizeMax;
  }
  /** 0 is the newest. */
  at(index: number): HeaderField | undefined {
    const position = this.#fields.length - 1 - index;
    return position >= this.#first ? this.#fields[position] : undefined;
  }
  add(field: HeaderField): void {
    const size = fieldSize(field);
    this.#evict(this.#sizeMax - size);
    if (size > this.#sizeMax) return;
    this.#fields.push(field);
    this.#size += size;
  }
  resize(sizeMax: number): void {
    this.#sizeMax = sizeMax;
    this.#evict(sizeMax);
  }
  #evict(size: number): void {
    while (this.#size > size && this.#first < this.#fields.length)
      this.#size -= fieldSize(this.#fields[this.#first++]!);
    if (this.#first < 64 || this.#first < this.#fields.length >> 1) return;
    this.#fields = this.#fields.slice(this.#first);
    this.#first = 0;
  }
}
