/** What both directions of the protobuf form know: wire types, the envelope, and where the wire differs from the JSON. */

export const PROTOBUF = 'application/vnd.kubernetes.protobuf';

export const MAGIC = Buffer.from('k8s\0', 'latin1');
export const VARINT = 0;
export const FIXED64 = 1;
export const BYTES = 2;
export const FIXED32 = 5;

export function wireOf(type: string): number {
  if (type === 'bool' || type === 'int32' || type === 'int64') return VARINT;
  return type === 'double' ? FIXED64 : BYTES;
}

export function splitGroupVersion(apiVersion: string): [group: string, version: string] {
  const slash = apiVersion.indexOf('/');
  return slash < 0 ? ['', apiVersion] : [apiVersion.slice(0, slash), apiVersion.slice(slash + 1)];
}
