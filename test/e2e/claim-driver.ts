/**
 * The sample driver of resource claims as a program, run inside a node's namespaces. A line of JSON on its input says how a device is:
 * `{"device":"small","health":2,"message":"it burns"}`.
 */

import { createInterface } from 'node:readline';
import { HttpsTransport } from '../../src/client/https-transport.ts';
import { SampleClaimDriver } from '../kubelet/sample-claim-driver.ts';

const { name, node, devices, ...access } = JSON.parse(process.argv[2]!);
const driver = new SampleClaimDriver({
  name,
  node,
  devices,
  rootDir: '/var/lib/kubelet',
  cdiFolder: '/var/run/cdi',
  api: new HttpsTransport({ ...access, userAgent: 'claim-driver' }),
});
await driver.publish();
await driver.start();
console.log('serving');
for await (const line of createInterface({ input: process.stdin })) {
  const { device, health, message } = JSON.parse(line);
  driver.say(device, health, message);
}
await driver.stop();
process.exit(0);
