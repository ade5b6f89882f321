/**
 * Who may use an image that was pulled with a secret: `pulled/<image>.json` in the image store's folder says which secrets opened
 * which repository (KEP 2535, KubeletEnsureSecretPulledImages). Invariant: an image without a record was loaded by hand. Records
 * are of all nodes of the store, and hold hashes of secrets, never their content.
 */

import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemRandom } from '../../base/random.ts';
import { type Credential, hashOf } from './credentials.ts';
import type { ImageSettings } from './image-settings.ts';

interface SecretRecord {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly hash: string;
}
interface RepositoryRecord {
  /** Anybody may: it was pulled without a secret of a pod. */
  readonly isOpen: boolean;
  readonly secrets: readonly SecretRecord[];
}
type ImageRecord = Readonly<Record<string, RepositoryRecord>>;

const SECRETS_MAX = 100;

export class PullRecords {
  readonly #dir: string;
  constructor(imageDir: string) {
    this.#dir = join(imageDir, 'pulled');
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
  }

  /** The image was pulled under the repository's name; `credential` is the pod's that opened it, if one did. */
  add(imageId: string, repository: string, credential: Credential | undefined): void {
    const record = this.#read(imageId) ?? {};
    const known = record[repository] ?? { isOpen: false, secrets: [] };
    const { secret } = credential ?? {};
    const next: RepositoryRecord =
      credential === undefined || !secret
        ? { ...known, isOpen: true }
        : {
            ...known,
            secrets: [
              { ...secret, hash: hashOf(credential) },
              ...known.secrets.filter(({ namespace, name }) => namespace !== secret.namespace || name !== secret.name),
            ].slice(0, SECRETS_MAX),
          };
    const path = this.#path(imageId);
    const fresh = `${path}.${systemRandom.next().toString(36).slice(2)}.new`;
    writeFileSync(fresh, JSON.stringify({ ...record, [repository]: next }), { mode: 0o600 });
    renameSync(fresh, path);
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
    if (policy === 'NeverVerify') return true;
    const record = this.#read(imageId);
    if (!record) return policy === 'NeverVerifyPreloadedImages';
    const known = record[repository];
    if (!known) return false;
    if (known.isOpen) return true;
    return credentials.some(credential => {
      const { secret } = credential;
      const hash = hashOf(credential);
      return known.secrets.some(
        one =>
          one.hash === hash ||
          (secret !== undefined &&
            one.uid === secret.uid &&
            one.namespace === secret.namespace &&
            one.name === secret.name),
      );
    });
  }

  /** Forgets images that are gone. */
  retain(imageIds: ReadonlySet<string>): void {
    for (const file of readdirSync(this.#dir)) {
      const hex = file.replace(/\.json$/, '');
      if (file.endsWith('.json') && !imageIds.has(`sha256:${hex}`)) rmSync(join(this.#dir, file), { force: true });
    }
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
