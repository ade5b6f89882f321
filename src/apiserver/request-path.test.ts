import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { parsePath } from './request-path.ts';

const parse = (method: string, url: string) => {
  const [path, query] = url.split('?') as [string, string?];
  const { verb, isResource, group, version, resource, subresource, namespace, name, rest } = parsePath(
    method,
    path,
    new URLSearchParams(query),
  );
  return isResource ? [verb, group, version, namespace, resource, subresource, name, rest].join(' ') : `${verb} -`;
};

test('URLs of resources', () => {
  const cases: [string, string, string][] = [
    ['GET', '/api/v1/pods', 'list  v1  pods   '],
    ['GET', '/api/v1/namespaces/a/pods', 'list  v1 a pods   '],
    ['GET', '/api/v1/namespaces/a/pods/p', 'get  v1 a pods  p '],
    ['GET', '/api/v1/namespaces/a/pods?watch=true', 'watch  v1 a pods   '],
    ['GET', '/api/v1/watch/namespaces/a/pods', 'watch  v1 a pods   '],
    ['POST', '/apis/apps/v1/namespaces/a/deployments', 'create apps v1 a deployments   '],
    ['PATCH', '/apis/apps/v1/namespaces/a/deployments/d/scale', 'patch apps v1 a deployments scale d '],
    ['DELETE', '/api/v1/namespaces/a/pods', 'deletecollection  v1 a pods   '],
    ['DELETE', '/api/v1/namespaces/a', 'delete  v1 a namespaces  a '],
    ['GET', '/api/v1/namespaces', 'list  v1  namespaces   '],
    ['PUT', '/api/v1/namespaces/a/finalize', 'update  v1 a namespaces finalize a '],
    ['GET', '/api/v1/namespaces/a/services/s:80/proxy/x/y', 'get  v1 a services proxy s:80 /x/y'],
    ['GET', '/api/v1/nodes/n', 'get  v1  nodes  n '],
    [
      'GET',
      '/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode',
      'get rbac.authorization.k8s.io v1  clusterroles  system:node ',
    ],
    ['GET', '/healthz', 'get -'],
    ['GET', '/api/v1', 'get -'],
    ['GET', '/apis/apps/v1', 'get -'],
  ];
  for (const [method, url, expected] of cases) assert.equal(parse(method, url), expected, `${method} ${url}`);
});
