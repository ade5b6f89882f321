/** The string formats that schemas may ask for, by upstream's names; formats unknown to it allow everything. */

import { dnsLabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';

const DATE = /^\d{4}-\d{2}-\d{2}$/;
const DATE_TIME = /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$/;
const GO_DURATION = /^[+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))*$/;
const WORD_DURATION = /^(\d+)\s*(ns|nano|us|µs|μs|micro|ms|milli|s|sec|m|min|h|hr|hour|d|day|w|wk|week)s?$/i;
const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;
const HOST = /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;
const IPV4 = /^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}$/;
const BASE64 = /^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

const isTime = (text: string): boolean => !Number.isNaN(Date.parse(text.toUpperCase().replace(' ', 'T')));
const versioned = (version: string) => (text: string) => UUID.test(text) && text.replaceAll('-', '')[12] === version;

function isIpv6(text: string): boolean {
  return text.includes(':') && URL.canParse(`http://[${text}]/`);
}

function isCidr(text: string): boolean {
  const [address = '', bits = ''] = text.split('/');
  if (!/^\d{1,3}$/.test(bits) || text.split('/').length !== 2) return false;
  return IPV4.test(address) ? Number(bits) <= 32 : isIpv6(address) && Number(bits) <= 128;
}

const FORMATS: Readonly<Record<string, (text: string) => boolean>> = {
  bsonobjectid: text => /^[0-9a-f]{24}$/i.test(text),
  uri: text => /^[a-z][a-z0-9+.-]*:/i.test(text) || (text.startsWith('/') && URL.canParse(text, 'http://x')),
  email: text => /^[^\s@<>]+@[^\s@<>]+$/.test(text),
  hostname: text => text.length <= 255 && HOST.test(text),
  ipv4: text => IPV4.test(text),
  ipv6: isIpv6,
  cidr: isCidr,
  mac: text => /^([0-9a-f]{2}([:-][0-9a-f]{2}){5}([:-][0-9a-f]{2}){0,2}|[0-9a-f]{4}(\.[0-9a-f]{4}){2,3})$/i.test(text),
  uuid: text => UUID.test(text),
  uuid3: versioned('3'),
  uuid4: versioned('4'),
  uuid5: versioned('5'),
  isbn: text => /^(97[89])?\d{9}[\dX]$/i.test(text.replace(/[- ]/g, '')),
  isbn10: text => /^\d{9}[\dX]$/i.test(text.replace(/[- ]/g, '')),
  isbn13: text => /^97[89]\d{10}$/.test(text.replace(/[- ]/g, '')),
  creditcard: text => /^\d{13,19}$/.test(text.replace(/[- ]/g, '')),
  ssn: text => /^\d{3}[- ]?\d{2}[- ]?\d{4}$/.test(text),
  hexcolor: text => /^#?([0-9a-f]{3}|[0-9a-f]{6})$/i.test(text),
  rgbcolor: text => /^rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)$/.test(text),
  byte: text => BASE64.test(text),
  date: text => DATE.test(text) && isTime(text),
  duration: text => text === '0' || GO_DURATION.test(text) || WORD_DURATION.test(text),
  'date-time': text => DATE_TIME.test(text) && isTime(text),
  datetime: text => DATE_TIME.test(text) && isTime(text),
  'k8s-short-name': text => dnsLabelProblems(text).length === 0,
  'k8s-long-name': text => dnsSubdomainProblems(text).length === 0,
};

// Those of strings that nothing checks, as `password`.
const ANY_STRING = ['password', 'quantity'];
const KNOWN = new Set([...Object.keys(FORMATS), ...ANY_STRING].map(bare));
const OF_NUMBERS: Readonly<Record<string, readonly string[]>> = {
  integer: ['int32', 'int64'],
  number: ['float', 'double'],
};

function bare(format: string): string {
  return format.replaceAll('-', '');
}

/** Whether a value of this type (any, when undefined) may be asked for in this format. */
export function isKnownFormat(format: string, type?: string): boolean {
  if (type && type in OF_NUMBERS) return OF_NUMBERS[type]!.includes(format);
  return (!type || type === 'string') && KNOWN.has(bare(format));
}

export function isFormat(format: string, text: string): boolean {
  const test = Object.hasOwn(FORMATS, format) ? FORMATS[format] : undefined;
  return test ? test(text) : true;
}
