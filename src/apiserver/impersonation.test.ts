import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { withRepeated } from './header-values.ts';
import { impersonate, wantedUser } from './impersonation.ts';
import type { RequestAttributes, UserInfo } from './request.ts';

const LIST_PODS: RequestAttributes = {
  user: { name: 'agent', groups: ['system:authenticated'] },
  verb: 'list',
  isResource: true,
  group: '',
  version: 'v1',
  resource: 'pods',
  subresource: '',
  namespace: 'default',
  name: '',
  path: '/api/v1/namespaces/default/pods',
};
const NODE_NAME = 'authentication.kubernetes.io/node-name';
const ON_NODE: UserInfo = {
  name: 'system:serviceaccount:kube-system:agent',
  groups: ['system:serviceaccounts'],
  extra: { [NODE_NAME]: ['one'], 'authentication.kubernetes.io/pod-name': ['p'] },
};

/** `verb resource/subresource name`, of what is asked. */
const words = ({ verb, resource, subresource, name }: RequestAttributes): string =>
  `${verb} ${subresource ? `${resource}/${subresource}` : resource}${name ? ` ${name}` : ''}`;

/** Who may do what is in `allowed`; tells what was asked. */
async function ask(wanted: UserInfo, allowed: readonly string[], user: UserInfo = LIST_PODS.user) {
  const asked: RequestAttributes[] = [];
  const authorize = (attributes: RequestAttributes) => {
    asked.push(attributes);
    if (!allowed.includes(words(attributes))) throw new Error(`no: ${words(attributes)}`);
  };
  const result = await impersonate(wanted, { ...LIST_PODS, user }, authorize).catch((error: Error) => error.message);
  return { result, asked, words: asked.map(words) };
}

test('a user for one action: both the identity and the action are asked for', async () => {
  const jane: UserInfo = { name: 'jane', groups: ['dev'] };
  const may = [
    'impersonate-on:user-info:list pods',
    'impersonate:user-info users jane',
    'impersonate:user-info groups dev',
  ];
  const { result, words: asked, asked: all } = await ask(jane, may);
  assert.deepEqual(result, {
    user: { name: 'jane', groups: ['dev', 'system:authenticated'] },
    constraint: 'impersonate:user-info',
  });
  assert.deepEqual(asked, may);
  assert.equal(all[0]!.namespace, 'default');
  assert.equal(all[1]!.group, 'authentication.k8s.io');
  // One of them alone is not enough, and the first refusal is told.
  assert.equal((await ask(jane, may.slice(1))).result, `no: ${may[0]}`);
  assert.equal((await ask(jane, may.slice(0, 2))).result, `no: ${may[2]}`);
});

test('the verb impersonate goes on to allow everything', async () => {
  const { result, asked } = await ask({ name: 'jane', groups: [] }, ['impersonate users jane']);
  assert.deepEqual(result, { user: { name: 'jane', groups: ['system:authenticated'] } });
  assert.equal(asked.at(-1)!.group, '');
});

test('a service account and a node have the groups that they have, and no others', async () => {
  const account: UserInfo = { name: 'system:serviceaccount:ci:builder', groups: [] };
  const may = ['impersonate-on:serviceaccount:list pods', 'impersonate:serviceaccount serviceaccounts builder'];
  assert.deepEqual((await ask(account, may)).result, {
    user: {
      name: account.name,
      groups: ['system:serviceaccounts', 'system:serviceaccounts:ci', 'system:authenticated'],
    },
    constraint: 'impersonate:serviceaccount',
  });
  const grouped = await ask({ ...account, groups: ['system:masters'] }, may);
  assert.equal(grouped.result, 'no: impersonate serviceaccounts builder');
  const node = await ask({ name: 'system:node:one', groups: [] }, [
    'impersonate-on:arbitrary-node:list pods',
    'impersonate:arbitrary-node nodes one',
  ]);
  assert.deepEqual(node.result, {
    user: { name: 'system:node:one', groups: ['system:nodes', 'system:authenticated'] },
    constraint: 'impersonate:arbitrary-node',
  });
});

test('a service account may be its own node, whichever that is, and no other', async () => {
  const may = ['impersonate-on:associated-node:list pods', 'impersonate:associated-node nodes *'];
  const own = await ask({ name: 'system:node:one', groups: [] }, may, ON_NODE);
  assert.deepEqual(own.result, {
    user: { name: 'system:node:one', groups: ['system:nodes', 'system:authenticated'] },
    constraint: 'impersonate:associated-node',
  });
  assert.deepEqual(own.asked[0]!.user.extra, {
    'authentication.kubernetes.io/associated-node-keys': [NODE_NAME, 'authentication.kubernetes.io/pod-name'],
  });
  const other = await ask({ name: 'system:node:two', groups: [] }, may, ON_NODE);
  assert.equal(other.result, 'no: impersonate-on:arbitrary-node:list pods');
  const somebody = await ask({ name: 'system:node:one', groups: [] }, may, { ...ON_NODE, name: 'jane' });
  assert.equal(somebody.result, 'no: impersonate-on:arbitrary-node:list pods');
});

test('system:masters and odd extra values are for the plain verb only; many are asked for at once', async () => {
  const on = ['impersonate-on:user-info:list pods', 'impersonate:user-info users jane'];
  const masters = await ask({ name: 'jane', groups: ['system:masters'] }, [
    ...on,
    'impersonate:user-info groups system:masters',
  ]);
  assert.match(String(masters.result), /impersonating the system:masters group is not allowed$/);
  const scopes = await ask({ name: 'jane', groups: [], extra: { scopes: ['a'] } }, [
    ...on,
    'impersonate:user-info userextras/scopes a',
  ]);
  assert.match(String(scopes.result), /an invalid key in extra is not allowed: .*must be a domain-prefixed path/);
  const many = { name: 'jane', groups: ['a', 'b', 'c', 'd'] };
  assert.deepEqual((await ask(many, [...on, 'impersonate:user-info groups *'])).words.slice(2), [
    'impersonate:user-info groups *',
  ]);
  const each = many.groups.map(group => `impersonate:user-info groups ${group}`);
  assert.deepEqual((await ask(many, [...on, ...each])).words.slice(3), each);
  const extra = { 'acme.io/a': ['1', '2'], 'acme.io/b': ['3', '4'] };
  const all = await ask({ name: 'jane', groups: [], extra }, [...on, 'impersonate:user-info userextras/* *']);
  assert.deepEqual((all.result as { user: UserInfo }).user.extra, extra);
});

test('values of headers stay apart, commas and all', () => {
  const dn = 'cn=admins,dc=example,dc=com';
  assert.deepEqual(wantedUser({ 'impersonate-user': 'jane', 'impersonate-group': dn })?.groups, [dn]);
  const headers = withRepeated(
    { 'impersonate-user': 'jane', 'impersonate-group': `${dn}, dev`, 'impersonate-extra-acme.io%2fscopes': 'a' },
    { 'impersonate-group': [dn, 'dev'] },
  );
  assert.deepEqual(wantedUser(headers), {
    name: 'jane',
    groups: [dn, 'dev'],
    extra: { 'acme.io/scopes': ['a'] },
  });
  assert.equal(wantedUser({}), undefined);
  assert.throws(() => wantedUser({ 'impersonate-extra-scopes': 'a' }), /without impersonating a user/);
});
