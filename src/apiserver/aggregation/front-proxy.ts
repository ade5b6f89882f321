/**
 * Who the API server is towards extension servers: a client certificate of an authority of its own, which vouches for the
 * user named in the headers of a forwarded request. The authority is published where extension servers look for it.
 */

import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../api/meta.ts';
import { CONFIG_MAPS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import type { KeyPair } from '../certificates/certificate.ts';
import type { Reader, UserInfo } from '../request.ts';

const NAMESPACE = 'kube-system';
const NAME = 'extension-apiserver-authentication';
const CLIENT = 'front-proxy-client';

export interface FrontProxy {
  readonly ca: string;
  readonly client: KeyPair;
}

export async function publishFrontProxy(
  reader: Reader,
  transport: Transport,
  { ca, clientCa }: { ca: string; clientCa: string },
): Promise<void> {
  const data = {
    'client-ca-file': clientCa,
    'requestheader-allowed-names': JSON.stringify([CLIENT]),
    'requestheader-client-ca-file': ca,
    'requestheader-extra-headers-prefix': '["X-Remote-Extra-"]',
    'requestheader-group-headers': '["X-Remote-Group"]',
    'requestheader-uid-headers': '["X-Remote-Uid"]',
    'requestheader-username-headers': '["X-Remote-User"]',
  };
  const target = { of: CONFIG_MAPS, namespace: NAMESPACE, name: NAME };
  const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: NAME }, data } as KubeObject;
  const current = reader.get(CONFIG_MAPS, NAMESPACE, NAME) as (KubeObject & { data?: object }) | undefined;
  if (isDeepStrictEqual({ ...current?.data }, data)) return;
  if (current) await transport.update(target, object);
  else await transport.create({ of: CONFIG_MAPS, namespace: NAMESPACE }, object);
}

/** The user in the headers that extension servers read. */
export function userHeaders(user: UserInfo): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = { 'x-remote-user': user.name, 'x-remote-group': [...user.groups] };
  if (user.uid) headers['x-remote-uid'] = user.uid;
  for (const [key, values] of Object.entries(user.extra ?? {}))
    headers[`x-remote-extra-${encodeURIComponent(key)}`] = [...values];
  return headers;
}
