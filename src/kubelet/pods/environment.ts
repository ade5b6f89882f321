/** A container's environment: image, envFrom, env with $(VAR), Services. Messages of missing references are upstream's. */

import type { ConfigMap, Container, EnvVar, Pod, Secret, Service } from '../../api/core/v1.gen.ts';
import { CONFIG_MAPS, SECRETS } from '../../client/resources.ts';
import { type NodeResources, type PodAddresses, podField, resourceField } from '../fields.ts';
import type { References } from '../references.ts';
import { readEnvironmentFile, variableIn } from './environment-file.ts';
import { allContainers } from './resources.ts';

export interface EnvironmentSources {
  readonly references: References;
  readonly node: NodeResources;
  readonly addresses: PodAddresses;
  services(): Iterable<Service>;
  /** Where a volume of the pod lies. */
  volumePath(name: string): string | undefined;
}

const ENV_NAME = /^[^=\0]+$/;

/** `$(NAME)` becomes its value, `$$(NAME)` stays as `$(NAME)`, an unknown name stays as it is. */
export function expand(text: string, lookUp: (name: string) => string | undefined): string {
  let out = '';
  for (let at = 0; at < text.length; ) {
    const dollar = text.indexOf('$', at);
    if (dollar < 0 || dollar + 1 >= text.length) return out + text.slice(at);
    out += text.slice(at, dollar);
    const next = text[dollar + 1]!;
    const close = next === '(' ? text.indexOf(')', dollar + 2) : -1;
    if (next === '$') {
      out += '$';
      at = dollar + 2;
    } else if (close >= 0) {
      const name = text.slice(dollar + 2, close);
      out += lookUp(name) ?? `$(${name})`;
      at = close + 1;
    } else {
      out += next === '(' ? '$(' : `$${next}`;
      at = dollar + 2;
    }
  }
  return out;
}

/** Variables of the Services a pod is linked to: `<NAME>_SERVICE_HOST` and Docker's old link form. */
export function serviceVariables(
  services: Iterable<Service>,
  namespace: string,
  isLinked: boolean,
): Map<string, string> {
  const found = new Map<string, string>();
  const chosen = new Map<string, Service>();
  for (const service of services) {
    const { clusterIP } = service.spec ?? {};
    if (!clusterIP || clusterIP === 'None') continue;
    const { name, namespace: at } = service.metadata;
    if (at === 'default' && name === 'kubernetes') {
      if (!chosen.has(name)) chosen.set(name, service);
    } else if (at === namespace && isLinked) chosen.set(name, service);
  }
  for (const service of [...chosen.values()].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))) {
    const prefix = service.metadata.name.toUpperCase().replaceAll('-', '_');
    const { clusterIP, ports = [] } = service.spec as {
      clusterIP: string;
      ports?: { name?: string; port: number; protocol?: string }[];
    };
    const host = clusterIP.includes(':') ? `[${clusterIP}]` : clusterIP;
    found.set(`${prefix}_SERVICE_HOST`, clusterIP);
    if (!ports[0]) continue;
    found.set(`${prefix}_SERVICE_PORT`, String(ports[0].port));
    for (const { name, port } of ports)
      if (name) found.set(`${prefix}_SERVICE_PORT_${name.toUpperCase().replaceAll('-', '_')}`, String(port));
    ports.forEach(({ port, protocol = 'TCP' }, i) => {
      const url = `${protocol.toLowerCase()}://${host}:${port}`;
      const base = `${prefix}_PORT_${port}_${protocol.toUpperCase()}`;
      if (i === 0) found.set(`${prefix}_PORT`, url);
      found
        .set(base, url)
        .set(`${base}_PROTO`, protocol.toLowerCase())
        .set(`${base}_PORT`, String(port))
        .set(`${base}_ADDR`, clusterIP);
    });
  }
  return found;
}

/** Rejects with what becomes the container's CreateContainerConfigError. */
export async function containerEnvironment(
  pod: Pod,
  container: Container,
  sources: EnvironmentSources,
): Promise<Map<string, string>> {
  const namespace = pod.metadata.namespace!;
  const result = new Map<string, string>();
  for (const { prefix = '', configMapRef, secretRef } of container.envFrom ?? []) {
    const reference = configMapRef ?? secretRef;
    if (!reference) continue;
    const [of, kind] = configMapRef ? ([CONFIG_MAPS, 'configmap'] as const) : ([SECRETS, 'secret'] as const);
    const object = await sources.references.get<ConfigMap & Secret>(of, namespace, reference.name ?? '');
    if (!object) {
      if (reference.optional) continue;
      throw new Error(`${kind} "${reference.name}" not found`);
    }
    for (const [key, value] of Object.entries(object.data ?? {})) {
      if (ENV_NAME.test(key))
        result.set(prefix + key, secretRef ? Buffer.from(value, 'base64').toString('utf8') : value);
    }
  }
  const services = serviceVariables(sources.services(), namespace, pod.spec.enableServiceLinks ?? true);
  const defined = new Map<string, string>();
  for (const variable of container.env ?? []) {
    const value = variable.valueFrom
      ? await valueFrom(pod, container, variable, sources)
      : expand(variable.value ?? '', name => defined.get(name) ?? result.get(name) ?? services.get(name));
    if (value === undefined) continue;
    defined.set(variable.name, value);
    result.set(variable.name, value);
  }
  for (const [name, value] of services) if (!result.has(name)) result.set(name, value);
  return result;
}

async function valueFrom(
  pod: Pod,
  container: Container,
  variable: EnvVar,
  sources: EnvironmentSources,
): Promise<string | undefined> {
  const namespace = pod.metadata.namespace!;
  const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef, fileKeyRef } = variable.valueFrom!;
  if (fieldRef) return podField(pod, fieldRef.fieldPath, sources.addresses);
  if (resourceFieldRef) {
    const of = resourceFieldRef.containerName
      ? allContainers(pod).find(one => one.name === resourceFieldRef.containerName)
      : container;
    if (!of) throw new Error(`container ${resourceFieldRef.containerName} not found`);
    return resourceField(pod, of, resourceFieldRef, sources.node);
  }
  if (configMapKeyRef) {
    const { name = '', key, optional } = configMapKeyRef;
    const object = await sources.references.get<ConfigMap>(CONFIG_MAPS, namespace, name);
    const value = object?.data?.[key];
    if (value !== undefined || optional) return value;
    throw new Error(
      object ? `couldn't find key ${key} in ConfigMap ${namespace}/${name}` : `configmap "${name}" not found`,
    );
  }
  if (secretKeyRef) {
    const { name = '', key, optional } = secretKeyRef;
    const object = await sources.references.get<Secret>(SECRETS, namespace, name);
    const value = object?.data?.[key];
    if (value !== undefined) return Buffer.from(value, 'base64').toString('utf8');
    if (optional) return undefined;
    throw new Error(object ? `couldn't find key ${key} in Secret ${namespace}/${name}` : `secret "${name}" not found`);
  }
  if (fileKeyRef) {
    const { volumeName, path, key, optional } = fileKeyRef;
    const volume = sources.volumePath(volumeName);
    if (volume === undefined)
      throw new Error(`cannot find the volume ${JSON.stringify(volumeName)} referenced by FileKeyRef`);
    const text = readEnvironmentFile(volume, path);
    const value = text === undefined ? undefined : variableIn(text, key);
    if (value !== undefined || optional) return value;
    throw new Error(
      text === undefined
        ? `couldn't find the file ${JSON.stringify(path)} in volume ${JSON.stringify(volumeName)}`
        : `environment variable key ${JSON.stringify(key)} not found in file ${JSON.stringify(path)}`,
    );
  }
  throw new Error(`env ${variable.name} has a source that this kubelet does not support`);
}
