/**
 * Who may use an image that was pulled with a secret: `pulled/<image>.json` in the image store's folder says which secrets, and which
 * service accounts by a credential provider, opened which repository (KEP 2535, KubeletEnsureSecretPulledImages). Invariant: an image without a record was loaded by hand. Records
 * are of all nodes of the store, and hold hashes of secrets, never their content.
 */

import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemRandom } from '../../base/random.ts';
import { type Credential, hashOf, type Owner } from './credentials.ts';
import { pullChecks, pulledRecords } from './image-metrics.ts';
import type { ImageSettings } from './image-settings.ts';

interface SecretRecord extends Owner {
  readonly hash: string;
}
interface RepositoryRecord {
  /** Anybody may: it was pulled without a secret of a pod. */
  readonly isOpen: boolean;
  readonly secrets: readonly SecretRecord[];
  readonly serviceAccounts?: readonly Owner[];
}
type ImageRecord = Readonly<Record<string, RepositoryRecord>>;

/** Of each kind. */
const OWNERS_MAX = 100;

const isSame = (a: Owner, b: Owner): boolean => a.uid === b.uid && a.namespace === b.namespace && a.name === b.name;
/** The owner, and those of other names that were there before. */
const newest = <T extends Owner>(owner: T, known: readonly T[] = []): T[] =>
  [owner, ...known.filter(({ namespace, name }) => namespace !== owner.namespace || name !== owner.name)].slice(
    0,
    OWNERS_MAX,
  );

export class PullRecords {
  readonly #dir: string;
  constructor(imageDir: string) {
    this.#dir = join(imageDir, 'pulled');
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
  }

  /** The image was pulled under the repository's name; `credential` is that which opened it, if it is the pod's or its service account's. */
  add(imageId: string, repository: string, credential: Credential | undefined): void {
    const record = this.#read(imageId) ?? {};
    const known = record[repository] ?? { isOpen: false, secrets: [] };
    const { secret, serviceAccount } = credential ?? {};
    const next: RepositoryRecord =
      credential && secret
        ? { ...known, secrets: newest({ ...secret, hash: hashOf(credential) }, known.secrets) }
        : serviceAccount
          ? { ...known, serviceAccounts: newest(serviceAccount, known.serviceAccounts) }
          : { ...known, isOpen: true };
    const path = this.#path(imageId);
    const fresh = `${path}.${systemRandom.next().toString(36).slice(2)}.new`;
    writeFileSync(fresh, JSON.stringify({ ...record, [repository]: next }), { mode: 0o600 });
    renameSync(fresh, path);
    this.#count();
  }

  /** Whether a pod with these credentials may use the image without asking the registry again. */
  isAccessible(
    imageId: string,
    repository: string,
    {
      credentials,
      policy,
    }: { readonly credentials: readonly Credential[]; readonly policy: ImageSettings['verification'] },
  ): boolean {
    const record = policy === 'NeverVerify' ? undefined : this.#read(imageId);
    if (policy === 'NeverVerify' || (!record && policy === 'NeverVerifyPreloadedImages')) {
      pullChecks.add(1, 'credentialPolicyAllowed');
      return true;
    }
    const known = record?.[repository];
    const isKnown = known !== undefined && (known.isOpen || opens(known, credentials));
    pullChecks.add(1, isKnown ? 'credentialRecordFound' : 'mustAuthenticate');
    return isKnown;
  }

  /** Forgets images that are gone. */
  retain(imageIds: ReadonlySet<string>): void {
    for (const file of readdirSync(this.#dir)) {
      const hex = file.replace(/\.json$/, '');
      if (file.endsWith('.json') && !imageIds.has(`sha256:${hex}`)) rmSync(join(this.#dir, file), { force: true });
    }
    this.#count();
  }

  #count(): void {
    pulledRecords.set(readdirSync(this.#dir).filter(file => file.endsWith('.json')).length);
  }
  #path(imageId: string): string {
    return join(this.#dir, `${imageId.replace(/^sha256:/, '')}.json`);
  }
  #read(imageId: string): ImageRecord | undefined {
    try {
      return JSON.parse(readFileSync(this.#path(imageId), 'utf8')) as ImageRecord;
    } catch {
      return undefined;
    }
  }
}

function opens({ secrets, serviceAccounts }: RepositoryRecord, credentials: readonly Credential[]): boolean {
  return credentials.some(credential => {
    const { secret, serviceAccount } = credential;
    // An account's credentials are new ones each time, its uid is not.
    if (serviceAccount) return serviceAccounts?.some(one => isSame(one, serviceAccount));
    const hash = hashOf(credential);
    return secrets.some(one => one.hash === hash || (secret && isSame(one, secret)));
  });
}
