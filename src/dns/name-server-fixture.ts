/** An upstream name server for tests: answers on a free port of 127.0.0.1 over UDP and TCP as it is told, and counts. */

import { randomInt } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { Query, UDP_BYTES_MAX, writeReply } from './message.ts';
import { parseRecord } from './record-text.ts';
import { answerOf, textOf } from './records.ts';
import { framed } from './upstream.ts';

export interface Told {
  /** As in a zone file. */
  readonly answers?: readonly string[];
  readonly authority?: readonly string[];
  readonly rcode?: number;
}

const LOCALHOST = '127.0.0.1';

export class NameServerFixture {
  /** Undefined: silence. */
  answer: (name: string, type: number) => Told | undefined;
  /** Names asked, except for looks whether it lives. */
  readonly asked: string[] = [];
  readonly #udp: Socket;
  readonly #tcp: Server;

  private constructor(answer: NameServerFixture['answer'], udp: Socket, tcp: Server) {
    this.answer = answer;
    this.#udp = udp;
    this.#tcp = tcp;
    udp.on('message', (message, { port, address }) => {
      const reply = this.#reply(message, 'udp');
      if (reply) udp.send(reply, port, address);
    });
    tcp.on('connection', socket => {
      socket.on('error', () => {});
      socket.on('data', (chunk: Buffer) => {
        const reply = this.#reply(chunk.subarray(2), 'tcp');
        if (reply) socket.write(framed(reply));
      });
    });
  }

  static async start(
    answer: NameServerFixture['answer'],
    t: { after(fn: () => void): void },
  ): Promise<NameServerFixture> {
    const { udp, tcp } = await onePort();
    const server = new NameServerFixture(answer, udp, tcp);
    t.after(() => server.close());
    return server;
  }
  get address(): string {
    return `${LOCALHOST}:${this.#udp.address().port}`;
  }
  close(): void {
    try {
      this.#udp.close();
    } catch {
      // A test has closed it.
    }
    this.#tcp.close();
  }

  #reply(message: Buffer, via: 'udp' | 'tcp'): Buffer | undefined {
    const query = new Query();
    if (query.parse(message, 0, message.length) !== 0) return undefined;
    const name = textOf(query.name);
    if (name !== '') this.asked.push(`${via} ${name}`);
    const told = this.answer(name, query.type);
    if (!told) return undefined;
    const { answers = [], authority = [], rcode = 0 } = told;
    const records = [
      ...answers.map(text => parseRecord('answer', text)),
      ...authority.map(text => parseRecord('authority', text)),
    ];
    const out = Buffer.alloc(65_535);
    const bytesMax = via === 'tcp' ? 65_535 : Math.min(query.udpBytesMax, UDP_BYTES_MAX);
    const answer = answerOf(query.name, records, { rcode });
    return out.subarray(0, writeReply(query, answer, message, 0, out, 0, { bytesMax, turn: 0 }));
  }
}

/** A port that is free for both protocols: the one that UDP was given may be somebody's over TCP. */
async function onePort(): Promise<{ udp: Socket; tcp: Server }> {
  for (let tries = 0; ; tries++) {
    const udp = createSocket('udp4');
    const tcp = createServer();
    try {
      // Below those that the kernel gives to connections, which may take one from a test at any moment.
      udp.bind(randomInt(20_000, 32_000), LOCALHOST);
      await once(udp, 'listening');
      tcp.listen(udp.address().port, LOCALHOST);
      await once(tcp, 'listening');
      return { udp, tcp };
    } catch (error) {
      udp.close();
      if (tries > 20) throw error;
    }
  }
}

/** A port that was free for both protocols a moment ago. */
export async function freePort(): Promise<number> {
  const { udp, tcp } = await onePort();
  const { port } = udp.address();
  udp.close();
  tcp.close();
  await once(tcp, 'close');
  return port;
}
