/** A bed with Services: two nodes with a proxy each, pods a and b on the first, c on the second, all answering on 8080 and UDP 8053. */

import type { Endpoint } from '../../src/api/discovery/v1.gen.ts';
import { ENDPOINT_SLICES, SERVICES } from '../../src/client/resources.ts';
import type { ServiceTable } from '../../src/proxy/model.ts';
import type { ServiceProxy } from '../../src/proxy/service-proxy.ts';
import { ask, Bed, type BedNode, type BedPod, type Family, until } from './bed.ts';
import { endpoint, type ShortService, service, slice } from './services.ts';

const MARKER = 'default/marker';

export class ServiceBed {
  readonly bed: Bed;
  readonly #family: 0 | 1;
  readonly #tables: (() => ServiceTable | undefined)[] = [];
  readonly proxies: ServiceProxy[] = [];
  one!: BedNode;
  two!: BedNode;
  a!: BedPod;
  b!: BedPod;
  c!: BedPod;
  #markers = 0;

  /** `family`: of the addresses that the short ways below use. */
  constructor(families: readonly Family[] = ['IPv4'], family: Family = families[0]!) {
    this.bed = new Bed(families);
    this.#family = families.indexOf(family) as 0 | 1;
  }

  async start(options: Parameters<Bed['startProxy']>[1] = {}): Promise<this> {
    const { bed } = this;
    [this.one, this.two] = [await bed.addNode(), await bed.addNode()];
    [this.a, this.b, this.c] = [await bed.addPod(this.one), await bed.addPod(this.one), await bed.addPod(this.two)];
    for (const name of ['a', 'b', 'c'] as const) {
      bed.serve(this[name].namespace, 8080, name);
      bed.serveUdp(this[name].namespace, 8053, name);
    }
    for (const node of [this.one, this.two]) {
      const proxy = bed.startProxy(node, options);
      let table: ServiceTable | undefined;
      proxy.onProgrammed(next => {
        table = next;
      });
      this.#tables.push(() => table);
      this.proxies.push(proxy);
    }
    await Promise.all(this.proxies.map(proxy => proxy.synced));
    return this;
  }

  ipOf(of: BedPod | BedNode): string {
    return of.ips[this.#family]!;
  }

  /** The pod as a ready endpoint, or as `options` say. */
  on(pod: BedPod, options: Parameters<typeof endpoint>[1] = {}): Endpoint {
    return endpoint(this.ipOf(pod), { nodeName: pod === this.c ? this.two.name : this.one.name, ...options });
  }

  /** Writes a Service and its only slice, and waits until both nodes have programmed them. */
  async put(spec: ShortService, endpoints: readonly Endpoint[]): Promise<void> {
    this.bed.api.put(ENDPOINT_SLICES, slice({ service: spec.name, endpoints, ports: spec.ports }));
    this.bed.api.put(SERVICES, service(spec));
    await this.settled();
  }

  async remove(...names: string[]): Promise<void> {
    for (const name of names) {
      this.bed.api.remove(SERVICES, `default/${name}`);
      this.bed.api.remove(ENDPOINT_SLICES, `default/${name}`);
    }
    await this.settled();
  }

  /** Resolves when all that was written before is in the kernels: watches keep the order of each resource. */
  async settled(): Promise<void> {
    const mark = ++this.#markers;
    const ports = [{ port: 40_000 + mark, targetPort: 1 }];
    const clusterIP = '10.96.255.254';
    this.bed.api.put(
      ENDPOINT_SLICES,
      slice({ service: 'marker', endpoints: [endpoint(`10.250.${mark >> 8}.${mark & 255}`)], ports }),
    );
    this.bed.api.put(SERVICES, service({ name: 'marker', clusterIP, ports }));
    await until(
      () =>
        this.#tables.every(table => {
          const frontend = table()?.get(MARKER)?.frontends[0];
          return frontend?.port === 40_000 + mark && frontend.endpoints[0]?.ip === `10.250.${mark >> 8}.${mark & 255}`;
        }),
      10_000,
    );
  }

  /** Different answers to so many connections, sorted. */
  async answers(from: string, address: string, port: number, times = 20): Promise<string[]> {
    const seen = new Set<string>();
    for (let i = 0; i < times; i++) seen.add(await ask(from, address, port));
    return [...seen].sort();
  }
  /** The same, only who answered: `['a', 'c']`. */
  async answerers(from: string, address: string, port: number, times = 20): Promise<string[]> {
    return [...new Set((await this.answers(from, address, port, times)).map(text => text.split(' ')[0]!))].sort();
  }

  close(): Promise<void> {
    return this.bed.close();
  }
}
