/** tcpSocket: healthy when a connection opens. */

import { connect } from 'node:net';
import type { TCPSocketAction } from '../../api/core/v1.gen.ts';
import { dialError, hostPort, type ProbeOutcome, type Prober, probePort } from './prober.ts';

export const tcpProber: Prober<TCPSocketAction> = {
  action: 'tcpSocket',
  probe({ host, port }, target, { signal }) {
    const to = host || target.podIp;
    const number = probePort(port, target.container);
    const address = hostPort(to, number);
    return new Promise<ProbeOutcome>(resolve => {
      const socket = connect({ host: to, port: number });
      const end = (outcome: ProbeOutcome) => {
        socket.destroy();
        signal.removeEventListener('abort', late);
        resolve(outcome);
      };
      const late = () => end({ isSuccess: false, output: `dial tcp ${address}: i/o timeout` });
      socket.on('connect', () => end({ isSuccess: true, output: '' }));
      socket.on('error', error => end({ isSuccess: false, output: dialError(error, address) }));
      if (signal.aborted) late();
      signal.addEventListener('abort', late, { once: true });
    });
  },
};
