/**
 * Requests of all connections that came in one turn of the event loop, answered together when every socket has been read:
 * reading and deciphering, then deciding, then writing each find their code and data in the processor's caches, which one request after
 * the other, from socket to socket, would not. Nobody waits: the turn has nothing else to do.
 */

let waiting: (() => void)[] = [];

/** Calls back at the end of this turn, in the order in which it was asked. What is called must not throw. */
export function atEndOfTurn(run: () => void): void {
  if (waiting.push(run) === 1) setImmediate(runAll);
}

function runAll(): void {
  const runs = waiting;
  waiting = [];
  for (const run of runs) run();
}
