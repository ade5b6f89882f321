/**
 * What a zone says about itself: its SOA record, and denials with it (NXDOMAIN, NODATA), which resolvers may remember for the
 * time to live stated there. The serial is the second of the last change.
 */

import type { Clock } from '../base/clock.ts';
import { type Answer, AnswerWriter, FLAG, type RCODE, type Section, TYPE } from './message.ts';

const SOA = { refreshSeconds: 7200, retrySeconds: 1800, expireSeconds: 86_400 };
/** Flags of a zone's own answers. */
export const OURS = { flags: FLAG.AA } as const;

export class Authority {
  readonly #ttlSeconds: number;
  readonly #clock: Clock;
  // By length of the name, code and zone: bounded by what a name can be.
  readonly #denials = new Map<string, Answer>();
  #serial: number;

  constructor({ ttlSeconds, clock }: { readonly ttlSeconds: number; readonly clock: Clock }) {
    this.#ttlSeconds = ttlSeconds;
    this.#clock = clock;
    this.#serial = Math.floor(clock.now() / 1000);
  }

  /** Something has changed. */
  renew(): void {
    const serial = Math.floor(this.#clock.now() / 1000);
    if (serial === this.#serial) return;
    this.#serial = serial;
    this.#denials.clear();
  }

  soa(writer: AnswerWriter, section: Section, zone: string): AnswerWriter {
    return writer.record(section, zone, TYPE.SOA, this.#ttlSeconds, out =>
      out
        .name(`ns.dns.${zone}`)
        .name(`hostmaster.${zone}`)
        .uint32(this.#serial)
        .uint32(SOA.refreshSeconds)
        .uint32(SOA.retrySeconds)
        .uint32(SOA.expireSeconds)
        .uint32(this.#ttlSeconds),
    );
  }

  /** `name` in wire form. Its only reference into the question is the zone's offset, so names of one length share an answer. */
  deny(rcode: (typeof RCODE)[keyof typeof RCODE], name: string, zone: string): Answer {
    const key = `${name.length} ${rcode} ${zone}`;
    let answer = this.#denials.get(key);
    if (!answer) {
      // A stand-in of the same length: full labels, and the rest in the last ones.
      let stand = '';
      for (let left = name.length - zone.length - 2; left > 0; ) {
        const label = left > 64 ? Math.min(63, left - 3) : left - 1;
        stand += `${'x'.repeat(label)}.`;
        left -= label + 1;
      }
      answer = this.soa(new AnswerWriter(stand + zone), 'authority', zone).finish({ ...OURS, rcode });
      this.#denials.set(key, answer);
    }
    return answer;
  }
}
