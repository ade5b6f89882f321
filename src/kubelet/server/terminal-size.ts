/** Sizes of a client's terminal, read from the resize stream: JSON objects `{"Width":80,"Height":24}` one after another. */

import type { Readable } from 'node:stream';

export interface TerminalSize {
  readonly width: number;
  readonly height: number;
}

// One object is some 30 bytes.
const PENDING_CHARACTERS_MAX = 4096;

/** Only the newest size matters: older unread ones are skipped, and every waiting `next()` gets the newest. */
export function terminalSizes(stream: Readable): AsyncIterable<TerminalSize> & { close(): void } {
  let text = '';
  let newest: TerminalSize | undefined;
  let ended = false;
  let waiting: ((result: IteratorResult<TerminalSize>) => void)[] = [];
  const settle = () => {
    if (waiting.length === 0 || !(newest || ended)) return;
    const result: IteratorResult<TerminalSize> = newest
      ? { done: false, value: newest }
      : { done: true, value: undefined };
    newest = undefined;
    const resolvers = waiting;
    waiting = [];
    for (const resolve of resolvers) resolve(result);
  };
  const close = () => {
    ended = true;
    settle();
  };
  stream.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
    for (let end = text.indexOf('}'); end >= 0; end = text.indexOf('}')) {
      newest = parseSize(text.slice(0, end + 1)) ?? newest;
      text = text.slice(end + 1);
    }
    if (text.length > PENDING_CHARACTERS_MAX) text = '';
    settle();
  });
  stream.on('end', close);
  stream.on('error', close);
  stream.on('close', close);
  return {
    close,
    [Symbol.asyncIterator]: () => ({
      next: () =>
        new Promise(resolve => {
          waiting.push(resolve);
          settle();
        }),
      return: async () => {
        close();
        return { done: true, value: undefined };
      },
    }),
  };
}

function parseSize(text: string): TerminalSize | undefined {
  try {
    const { Width, Height } = JSON.parse(text) as { Width?: number; Height?: number };
    // A size of zero means that the client does not know.
    return isCells(Width) && isCells(Height) ? { width: Width, height: Height } : undefined;
  } catch {
    return undefined;
  }
}

const isCells = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) > 0 && (value as number) < 65536;
