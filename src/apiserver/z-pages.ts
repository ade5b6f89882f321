/**
 * `/statusz` and `/flagz` (KEPs 4827 and 4828): how long a component runs in which version, and the options that it was given. Text
 * for people; whoever names `config.k8s.io`, a version and the kind gets an object. Other forms are refused with 406.
 */

import { type Clock, formatTime } from '../base/clock.ts';
import { KUBERNETES_VERSION } from '../base/cluster-defaults.ts';
import { failure } from '../base/errors.ts';
import type { ZPage, ZPageSource } from '../base/z-page.ts';
import { clausesOf, encodeBody, type Format, mediaTypeOf } from './negotiation.ts';

const KINDS: Readonly<Record<string, string>> = { '/statusz': 'Statusz', '/flagz': 'Flagz' };
const STRUCTURED: readonly Format[] = ['json', 'yaml', 'cbor'];
const NEWEST = 'v1beta1';
const VERSIONS = new Set([NEWEST, 'v1alpha1']);
/** First parts of paths that are of no use to whoever looks for a fault. */
const OTHER_PATHS = new Set(['/api', '/apis', '/openid', '/openapi', '/.well-known', '/']);
const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

export class ZPages implements ZPageSource {
  readonly #clock: Clock;
  readonly #startMs: number;
  readonly #options: ZPageOptions;

  constructor(options: ZPageOptions) {
    this.#clock = options.clock;
    this.#startMs = options.startMs ?? options.clock.now();
    this.#options = options;
  }

  /** The page at the path, undefined for other paths. Throws NotAcceptable. */
  find(path: string, accept: string | undefined): ZPage | undefined {
    const kind = KINDS[path];
    if (!kind) return undefined;
    const wanted = negotiate(kind, accept);
    if (wanted === 'text')
      return {
        headers: { 'content-type': 'text/plain; charset=utf-8' },
        bytes: Buffer.from(
          `\n${this.#options.component} ${path.slice(1)}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n${kind === 'Flagz' ? this.#flagsText() : this.#statusText()}`,
        ),
      };
    const { format, version } = wanted;
    const object = {
      kind,
      apiVersion: `config.k8s.io/${version}`,
      metadata: { name: this.#options.component },
      ...(kind === 'Flagz' ? { flags: this.#options.flags } : this.#status()),
    };
    const old = `This version of the ${path.slice(1)} endpoint is deprecated. Please use a newer version.`;
    return {
      headers: {
        'content-type': mediaTypeOf({ format }),
        ...(version === NEWEST ? {} : { warning: `299 - "${old}"` }),
      },
      bytes: encodeBody(object, format),
    };
  }

  #flagsText(): string {
    return Object.entries(this.#options.flags)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => `${name}=${value}\n`)
      .join('');
  }
  #status(): { startTime: string; uptimeSeconds: number; goVersion: string; paths: string[] } & Versions {
    const { paths } = this.#options;
    const { major, minor, git } = KUBERNETES_VERSION;
    const folders = new Set(paths().map(path => `/${path.split('/')[1]}`));
    return {
      startTime: formatTime(this.#startMs),
      uptimeSeconds: Math.max(0, Math.floor((this.#clock.now() - this.#startMs) / 1000)),
      goVersion: 'none',
      binaryVersion: git.replace(/^v/, ''),
      emulationVersion: `${major}.${minor}`,
      paths: [...folders].filter(folder => !OTHER_PATHS.has(folder)).sort(),
    };
  }
  #statusText(): string {
    const { uptimeSeconds: up, goVersion, binaryVersion, emulationVersion, paths } = this.#status();
    const two = (value: number) => String(value).padStart(2, '0');
    return `
Started: ${unixDate(this.#startMs)}
Up: ${Math.floor(up / 3600)} hr ${two(Math.floor(up / 60) % 60)} min ${two(up % 60)} sec
Go version: ${goVersion}
Binary version: ${binaryVersion}
Emulation version: ${emulationVersion}
Paths: ${paths.join(' ')}
`;
  }
}

interface Versions {
  readonly binaryVersion: string;
  readonly emulationVersion: string;
}

export interface ZPageOptions {
  /** `kube-apiserver`. */
  readonly component: string;
  readonly clock: Clock;
  /** When it started; default now. */
  readonly startMs?: number;
  /** By name, without their dashes. */
  readonly flags: Readonly<Record<string, string>>;
  /** All that the server answers to. */
  readonly paths: () => readonly string[];
}

function negotiate(kind: string, accept: string | undefined): 'text' | { format: Format; version: string } {
  if (!accept?.trim()) return 'text';
  for (const { type, subtype, parameters } of clausesOf(accept)) {
    const as = parameters.get('as');
    const version = parameters.get('v') ?? '';
    if (as === undefined) {
      if (type === '*' || (type === 'text' && (subtype === 'plain' || subtype === '*'))) return 'text';
    } else if (as === kind && parameters.get('g') === 'config.k8s.io' && VERSIONS.has(version)) {
      const format = STRUCTURED.find(
        one => type === '*' || subtype === '*' || `${type}/${subtype}` === mediaTypeOf({ format: one }),
      );
      if (format) return { format, version };
    }
  }
  const types = [...STRUCTURED.map(format => mediaTypeOf({ format })), 'text/plain'].join(', ');
  throw failure(406, 'NotAcceptable', `only the following media types are accepted: ${types}`, {});
}

/** As `date` prints it. */
function unixDate(ms: number): string {
  const date = new Date(ms);
  const day = String(date.getUTCDate()).padStart(2);
  return `${DAYS[date.getUTCDay()]} ${MONTHS[date.getUTCMonth()]} ${day} ${date.toISOString().slice(11, 19)} UTC ${date.getUTCFullYear()}`;
}
