/** The file of `--encryption-provider-config` (apiserver.config.k8s.io/v1 EncryptionConfiguration): its shape and what upstream refuses in it. */

import { durationMs, Problems, parseDocument, type Shape } from '../configuration/document.ts';
import { aesCbc, aesGcm, type Envelope, IDENTITY, secretBox } from './envelope.ts';
import { KeyService } from './key-service.ts';

interface Key {
  readonly name: string;
  readonly secret: string;
}

interface KeyServiceConfiguration {
  readonly apiVersion?: string;
  readonly name?: string;
  readonly endpoint?: string;
  readonly timeout?: string;
}

interface Provider {
  readonly identity?: object;
  readonly aesgcm?: { readonly keys: readonly Key[] };
  readonly aescbc?: { readonly keys: readonly Key[] };
  readonly secretbox?: { readonly keys: readonly Key[] };
  readonly kms?: KeyServiceConfiguration;
}

interface Configuration {
  readonly resources: readonly { readonly resources: readonly string[]; readonly providers: readonly Provider[] }[];
}

/** Resources by `name.group` as the file has them, and how they are kept: the first envelope writes, all of them read. */
export interface EncryptionRule {
  readonly resources: readonly string[];
  readonly envelopes: readonly Envelope[];
}

const KEYS: Shape = { keys: [{ name: 'string', secret: 'string' }] };
const KEY_SERVICE: Shape = { apiVersion: 'string', name: 'string', endpoint: 'string', timeout: 'string' };
const SHAPE: { readonly [field: string]: Shape } = {
  resources: [
    {
      resources: ['string'],
      providers: [{ identity: {}, aesgcm: KEYS, aescbc: KEYS, secretbox: KEYS, kms: KEY_SERVICE }],
    },
  ],
};

const KINDS = {
  aesgcm: { sizes: [16, 24, 32], make: aesGcm },
  aescbc: { sizes: [16, 24, 32], make: aesCbc },
  secretbox: { sizes: [32], make: secretBox },
} as const;
const NAMES = ['identity', ...Object.keys(KINDS), 'kms'];

/** Throws ConfigurationError. Keys are never part of what it says. */
export async function parseEncryptionConfiguration(text: string): Promise<readonly EncryptionRule[]> {
  const { resources: groups = [] } = await parseDocument<Configuration>(text, {
    kind: 'EncryptionConfiguration',
    apiVersions: ['apiserver.config.k8s.io/v1'],
    shape: SHAPE,
  });
  const problems = new Problems();
  if (groups.length === 0) problems.required('resources', 'provider list can not be empty');
  const seen = new Set<string>();
  const services: Services = new Map();
  const rules = groups.map(({ resources = [], providers = [] }, at) => {
    const path = `resources[${at}]`;
    if (resources.length === 0) problems.required(`${path}.resources`, 'resources list is empty');
    for (const [index, resource] of resources.entries())
      checkResource(resource, { path: `${path}.resources[${index}]`, seen, problems });
    if (providers.length === 0) problems.required(`${path}.providers`, 'provider list can not be empty');
    const envelopes = providers.flatMap((provider, index) =>
      envelopesOf(provider ?? {}, `${path}.providers[${index}]`, { problems, services }),
    );
    return { resources, envelopes };
  });
  problems.throwIfAny();
  return rules;
}

function checkResource(
  resource: string,
  { path, seen, problems }: { readonly path: string; readonly seen: Set<string>; readonly problems: Problems },
): void {
  if (seen.has(resource)) problems.duplicate(path, resource);
  seen.add(resource);
  if (resource === '*')
    problems.invalid(
      path,
      resource,
      "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
    );
  else if (!/^(\*|[a-z][-a-z0-9]*)(\.(\*|[-a-z0-9.]*))?$/.test(resource) || /^[^*].*\*/.test(resource))
    problems.invalid(path, resource, 'must be of the form resource, resource.group, *.group, *. or *.*');
  else if (resource.toLowerCase() !== resource) problems.invalid(path, resource, 'resource name should be lowercase');
}

/** One for each name and endpoint, though several rules may name it. */
type Services = Map<string, KeyService>;

function keyServicesOf(
  { apiVersion = 'v1', name = '', endpoint = '', timeout = '3s' }: KeyServiceConfiguration,
  { path, problems, services }: { readonly path: string; readonly problems: Problems; readonly services: Services },
): Envelope[] {
  const before = problems.count;
  if (apiVersion !== 'v2')
    problems.invalid(
      `${path}.apiVersion`,
      apiVersion,
      'only v2 is supported; KMS v1 is deprecated and disabled by default',
    );
  if (!name) problems.required(`${path}.name`, 'kms provider name is a required field');
  else if (name.includes(':'))
    problems.invalid(`${path}.name`, name, 'invalid kms provider name, kms provider names must not contain ":"');
  const socket = endpoint.startsWith('unix://') ? endpoint.slice('unix://'.length) : '';
  if (!endpoint) problems.required(`${path}.endpoint`, 'endpoint is a required field');
  // An address @name lies in Linux' abstract name space.
  else if (!/^(\/|@)./.test(socket))
    problems.invalid(`${path}.endpoint`, endpoint, 'unsupported scheme for kms provider: it must be unix:///PATH');
  const timeoutMs = durationMs(timeout);
  if (timeoutMs === undefined || timeoutMs <= 0)
    problems.invalid(`${path}.timeout`, timeout, 'should be a positive value');
  if (problems.count > before) return [];
  const known = services.get(name);
  if (known) return [known];
  const service = new KeyService({ name, socket: socket.replace(/^@/, '\0'), timeoutMs: timeoutMs! });
  services.set(name, service);
  return [service];
}

function envelopesOf(
  provider: Provider,
  path: string,
  { problems, services }: { readonly problems: Problems; readonly services: Services },
): Envelope[] {
  const given = Object.entries(provider).filter(([, value]) => value !== undefined && value !== null);
  if (given.length !== 1) {
    problems.invalid(
      path,
      given.map(([name]) => name),
      `provider needs exactly one of ${NAMES.join(', ')}`,
    );
    return [];
  }
  const [name, value] = given[0]!;
  if (name === 'identity') return [IDENTITY];
  if (name === 'kms')
    return keyServicesOf(value as KeyServiceConfiguration, { path: `${path}.kms`, problems, services });
  const { sizes, make } = KINDS[name as keyof typeof KINDS];
  const { keys = [] } = value as { keys?: readonly Key[] };
  if (keys.length === 0) problems.required(`${path}.${name}.keys`);
  const names = new Set<string>();
  return keys.flatMap((key, at) => {
    const where = `${path}.${name}.keys[${at}]`;
    if (!key.name) problems.required(`${where}.name`);
    else if (key.name.includes(':')) problems.invalid(`${where}.name`, key.name, 'must not contain a colon');
    if (names.has(key.name)) problems.duplicate(`${where}.name`, key.name);
    names.add(key.name);
    const secret = Buffer.from(key.secret ?? '', 'base64');
    if (!key.secret) problems.required(`${where}.secret`);
    else if (!/^[A-Za-z0-9+/]+={0,2}$/.test(key.secret))
      problems.invalid(`${where}.secret`, 'REDACTED', 'secret is not base64 encoded');
    else if (!(sizes as readonly number[]).includes(secret.length))
      problems.invalid(
        `${where}.secret`,
        'REDACTED',
        `secret is not of the expected length, got ${secret.length}, expected one of [${sizes.join(' ')}]`,
      );
    else return [{ prefix: `k8s:enc:${name}:v1:${key.name}:`, ...make(secret) }];
    return [];
  });
}
