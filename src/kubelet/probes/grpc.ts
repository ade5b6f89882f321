/** grpc: asks the standard health service (grpc.health.v1.Health/Check) over plain HTTP/2. The one message is encoded by hand. */

import { connect } from 'node:http2';
import type { GRPCAction } from '../../api/core/v1.gen.ts';
import { hostPort, type ProbeOutcome, type Prober } from './prober.ts';

const STATUSES = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];
const UNIMPLEMENTED = '12';

export function encodeRequest(service: string): Buffer {
  const name = Buffer.from(service);
  // Field 1, length-delimited; names are short, but a length takes seven bits a byte.
  const length: number[] = [];
  for (let left = name.length; ; left >>>= 7) {
    length.push(left > 127 ? (left & 127) | 128 : left);
    if (left <= 127) break;
  }
  const message = name.length ? Buffer.concat([Buffer.from([0x0a, ...length]), name]) : Buffer.alloc(0);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Field 1 of the reply as a name; an absent field is 0. */
export function decodeReply(frame: Buffer): string {
  const message = frame.subarray(5);
  return STATUSES[message[0] === 0x08 ? message[1]! : 0] ?? 'UNKNOWN';
}

export const grpcProber: Prober<GRPCAction> = {
  action: 'grpc',
  probe({ port, service }, target, { signal, timeoutSeconds }) {
    const address = hostPort(target.podIp, port);
    return new Promise<ProbeOutcome>(resolve => {
      const session = connect(`http://${address}`);
      const end = (isSuccess: boolean, output: string) => {
        signal.removeEventListener('abort', late);
        session.destroy();
        resolve({ isSuccess, output });
      };
      const late = () =>
        end(
          false,
          `timeout: failed to connect service ${JSON.stringify(address)} within ${timeoutSeconds}s: context deadline exceeded`,
        );
      signal.addEventListener('abort', late, { once: true });
      session.on('error', error =>
        end(false, `error: failed to connect service ${JSON.stringify(address)}: ${error.message}`),
      );
      const stream = session.request({
        ':method': 'POST',
        ':path': '/grpc.health.v1.Health/Check',
        'content-type': 'application/grpc',
        te: 'trailers',
        'user-agent': 'kube-probe/1.36',
      });
      const parts: Buffer[] = [];
      let status = '0';
      let message = '';
      const note = (headers: Readonly<Record<string, unknown>>) => {
        status = String(headers['grpc-status'] ?? status);
        message = String(headers['grpc-message'] ?? message);
      };
      stream.on('response', note);
      stream.on('trailers', note);
      stream.on('data', (part: Buffer) => parts.push(part));
      stream.on('error', error => end(false, `error: health rpc probe failed: ${error.message}`));
      stream.on('end', () => {
        if (status === UNIMPLEMENTED)
          return end(
            false,
            `error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ${message}`,
          );
        if (status !== '0')
          return end(false, `error: health rpc probe failed: rpc error: code = ${status} desc = ${message}`);
        const health = decodeReply(Buffer.concat(parts));
        end(
          health === 'SERVING',
          health === 'SERVING' ? 'service healthy' : `service unhealthy (responded with ${JSON.stringify(health)})`,
        );
      });
      stream.end(encodeRequest(service ?? ''));
    });
  },
};
