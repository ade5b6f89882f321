/** `/healthz`, `/livez` and `/readyz`: named checks, all at once or one by one, in upstream's text form. */

import { countCheck } from '../base/health-metrics.ts';

export interface HealthCheck {
  readonly name: string;
  /** What is wrong; undefined when nothing is. */
  readonly check: () => string | undefined;
  /** Left out of `/livez`: a failure would not be cured by a restart. */
  readonly readinessOnly?: boolean;
}

export class Health {
  readonly #checks: HealthCheck[] = [{ name: 'ping', check: () => undefined }];
  readonly #asked = Promise.withResolvers<void>();

  /** Resolves when somebody was told for the first time that the server is ready. */
  get toldReady(): Promise<void> {
    return this.#asked.promise;
  }

  add(check: HealthCheck): void {
    this.#checks.push(check);
  }
  /** The reply to a path, or undefined for another path. */
  answer(path: string, query: URLSearchParams | undefined): { status: number; text: string } | undefined {
    const match = /^\/(healthz|livez|readyz)(?:\/(.+))?$/.exec(path.replace(/\/$/, ''));
    if (!match) return undefined;
    const [, endpoint = '', only] = match;
    const run = ({ name, check }: HealthCheck): string | undefined => {
      const problem = check();
      countCheck(name, endpoint, problem === undefined);
      return problem;
    };
    const checks = this.#checks.filter(({ readinessOnly }) => !readinessOnly || endpoint === 'readyz');
    if (only !== undefined) {
      const found = checks.find(({ name }) => name === only);
      if (!found) return { status: 404, text: '404 page not found\n' };
      const problem = run(found);
      return problem === undefined
        ? { status: 200, text: 'ok' }
        : { status: 500, text: `internal server error: ${problem}\n` };
    }
    const excluded = new Set(query?.getAll('exclude'));
    let failed = false;
    let text = '';
    for (const check of checks) {
      const { name } = check;
      if (excluded.has(name)) {
        text += `[+]${name} excluded: ok\n`;
        continue;
      }
      const problem = run(check);
      failed ||= problem !== undefined;
      text += problem === undefined ? `[+]${name} ok\n` : `[-]${name} failed: reason withheld\n`;
    }
    if (failed) return { status: 500, text: `${text}${endpoint} check failed\n` };
    if (endpoint === 'readyz') this.#asked.resolve();
    return { status: 200, text: query?.has('verbose') ? `${text}${endpoint} check passed\n` : 'ok' };
  }
}
