/**
 * Credentials for registries out of docker configuration (`.dockerconfigjson`, `.dockercfg`, a node's config.json), and which of
 * them an image's repository asks for, by upstream's rules: globs in each part of the host, equal ports, a path as prefix, the most
 * specific entry first. Pure. It refuses entries that it cannot read, telling why without their content.
 */

import { createHash } from 'node:crypto';

export interface Credential {
  readonly username?: string;
  readonly password?: string;
  /** OAuth2 refresh token, exchanged at the registry's token server. */
  readonly identityToken?: string;
  /** Sent as it is. */
  readonly registryToken?: string;
  /** The Secret it came from. */
  readonly secret?: Owner;
  /** The service account with whose token a credential provider was asked for it. */
  readonly serviceAccount?: Owner;
}

/** An object that a credential came from. */
export interface Owner {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
}

interface AuthEntry {
  readonly username?: unknown;
  readonly password?: unknown;
  readonly auth?: unknown;
  readonly identitytoken?: unknown;
  readonly registrytoken?: unknown;
}

/** What registries call Docker Hub in such files. */
const HUB_HOSTS = ['docker.io', 'index.docker.io', 'registry-1.docker.io'];

export class Keyring {
  readonly #entries: { readonly host: string; readonly path: string; readonly credential: Credential }[] = [];

  /** Adds the text of a docker configuration: with `auths` at its top, or (the old `.dockercfg`) the entries themselves. Throws when it is no such thing. */
  add(
    text: string,
    {
      form,
      ...owner
    }: { readonly form: 'dockerconfigjson' | 'dockercfg'; readonly secret?: Owner; readonly serviceAccount?: Owner },
  ): void {
    let parsed: unknown;
    try {
      parsed = JSON.parse(text);
    } catch {
      throw new Error('not JSON');
    }
    const auths = form === 'dockercfg' ? parsed : (parsed as { auths?: unknown } | null)?.auths;
    if (auths === undefined || auths === null) return;
    if (typeof auths !== 'object') throw new Error('"auths" is not an object');
    for (const [location, entry] of Object.entries(auths as Record<string, AuthEntry>)) {
      const credential = credentialOf(entry, location);
      const place = placeOf(location);
      if (!credential || !place) continue;
      this.#entries.push({
        ...place,
        credential: { ...credential, ...owner },
      });
    }
    // The most specific first: more of a path, then the longer host; globs last.
    const weight = ({ host, path }: { host: string; path: string }) =>
      [path.length, host.includes('*') ? 0 : 1, host.length] as const;
    this.#entries.sort((a, b) => {
      const [x, y] = [weight(a), weight(b)];
      return y[0] - x[0] || y[1] - x[1] || y[2] - x[2];
    });
  }

  /** For a normalised repository, `docker.io/library/nginx`; the same credential once. */
  lookup(repository: string): Credential[] {
    const slash = repository.indexOf('/');
    const host = repository.slice(0, slash);
    const path = repository.slice(slash);
    const found = this.#entries.filter(entry => {
      const hosts = HUB_HOSTS.includes(host) ? HUB_HOSTS : [host];
      return hosts.some(one => hostMatches(entry.host, one)) && path.startsWith(entry.path);
    });
    const seen = new Set<string>();
    return found
      .map(({ credential }) => credential)
      .filter(credential => {
        const key = hashOf(credential);
        if (seen.has(key)) return false;
        seen.add(key);
        return true;
      });
  }
}

/** The same for equal credentials wherever they came from. */
export function hashOf({ secret: _, serviceAccount: __, ...credential }: Credential): string {
  const sorted = Object.entries(credential).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex');
}

function credentialOf(entry: AuthEntry | null, location: string): Credential | undefined {
  if (entry === null || typeof entry !== 'object')
    throw new Error(`the entry of ${JSON.stringify(location)} is not an object`);
  const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);
  let username = text(entry.username);
  let password = text(entry.password);
  const auth = text(entry.auth);
  if (auth !== undefined) {
    const decoded = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '');
    const colon = decoded.indexOf(':');
    if (colon < 0) throw new Error(`the "auth" of ${JSON.stringify(location)} is not base64 of user:password`);
    username = decoded.slice(0, colon);
    password = decoded.slice(colon + 1);
  }
  const identityToken = text(entry.identitytoken);
  const registryToken = text(entry.registrytoken);
  if (username === undefined && identityToken === undefined && registryToken === undefined) return undefined;
  return {
    ...(username === undefined ? {} : { username, password: password ?? '' }),
    ...(identityToken === undefined ? {} : { identityToken }),
    ...(registryToken === undefined ? {} : { registryToken }),
  };
}

/** `https://index.docker.io/v1/` → host and path; a version path says nothing. */
function placeOf(location: string): { host: string; path: string } | undefined {
  const bare = location.trim().replace(/^https?:\/\//, '');
  const slash = bare.indexOf('/');
  const host = slash < 0 ? bare : bare.slice(0, slash);
  const path = (slash < 0 ? '' : bare.slice(slash)).replace(/^\/v[12](\/|$)/, '/').replace(/\/+$/, '');
  return host === '' ? undefined : { host, path };
}

/** Whether a pattern such as `*.registry.example:5000/team` is one of the repository. */
export function matchesLocation(pattern: string, repository: string): boolean {
  const slash = repository.indexOf('/');
  const at = pattern.indexOf('/');
  const [host, path] = at < 0 ? [pattern, ''] : [pattern.slice(0, at), pattern.slice(at)];
  return hostMatches(host, repository.slice(0, slash)) && repository.slice(slash).startsWith(path);
}

/** Upstream's URLsMatch: as many labels, each a glob of its own, equal ports. */
function hostMatches(pattern: string, host: string): boolean {
  const [patternName, patternPort] = splitPort(pattern);
  const [name, port] = splitPort(host);
  if (patternPort !== port) return false;
  const globs = patternName.split('.');
  const labels = name.split('.');
  return globs.length === labels.length && globs.every((glob, i) => globMatches(glob, labels[i]!));
}

function splitPort(host: string): [name: string, port: string] {
  const match = /^(\[.*\]|[^:]*)(?::(\d+))?$/.exec(host);
  return match ? [match[1]!, match[2] ?? ''] : [host, ''];
}

function globMatches(glob: string, label: string): boolean {
  const source = [...glob].map(c =>
    c === '*' ? '[^.]*' : c === '?' ? '[^.]' : c.replace(/[\\^$.|+()[\]{}]/g, '\\$&'),
  );
  return new RegExp(`^${source.join('')}$`).test(label);
}
