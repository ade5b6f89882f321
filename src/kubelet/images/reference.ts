/**
 * Image references: `nginx`, `quay.example/a/b:1`, `app@sha256:…`. Pure. Normalises as the container world does: no host means
 * docker.io, no path there means `library/`, no tag means `latest`.
 */

export interface ImageReference {
  /** `docker.io/library/nginx` */
  readonly repository: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const HOST = '(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\\[[0-9a-fA-F:]+\\])(?::\\d+)?';
const PATTERN = new RegExp(
  `^((?:${HOST}/)?${COMPONENT}(?:/${COMPONENT})*)(?::([\\w][\\w.-]{0,127}))?(?:@([a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}))?$`,
);

/** Undefined when the text is no reference (upper-case path, blank, stray characters). */
export function parseReference(text: string): ImageReference | undefined {
  const match = PATTERN.exec(text);
  if (!match) return undefined;
  let repository = match[1]!;
  const slash = repository.indexOf('/');
  const head = slash < 0 ? '' : repository.slice(0, slash);
  const hasHost = head !== '' && (/[.:]/.test(head) || head === 'localhost' || head !== head.toLowerCase());
  if (!hasHost) repository = slash < 0 ? `docker.io/library/${repository}` : `docker.io/${repository}`;
  else if (head === 'index.docker.io') repository = `docker.io${repository.slice(slash)}`;
  if (/^docker\.io\/[^/]+$/.test(repository)) repository = repository.replace('docker.io/', 'docker.io/library/');
  const digest = match[3];
  return { repository, tag: match[2] ?? (digest ? undefined : 'latest'), digest };
}

/** The one spelling under which the store files a name: `docker.io/library/nginx:latest`. */
export function formatReference(reference: ImageReference): string {
  return `${reference.repository}${reference.tag ? `:${reference.tag}` : ''}${reference.digest ? `@${reference.digest}` : ''}`;
}
