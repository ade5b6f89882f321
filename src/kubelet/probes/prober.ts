/** What a kind of probe must do: one file a kind, one line in `registry.ts`. */

import type { Container, ProbeHandler } from '../../api/core/v1.gen.ts';

export interface ProbeTarget {
  readonly podIp: string;
  readonly container: Container;
  /** Runs in the container; killed with its children when the signal aborts. `output` holds the first 10 KiB. Rejects where it cannot be run. */
  exec(
    command: readonly string[],
    signal: AbortSignal,
  ): Promise<{ readonly exitCode: number; readonly output: string }>;
}

export interface ProbeOutcome {
  readonly isSuccess: boolean;
  /** What stands behind `Readiness probe failed: `. */
  readonly output: string;
  /** It is healthy, and what is odd is its output. */
  readonly isWarning?: true;
}

export interface Prober<A> {
  readonly action: keyof ProbeHandler;
  /** Never rejects for an unhealthy target, but when there is no telling whether it is. `signal` aborts when the time is over. */
  probe(
    action: A,
    target: ProbeTarget,
    options: { readonly signal: AbortSignal; readonly timeoutSeconds: number },
  ): Promise<ProbeOutcome>;
}

/** A port by number or by the name that the container gives it. */
export function portNumber(port: number | string, container: Container): number {
  if (typeof port === 'number') return port;
  const named =
    container.ports?.find(one => one.name === port)?.containerPort ?? (/^\d+$/.test(port) ? Number(port) : undefined);
  if (named === undefined) throw new Error(`couldn't find port: ${port}`);
  return named;
}

/** As `portNumber`, in the words that a probe has for a name that nobody gave a port. */
export function probePort(port: number | string, container: Container): number {
  try {
    return portNumber(port, container);
  } catch {
    throw new Error(`strconv.Atoi: parsing ${JSON.stringify(port)}: invalid syntax`);
  }
}

export function hostPort(host: string, port: number): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** A connection error in Go's words, which users know. */
export function dialError(error: unknown, address: string): string {
  const code = (error as NodeJS.ErrnoException).code;
  const words: Readonly<Record<string, string>> = {
    ECONNREFUSED: 'connection refused',
    EHOSTUNREACH: 'no route to host',
    ENETUNREACH: 'network is unreachable',
    ECONNRESET: 'connection reset by peer',
    ETIMEDOUT: 'connection timed out',
  };
  return words[code ?? '']
    ? `dial tcp ${address}: connect: ${words[code!]}`
    : `dial tcp ${address}: ${(error as Error).message}`;
}
