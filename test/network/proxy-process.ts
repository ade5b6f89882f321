/**
 * A proxy's backend that works without pause, for a test that kills it: `node proxy-process.ts NAMESPACE ENDPOINTS-JSON`. It programs
 * the Service `web` at 10.96.0.20 and 300 others, then changes those for ever. One line when the first programming is done.
 */

import { silentLogger } from '../../src/base/log.ts';
import { entryOf, type ServiceEntry } from '../../src/proxy/model.ts';
import { NftablesBackend } from '../../src/proxy/nftables/nftables-backend.ts';
import { endpoint, service, slice } from './services.ts';

const [namespace, endpoints] = [process.argv[2]!, JSON.parse(process.argv[3]!) as string[]];
const view = { nodeName: 'node-1', localVips: new Set<string>() };
const ports = [{ port: 80, targetPort: 8080 }];

function entry(name: string, clusterIP: string, ips: readonly string[]): ServiceEntry {
  const slices = [slice({ service: name, endpoints: ips.map(ip => endpoint(ip, { nodeName: 'node-1' })), ports })];
  return entryOf(service({ name, clusterIP, ports }), slices, view)!;
}

const backend = new NftablesBackend({
  namespace,
  nodeIps: ['172.30.0.2'],
  clusterCidrs: ['10.244.0.0/16'],
  log: silentLogger,
});
let table = new Map<string, ServiceEntry>([['default/web', entry('web', '10.96.0.20', endpoints)]]);
for (let i = 0; i < 300; i++) table.set(`default/s${i}`, entry(`s${i}`, `10.97.${i >> 8}.${i & 255}`, ['10.250.0.1']));
await backend.apply(table);
await backend.prune(table);
console.log('programmed');
for (let turn = 0; ; turn++) {
  const next = new Map(table);
  const name = `s${turn % 300}`;
  const ips = Array.from({ length: (turn % 7) + 1 }, (_, k) => `10.250.1.${k + 1}`);
  next.set(`default/${name}`, entry(name, `10.97.${(turn % 300) >> 8}.${(turn % 300) & 255}`, ips));
  // Its endpoints change places and number all the time, too.
  next.set('default/web', entry('web', '10.96.0.20', turn % 2 ? endpoints : endpoints.slice(0, 1)));
  await backend.apply(next, table);
  table = next;
  await new Promise(resolve => setImmediate(resolve));
}
