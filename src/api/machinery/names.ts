/**
 * The rules for names and other short strings, with upstream's messages (apimachinery `util/validation`). Every function
 * returns what is wrong with the value, empty when nothing is. Keys and values of labels are in `labels.ts`.
 */

import { isIP, SocketAddress } from 'node:net';
import { IpPrefix } from './ip-prefix.ts';

const NONE: readonly string[] = Object.freeze([]);

export type Problems = readonly string[];

const DNS_LABEL = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';
const DNS_SUBDOMAIN = `${DNS_LABEL}(\\.${DNS_LABEL})*`;
const DNS_1035 = '[a-z]([-a-z0-9]*[a-z0-9])?';

const dnsLabel = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const dnsSubdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const dns1035 = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;

export const tooLongProblem = (max: number): string => `must be no more than ${max} bytes`;
export const rangeProblem = (low: number, high: number): string => `must be between ${low} and ${high}, inclusive`;

/** `message (e.g. 'a',  or 'b', regex used for validation is '…')`. */
export function regexProblem(message: string, pattern: string, ...examples: string[]): string {
  if (examples.length === 0) return `${message} (regex used for validation is '${pattern}')`;
  return `${message} (e.g. ${examples.map(example => `'${example}', `).join(' or ')}regex used for validation is '${pattern}')`;
}

/** Bytes of UTF-8, which is what upstream counts. */
export function byteLength(value: string): number {
  return Buffer.byteLength(value, 'utf8');
}

export function dnsLabelProblems(value: string): Problems {
  const long = value.length > 63;
  if (!long && dnsLabel.test(value)) return NONE;
  const problems = long ? [tooLongProblem(63)] : [];
  if (!dnsLabel.test(value)) {
    if (dnsSubdomain.test(value)) problems.push('must not contain dots');
    else
      problems.push(
        regexProblem(
          "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
          DNS_LABEL,
          'my-name',
          '123-abc',
        ),
      );
  }
  return problems;
}

export function dnsSubdomainProblems(value: string): Problems {
  const long = value.length > 253;
  if (!long && dnsSubdomain.test(value)) return NONE;
  const problems = long ? [tooLongProblem(253)] : [];
  if (!dnsSubdomain.test(value))
    problems.push(
      regexProblem(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
        DNS_SUBDOMAIN,
        'example.com',
      ),
    );
  return problems;
}

export function dns1035LabelProblems(value: string): Problems {
  const long = value.length > 63;
  if (!long && dns1035.test(value)) return NONE;
  const problems = long ? [tooLongProblem(63)] : [];
  if (!dns1035.test(value))
    problems.push(
      regexProblem(
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
        DNS_1035,
        'my-name',
        'abc-123',
      ),
    );
  return problems;
}

export function wildcardSubdomainProblems(value: string): Problems {
  const fine = value.startsWith('*.') && dnsSubdomain.test(value.slice(2));
  const problems = value.length > 253 ? [tooLongProblem(253)] : [];
  if (!fine)
    problems.push(
      regexProblem(
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
        `\\*\\.${DNS_SUBDOMAIN}`,
        '*.example.com',
      ),
    );
  return problems;
}

/** Names that become one segment of a URL: RBAC objects, events' old names and the like. */
export function pathSegmentProblems(name: string, prefix = false): Problems {
  const problems: string[] = [];
  if (!prefix) {
    if (name === '.' || name === '..') return [`may not be '${name}'`];
  }
  for (const text of ['/', '%']) if (name.includes(text)) problems.push(`may not contain '${text}'`);
  return problems.length ? problems : NONE;
}

/** A name that may be `generateName`: a dash at the end is masked, as upstream does. */
export function maskTrailingDash(name: string): string {
  return name.length > 1 && name.endsWith('-') ? `${name.slice(0, -2)}a` : name;
}

export type NameRule = (name: string, prefix: boolean) => Problems;
export const subdomainName: NameRule = (name, prefix) => dnsSubdomainProblems(prefix ? maskTrailingDash(name) : name);
export const labelName: NameRule = (name, prefix) => dnsLabelProblems(prefix ? maskTrailingDash(name) : name);
export const dns1035Name: NameRule = (name, prefix) => dns1035LabelProblems(prefix ? maskTrailingDash(name) : name);
export const pathSegmentName: NameRule = pathSegmentProblems;

export function portNumberProblems(port: number): Problems {
  return Number.isInteger(port) && port >= 1 && port <= 65535 ? NONE : [rangeProblem(1, 65535)];
}

/** IANA_SVC_NAME: at most 15 of a-z, 0-9 and '-', with a letter. */
export function portNameProblems(port: string): Problems {
  if (port.length <= 15 && /^(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$/.test(port)) return NONE;
  const problems: string[] = [];
  if (port.length > 15) problems.push(tooLongProblem(15));
  if (!/^[-a-z0-9]+$/.test(port))
    problems.push('must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)');
  if (!/[a-z]/.test(port)) problems.push('must contain at least one letter (a-z)');
  if (port.includes('--')) problems.push('must not contain consecutive hyphens');
  if (port.startsWith('-') || port.endsWith('-')) problems.push('must not begin or end with a hyphen');
  return problems;
}

export function cIdentifierProblems(value: string): Problems {
  if (/^[A-Za-z_][A-Za-z0-9_]*$/.test(value)) return NONE;
  return [
    regexProblem(
      "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
      '[A-Za-z_][A-Za-z0-9_]*',
      'my_name',
      'MY_NAME',
      'MyName',
    ),
  ];
}

/** The rule since v1.34: any printable ASCII but '='. */
export function environmentNameProblems(value: string): Problems {
  if (/^[ -<>-~]+$/.test(value)) return NONE;
  if (value === '') return ['environment variable name must be non-empty'];
  return ["a valid environment variable name must consist only of printable ASCII characters other than '='"];
}

function parentPathProblems(value: string): string[] {
  if (value === '.') return ["must not be '.'"];
  if (value === '..') return ["must not be '..'"];
  return value.startsWith('..') ? ["must not start with '..'"] : [];
}

export function configKeyProblems(value: string): Problems {
  if (value.length <= 253 && !value.startsWith('.') && /^[-._a-zA-Z0-9]+$/.test(value)) return NONE;
  const problems: string[] = [];
  if (value.length > 253) problems.push(tooLongProblem(253));
  if (!/^[-._a-zA-Z0-9]+$/.test(value))
    problems.push(
      regexProblem(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
        '[-._a-zA-Z0-9]+',
        'key.name',
        'KEY_NAME',
        'key-name',
      ),
    );
  problems.push(...parentPathProblems(value));
  return problems;
}

export function headerNameProblems(value: string): Problems {
  if (/^[-A-Za-z0-9]+$/.test(value)) return NONE;
  return [
    regexProblem(
      "a valid HTTP header must consist of alphanumeric characters or '-'",
      '[-A-Za-z0-9]+',
      'X-Header-Name',
    ),
  ];
}

export function isPercent(value: string): boolean {
  return /^[0-9]+%$/.test(value);
}

export function percentProblems(value: string): Problems {
  return isPercent(value)
    ? NONE
    : [
        regexProblem(
          "a valid percent string must be a numeric string followed by an ending '%'",
          '[0-9]+%',
          '1%',
          '93%',
        ),
      ];
}

/** 4, 6 or 0. Leading zeros in octets are refused, as upstream does for new values. */
export function ipFamily(value: string): 0 | 4 | 6 {
  return isIP(value.includes('%') ? '' : value) as 0 | 4 | 6;
}

/** The one spelling of an address (RFC 5952); undefined when it is none. */
export function canonicalIp(value: string): string | undefined {
  const family = ipFamily(value);
  return family === 6 ? new SocketAddress({ address: value, family: 'ipv6' }).address : family ? value : undefined;
}

/** An IPv4 address in the clothes of IPv6 (`::ffff:1.2.3.4`): some read it as the one, some as the other. */
export function isMappedIp(value: string): boolean {
  return /ffff:/i.test(value) && /^::ffff:\d+\.\d+\.\d+\.\d+$/.test(canonicalIp(value) ?? '');
}

/** Whether it would be an address if octets might begin with zeros, as older servers let them. */
function hasLeadingZeros(value: string): boolean {
  const octets = value.split('.');
  return octets.length === 4 && octets.every(octet => /^\d+$/.test(octet) && Number(octet) <= 255);
}

/** Forms that older servers accepted; objects that have them keep them (`forgiveOldForms`). */
export const STRICT_FORM_PROBLEMS = {
  zeros: 'must not have leading 0s',
  zerosInRange: 'must not have leading 0s in IP or prefix length',
  mapped: 'must not be an IPv4-mapped IPv6 address',
  mappedInRange: 'must not have an IPv4-mapped IPv6 address',
  hostBits: 'must not have bits set beyond the prefix length',
};

export function ipProblems(value: string): Problems {
  const family = ipFamily(value);
  if (family === 4) return NONE;
  if (family === 6) return isMappedIp(value) ? [STRICT_FORM_PROBLEMS.mapped] : NONE;
  if (hasLeadingZeros(value)) return [STRICT_FORM_PROBLEMS.zeros];
  return ['must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'];
}

export function cidrProblems(value: string): Problems {
  const slash = value.lastIndexOf('/');
  const address = value.slice(0, Math.max(0, slash));
  const family = ipFamily(address);
  const zeros = !family && hasLeadingZeros(address);
  const length = value.slice(slash + 1);
  if ((!family && !zeros) || !/^\d+$/.test(length) || Number(length) > (family === 6 ? 128 : 32))
    return ['must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'];
  if (zeros || String(Number(length)) !== length) return [STRICT_FORM_PROBLEMS.zerosInRange];
  if (family === 6 && isMappedIp(address)) return [STRICT_FORM_PROBLEMS.mappedInRange];
  const prefix = new IpPrefix(value);
  return prefix.address === prefix.base ? NONE : [STRICT_FORM_PROBLEMS.hostBits];
}
