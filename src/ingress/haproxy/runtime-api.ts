/**
 * HAProxy's runtime API on its Unix socket: commands in, their answers out, several commands a connection. An answer that is not what
 * the command gives when it works is an error, so that nobody goes on with a state that the process does not have.
 */

import { connect } from 'node:net';

/** The request buffer of HAProxy's command line, less a margin. */
const REQUEST_BYTES_MAX = 15_000;
const ANSWER_MS_MAX = 5000;

export class RuntimeError extends Error {}

/** Sends one request and returns all that is answered until HAProxy closes. */
export function ask(socketPath: string, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    const parts: Buffer[] = [];
    socket.setTimeout(ANSWER_MS_MAX, () => socket.destroy(new RuntimeError('HAProxy does not answer on its socket')));
    socket.on('data', part => parts.push(part as Buffer));
    socket.on('error', reject);
    socket.on('close', () => resolve(Buffer.concat(parts).toString()));
    socket.end(`${request}\n`);
  });
}

export class RuntimeApi {
  readonly #socketPath: string;
  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  ask(request: string): Promise<string> {
    return ask(this.#socketPath, request);
  }

  /** Commands that say nothing, or one of the given lines, when they work. As many as fit go in one request. */
  async run(commands: readonly string[], fine: RegExp = /^$/): Promise<void> {
    for (let at = 0; at < commands.length; ) {
      let request = commands[at]!;
      for (at++; at < commands.length && request.length + commands[at]!.length < REQUEST_BYTES_MAX; at++)
        request += `;${commands[at]}`;
      this.#expect(await this.ask(request), fine, request);
    }
  }

  /** One command with a text of many lines, in portions that fit; none of the lines may be empty. */
  async load(command: string, lines: readonly string[]): Promise<void> {
    for (let at = 0; at < lines.length; ) {
      let payload = '';
      for (; at < lines.length && payload.length + lines[at]!.length < REQUEST_BYTES_MAX - command.length; at++)
        payload += `${lines[at]}\n`;
      if (payload === '') throw new RuntimeError('a line is longer than HAProxy takes');
      this.#expect(await this.ask(`${command} <<\n${payload}`), /^$/, command);
    }
  }

  /** Makes a map hold exactly these entries, at one moment for all. */
  async replaceMap(map: string, entries: Iterable<readonly [string, string]>): Promise<void> {
    const version = /New version created: (\d+)/.exec(await this.ask(`prepare map ${map}`))?.[1];
    if (version === undefined) throw new RuntimeError(`no new version of ${map} was made`);
    await this.load(
      `add map @${version} ${map}`,
      [...entries].map(([key, value]) => `${key} ${value}`),
    );
    await this.run([`commit map @${version} ${map}`]);
  }

  #expect(answer: string, fine: RegExp, request: string): void {
    const bad = answer.split('\n').find(line => line !== '' && !fine.test(line));
    if (bad !== undefined) throw new RuntimeError(`${bad} (after: ${request.split('\n')[0]!.slice(0, 200)})`);
  }
}
