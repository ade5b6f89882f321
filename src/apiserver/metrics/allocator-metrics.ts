/** What is counted of the addresses and node ports that Services have, by upstream's names. */

import { metrics } from '../../base/metrics.ts';

const ADDRESSES = 'kube_apiserver_clusterip_allocator';
const PORTS = 'kube_apiserver_nodeport_allocator';

/** `static`: somebody asked for this one. */
export type Scope = 'static' | 'dynamic';

const addresses = {
  allocated: metrics.gauge(`${ADDRESSES}_allocated_ips`, 'Gauge measuring the number of allocated IPs for Services', [
    'cidr',
  ]),
  available: metrics.gauge(`${ADDRESSES}_available_ips`, 'Gauge measuring the number of available IPs for Services', [
    'cidr',
  ]),
  allocations: metrics.counter(`${ADDRESSES}_allocation_total`, 'Number of Cluster IPs allocations', ['cidr', 'scope']),
  errors: metrics.counter(`${ADDRESSES}_allocation_errors_total`, 'Number of errors trying to allocate Cluster IPs', [
    'cidr',
    'scope',
  ]),
};
const ports = {
  allocated: metrics.gauge(
    `${PORTS}_allocated_ports`,
    'Gauge measuring the number of allocated NodePorts for Services',
  ),
  available: metrics.gauge(
    `${PORTS}_available_ports`,
    'Gauge measuring the number of available NodePorts for Services',
  ),
  allocations: metrics.counter(`${PORTS}_allocation_total`, 'Number of NodePort allocations', ['scope']),
  errors: metrics.counter(`${PORTS}_allocation_errors_total`, 'Number of errors trying to allocate NodePort', [
    'scope',
  ]),
};

export function countAddress(cidr: string, scope: Scope, isTaken: boolean): void {
  (isTaken ? addresses.allocations : addresses.errors).add(1, cidr, scope);
}
export function countPort(scope: Scope, isTaken: boolean): void {
  (isTaken ? ports.allocations : ports.errors).add(1, scope);
}

/** `ranges` are asked at each scrape. */
export function tellAddresses(ranges: () => readonly { cidr: string; allocated: number; size: number }[]): void {
  metrics.onCollect(() => {
    addresses.allocated.clear();
    addresses.available.clear();
    for (const { cidr, allocated, size } of ranges()) {
      addresses.allocated.set(allocated, cidr);
      addresses.available.set(size - allocated, cidr);
    }
  });
}
/** `range` is asked at each scrape. */
export function tellPorts(range: () => { allocated: number; size: number }): void {
  metrics.onCollect(() => {
    const { allocated, size } = range();
    ports.allocated.set(allocated);
    ports.available.set(size - allocated);
  });
}
