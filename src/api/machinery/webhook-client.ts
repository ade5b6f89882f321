/** How a webhook is reached, in admission and in conversion alike: by an https URL, or by a Service with a path. */

import { X509Certificate } from 'node:crypto';
import { dnsSubdomainProblems, portNumberProblems } from './names.ts';
import { addInvalid, addRequired, type Errors, requireText } from './validation.ts';

const FORM = '; desired format: https://host[/path]';

export interface WebhookClient {
  readonly url?: string;
  readonly service?: {
    readonly namespace?: string;
    readonly name?: string;
    readonly path?: string;
    readonly port?: number;
  };
}

export function checkWebhookClient(errors: Errors, path: string, client: WebhookClient): void {
  const { url, service } = client;
  if ((url === undefined) === (service === undefined))
    addRequired(errors, path, 'exactly one of url or service is required');
  else if (url !== undefined) checkUrl(errors, `${path}.url`, url);
  else checkService(errors, `${path}.service`, service!);
}

const PEM_BLOCK = /-----BEGIN ([^\n]*?)-----\r?\n([\s\S]*?)-----END \1-----/g;

/** What is wrong with the authorities that a webhook's certificate is checked by, in base64; none are the system's. */
export function caBundleProblem(bundle: string | undefined): string | undefined {
  const text = Buffer.from(bundle ?? '', 'base64').toString('latin1');
  if (text === '') return undefined;
  const problem = 'unable to load root certificates:';
  const blocks = [...text.matchAll(PEM_BLOCK)];
  if (blocks.length === 0) return `${problem} unable to parse bytes as PEM block`;
  // Go passes over blocks with headers.
  const certificates = blocks.filter(([, type, body]) => type === 'CERTIFICATE' && !body!.includes(':'));
  if (certificates.some(([block]) => isCertificate(block))) return undefined;
  if (certificates.length > 0) return `${problem} failed to parse certificate: x509: malformed certificate`;
  return `${problem} no valid certificate authority data seen`;
}

function isCertificate(block: string): boolean {
  try {
    new X509Certificate(block);
    return true;
  } catch {
    return false;
  }
}

/** As Go tells the parts apart: what has no scheme has no host either. */
function checkUrl(errors: Errors, path: string, text: string): void {
  const [, scheme = '', authority = '', rest = ''] =
    /^(?:([a-z][a-z0-9+.-]*):)?(?:\/\/([^/?#]*))?(.*)$/is.exec(text) ?? [];
  if (scheme.toLowerCase() !== 'https')
    addInvalid(errors, path, scheme.toLowerCase(), `'https' is the only allowed URL scheme${FORM}`);
  const at = authority.lastIndexOf('@');
  if (authority.length === at + 1) addInvalid(errors, path, '', `host must be provided${FORM}`);
  if (at >= 0) addInvalid(errors, path, authority.slice(0, at), 'user information is not permitted in the URL');
  const [beforeFragment = '', fragment = ''] = splitOnce(rest, '#');
  const query = splitOnce(beforeFragment, '?')[1] ?? '';
  if (fragment) addInvalid(errors, path, fragment, 'fragments are not permitted in the URL');
  if (query) addInvalid(errors, path, query, 'query parameters are not permitted in the URL');
}

function checkService(errors: Errors, path: string, service: NonNullable<WebhookClient['service']>): void {
  requireText(errors, `${path}.name`, service.name, 'service name is required');
  requireText(errors, `${path}.namespace`, service.namespace, 'service namespace is required');
  const problems = portNumberProblems(service.port ?? 443);
  if (problems.length > 0)
    addInvalid(errors, `${path}.port`, service.port, `port is not valid: ${problems.join(', ')}`);
  const url = service.path ?? '';
  if (url === '' || url === '/') return;
  const at = `${path}.path`;
  if (url === '//') {
    addInvalid(errors, at, url, 'segment[0] may not be empty');
    return;
  }
  if (!url.startsWith('/')) addInvalid(errors, at, url, "must start with a '/'");
  const segments = url.slice(1).replace(/\/$/, '').split('/');
  segments.forEach((segment, index) => {
    if (segment === '') addInvalid(errors, at, url, `segment[${index}] may not be empty`);
    else
      for (const problem of dnsSubdomainProblems(segment)) addInvalid(errors, at, url, `segment[${index}]: ${problem}`);
  });
}

function splitOnce(text: string, mark: string): [string, string?] {
  const at = text.indexOf(mark);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + mark.length)];
}
