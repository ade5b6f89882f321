/** How this program starts the process behind ports of 127.0.0.1 (`network/relay-process.ts`): another run of itself. */

import type { RelayStart } from '../network/relay-door.ts';

// It carries bytes only: what they pass through lies outside of the heap.
const FLAGS = ['--max-old-space-size=32', '--max-semi-space-size=1'];

/** `portsAt`: descriptor of the network namespace of its ports; this process's own when absent. */
export function relayStart(portsAt?: number): RelayStart {
  const command = [process.execPath, ...FLAGS, process.argv[1]!, 'relay'];
  return portsAt === undefined ? { command } : { command: [...command, '--namespace=3'], descriptor: portsAt };
}
