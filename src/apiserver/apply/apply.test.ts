import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import type { KubeObject } from '../../api/meta.ts';
import { normalize } from '../../api/structural.ts';
import type { ApiError } from '../../base/errors.ts';
import { ResourceTable } from '../resource-table.ts';
import { applyConfiguration, comparer } from './apply.ts';
import { compareObjects, isEqual } from './comparison.ts';
import { configurationProblems, fieldsNamed } from './configuration.ts';
import { afterChange, type Manager, withFields, withoutAncient } from './managers.ts';
import { Versions } from './versions.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into objects of every kind.
type Any = any;

const resources = new ResourceTable();
const deployments = new Versions(resources.find('apps', 'v1', 'deployments')!, '', resources);
const configMaps = new Versions(resources.find('', 'v1', 'configmaps')!, '', resources);
const services = new Versions(resources.find('', 'v1', 'services')!, '', resources);
const pods = new Versions(resources.find('', 'v1', 'pods')!, '', resources);
const TYPES = new Map([
  [deployments, 'apps.v1.Deployment'],
  [configMaps, 'core.v1.ConfigMap'],
  [services, 'core.v1.Service'],
  [pods, 'core.v1.Pod'],
]);

interface State {
  readonly object: KubeObject;
  readonly managers: readonly Manager[];
}

/** An object and its managers under a sequence of writes. */
class Lab {
  state: State;
  readonly versions: Versions;
  #writes = 0;

  constructor(versions: Versions) {
    this.versions = versions;
    this.state = { object: versions.empty, managers: [] };
  }
  #time(): string {
    return `2026-01-01T00:00:${String(this.#writes++).padStart(2, '0')}Z`;
  }
  apply(manager: string, part: object, options: { force?: boolean } = {}): this {
    const configuration = {
      apiVersion: this.versions.apiVersion,
      kind: this.versions.empty.kind,
      ...part,
    } as KubeObject;
    (configuration as Any).metadata ??= { name: 'x' };
    const { object, managers } = applyConfiguration({
      versions: this.versions,
      live: this.state.object,
      configuration,
      managers: this.state.managers,
      identity: { manager, operation: 'Apply', apiVersion: this.versions.apiVersion, subresource: '' },
      force: options.force ?? false,
      time: this.#time(),
      settle: candidate => this.#stored(candidate),
    });
    this.state = { object: this.#stored(object), managers: managers.filter(({ fields }) => fields !== undefined) };
    return this;
  }
  update(manager: string, change: (object: Any) => void): this {
    const next = structuredClone(this.state.object);
    change(next);
    const object = this.#stored(next);
    const identity = { manager, operation: 'Update', apiVersion: this.versions.apiVersion, subresource: '' } as const;
    const compareAt = comparer(this.versions, this.state.object, object);
    const own = compareAt(this.versions.apiVersion);
    let managers = afterChange(this.state.managers, identity, compareAt);
    if (own !== undefined && own !== 'missing' && own.changed)
      managers = withFields(managers, identity, { fields: own.changed, time: this.#time() });
    this.state = { object, managers };
    return this;
  }
  #stored(object: KubeObject): KubeObject {
    return normalize(TYPES.get(this.versions)!, object);
  }
  owned(manager: string): unknown {
    return this.state.managers.find(other => other.manager === manager)?.fields;
  }
  get object(): Any {
    return this.state.object;
  }
}

const conflict = (message: string) => (error: unknown) => {
  assert.equal((error as ApiError).status?.code, 409, String(error));
  assert.equal((error as ApiError).message, message);
  return true;
};
const container = (name: string, fields: object = {}) => ({ name, ...fields });
const podSpec = (...containers: object[]) => ({ spec: { containers } });
const template = (...containers: object[]) => ({ spec: { template: podSpec(...containers) } });

test('what a create owns: members of maps and lists, whole atomic parts, no bookkeeping', () => {
  const lab = new Lab(deployments).update('kubectl-create', object => {
    object.metadata = { name: 'web', namespace: 'default', uid: 'u', labels: { app: 'web' }, generation: 1 };
    object.spec = {
      replicas: 1,
      selector: { matchLabels: { app: 'web' } },
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: '25%' } },
      template: {
        metadata: { labels: { app: 'web' } },
        ...podSpec(container('web', { image: 'i', ports: [{ containerPort: 80, protocol: 'TCP' }], args: ['a'] })),
      },
    };
  });
  assert.deepEqual(lab.owned('kubectl-create'), {
    'f:metadata': { 'f:labels': { '.': {}, 'f:app': {} } },
    'f:spec': {
      'f:replicas': {},
      'f:selector': {},
      'f:strategy': { 'f:rollingUpdate': { '.': {}, 'f:maxSurge': {} }, 'f:type': {} },
      'f:template': {
        'f:metadata': { 'f:labels': { '.': {}, 'f:app': {} } },
        'f:spec': {
          'f:containers': {
            'k:{"name":"web"}': {
              '.': {},
              'f:args': {},
              'f:image': {},
              'f:name': {},
              'f:ports': {
                '.': {},
                'k:{"containerPort":80,"protocol":"TCP"}': { '.': {}, 'f:containerPort': {}, 'f:protocol': {} },
              },
              'f:resources': {},
            },
          },
        },
      },
    },
  });
});

test('what a configuration names', () => {
  const cases: [Versions, object, unknown][] = [
    [configMaps, { data: { a: '1' } }, { 'f:data': { 'f:a': {} } }],
    [configMaps, { data: {} }, { 'f:data': {} }],
    [configMaps, { data: null }, { 'f:data': {} }],
    [configMaps, { metadata: { name: 'x' } }, undefined],
    [
      configMaps,
      { metadata: { name: 'x', namespace: 'n', finalizers: ['b', 'a'], labels: { l: '1' } } },
      { 'f:metadata': { 'f:finalizers': { 'v:"a"': {}, 'v:"b"': {} }, 'f:labels': { 'f:l': {} } } },
    ],
    [deployments, { spec: { replicas: null } }, { 'f:spec': { 'f:replicas': {} } }],
    [deployments, { spec: { selector: { matchLabels: { a: 'b' } } } }, { 'f:spec': { 'f:selector': {} } }],
    [deployments, { status: { replicas: 1 } }, undefined],
    [
      services,
      { spec: { ports: [{ port: 80, name: 'http' }], selector: { a: 'b' }, clusterIPs: ['None'] } },
      {
        'f:spec': {
          'f:clusterIPs': {},
          'f:ports': { 'k:{"port":80,"protocol":"TCP"}': { '.': {}, 'f:name': {}, 'f:port': {} } },
          'f:selector': {},
        },
      },
    ],
    [
      pods,
      podSpec(container('a', { resources: {}, securityContext: {} })),
      {
        'f:spec': {
          'f:containers': {
            'k:{"name":"a"}': { '.': {}, 'f:name': {}, 'f:resources': {}, 'f:securityContext': {} },
          },
        },
      },
    ],
  ];
  for (const [versions, configuration, expected] of cases)
    assert.deepEqual(fieldsNamed(versions.table, configuration), expected, JSON.stringify(configuration));
});

test('problems of a configuration in words of upstream', () => {
  const cases: [Versions, object, string[]][] = [
    [deployments, { spec: { foo: 1 } }, ['.spec.foo: field not declared in schema']],
    [deployments, { metadata: { foo: 1 } }, ['.metadata.foo: field not declared in schema']],
    [
      deployments,
      template(container('a', { env: [{ name: 'E', value: 8080 }] })),
      [
        '.spec.template.spec.containers[name="a"].env[name="E"].value: expected string, got &value.valueUnstructured{Value:8080}',
      ],
    ],
    [
      deployments,
      template({ image: 'x' }),
      [
        '.spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields "name" (and doesn\'t have default values for any key fields)',
      ],
    ],
    [
      deployments,
      template(container('a'), container('a')),
      ['.spec.template.spec.containers: duplicate entries for key [name="a"]'],
    ],
    [deployments, { spec: 'x' }, ['.spec: expected map, got &value.valueUnstructured{Value:"x"}']],
    [
      deployments,
      { spec: { replicas: '3' } },
      ['.spec.replicas: expected numeric (int or float), got &value.valueUnstructured{Value:"3"}'],
    ],
    [services, { spec: { ports: [{ port: 80, targetPort: 'http' }] } }, []],
    [pods, podSpec(container('a', { resources: { limits: { cpu: 1, memory: '1Gi' } } })), []],
  ];
  for (const [versions, configuration, expected] of cases)
    assert.deepEqual(configurationProblems(versions.table, configuration), expected);
});

test('applying sets, changes and removes what the applier owns', () => {
  const lab = new Lab(configMaps).apply('a', { data: { x: '1', y: '2' } });
  assert.deepEqual(lab.object.data, { x: '1', y: '2' });
  lab.apply('a', { data: { y: '3', z: '4' } });
  assert.deepEqual(lab.object.data, { y: '3', z: '4' });
  assert.deepEqual(lab.owned('a'), { 'f:data': { 'f:y': {}, 'f:z': {} } });
  lab.apply('a', {});
  assert.equal(lab.object.data, undefined);
  assert.deepEqual(lab.state.managers, []);
});

test('removal leaves what others own, and what nobody owns', () => {
  const lab = new Lab(deployments)
    .apply('a', template(container('app', { image: '1', env: [{ name: 'A', value: 'a' }] }), container('side')))
    .apply('b', template(container('app', { env: [{ name: 'B', value: 'b' }] }), container('side')))
    .update('c', object => {
      object.spec.template.spec.containers[0].tty = true;
    })
    .apply('a', template(container('app', { image: '1' })));
  assert.deepEqual(
    lab.object.spec.template.spec.containers.map(({ name, env, tty }: Any) => ({ name, env, tty })),
    [
      { name: 'app', env: [{ name: 'B', value: 'b' }], tty: true },
      { name: 'side', env: undefined, tty: undefined },
    ],
  );
  lab.apply('b', template(container('app')));
  assert.deepEqual(
    lab.object.spec.template.spec.containers.map((item: Any) => item.name),
    ['app'],
  );
  // The item goes with its applier, though another manager set a field in it.
  assert.deepEqual(lab.owned('c'), {
    'f:spec': { 'f:template': { 'f:spec': { 'f:containers': { 'k:{"name":"app"}': { 'f:tty': {} } } } } },
  });
});

test('a struct goes whole with its last applied field, defaults under it included', () => {
  const lab = new Lab(deployments)
    .apply('a', { spec: { strategy: { rollingUpdate: { maxSurge: 1 } } } })
    .apply('a', { spec: { replicas: 1 } });
  assert.equal(lab.object.spec.strategy.rollingUpdate, undefined);
});

test('lists: maps merge by key, sets by value, atomic ones are replaced', () => {
  const lab = new Lab(pods)
    .apply('a', {
      metadata: { name: 'x', finalizers: ['x.io/a', 'x.io/b'] },
      spec: { containers: [container('one', { args: ['1'] }), container('two')], tolerations: [{ key: 'k' }] },
    })
    .apply('b', {
      metadata: { name: 'x', finalizers: ['x.io/c', 'x.io/a'] },
      spec: { containers: [container('zero'), container('two', { image: 'i' })] },
    });
  assert.deepEqual(lab.object.metadata.finalizers, ['x.io/c', 'x.io/a', 'x.io/b']);
  assert.deepEqual(
    lab.object.spec.containers.map((item: Any) => item.name),
    ['one', 'zero', 'two'],
  );
  assert.throws(
    () => lab.apply('b', { spec: { tolerations: [] } }),
    conflict('Apply failed with 1 conflict: conflict with "a": .spec.tolerations'),
  );
  assert.throws(
    () => lab.apply('b', podSpec(container('one', { args: ['2'] }))),
    conflict('Apply failed with 1 conflict: conflict with "a": .spec.containers[name="one"].args'),
  );
});

test('conflicts: message, causes, equal values are shared, force takes over', () => {
  const lab = new Lab(deployments).update('kubectl-client-side-apply', object => {
    object.spec = { replicas: 1, paused: true, minReadySeconds: 5 };
  });
  assert.throws(
    () => lab.apply('kubectl', { spec: { replicas: 2 } }),
    conflict('Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas'),
  );
  try {
    lab.apply('kubectl', { spec: { replicas: 2, paused: false, minReadySeconds: 5 } });
    assert.fail('no conflict');
  } catch (error) {
    const { status } = error as ApiError;
    assert.equal(
      status.message,
      'Apply failed with 2 conflicts: conflicts with "kubectl-client-side-apply" using apps/v1:\n- .spec.paused\n- .spec.replicas',
    );
    assert.equal(status.reason, 'Conflict');
    assert.deepEqual(status.details?.causes?.[0], {
      reason: 'FieldManagerConflict',
      message: 'conflict with "kubectl-client-side-apply" using apps/v1',
      field: '.spec.paused',
    });
  }
  lab.apply('kubectl', { spec: { replicas: 2, minReadySeconds: 5 } }, { force: true });
  assert.equal(lab.object.spec.replicas, 2);
  assert.deepEqual(lab.owned('kubectl-client-side-apply'), {
    'f:spec': { 'f:minReadySeconds': {}, 'f:paused': {} },
  });
  assert.deepEqual(lab.owned('kubectl'), { 'f:spec': { 'f:minReadySeconds': {}, 'f:replicas': {} } });
  // A shared field stays until its last owner gives it up.
  lab.apply('kubectl', { spec: { replicas: 2 } });
  assert.equal(lab.object.spec.minReadySeconds, 5);
});

test('kubectl takes over what the annotation of client-side apply vouches for', () => {
  const annotations = {
    'kubectl.kubernetes.io/last-applied-configuration':
      '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"1","b":"other"}}\n',
  };
  const lab = new Lab(configMaps).update('kubectl-client-side-apply', object => {
    object.metadata = { name: 'x', annotations };
    object.data = { a: '1', b: '2' };
  });
  assert.throws(
    () => lab.apply('kubectl', { data: { a: 'new', b: 'new' } }),
    conflict('Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1: .data.b'),
  );
  assert.throws(() => lab.apply('helm', { data: { a: 'new' } }));
  lab.apply('kubectl', { data: { a: 'new' } });
  assert.deepEqual(lab.object.data, { a: 'new', b: '2' });
  assert.equal(
    lab.object.metadata.annotations['kubectl.kubernetes.io/last-applied-configuration'],
    '{"apiVersion":"v1","data":{"a":"new"},"kind":"ConfigMap","metadata":{"name":"x"}}\n',
  );
  // As kubectl would write it, which is Go's way.
  lab.apply('kubectl', { data: { a: '<&>' } });
  assert.match(
    lab.object.metadata.annotations['kubectl.kubernetes.io/last-applied-configuration'],
    /"data":\{"a":"\\u003c\\u0026\\u003e"\}/,
  );
});

test('an object nobody was recorded for belongs to before-first-apply', () => {
  const lab = new Lab(configMaps);
  lab.state = { object: normalize('core.v1.ConfigMap', { ...lab.object, data: { a: '1' } }), managers: [] };
  assert.throws(
    () => lab.apply('m', { data: { a: '2' } }),
    conflict('Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a'),
  );
  lab.apply('m', { data: { a: '1', b: '2' } });
  assert.deepEqual(lab.owned('before-first-apply'), { 'f:data': { '.': {}, 'f:a': {} } });
});

test('the same value in other words is no conflict, null is', () => {
  const lab = new Lab(pods).apply('a', {
    spec: { hostNetwork: false, priority: 3, containers: [container('c', { resources: { limits: { cpu: '1' } } })] },
  });
  lab.apply('b', {
    spec: { hostNetwork: false, containers: [container('c', { resources: { limits: { cpu: '1000m' } } })] },
  });
  assert.ok((lab.owned('a') as Any)['f:spec']['f:hostNetwork']);
  assert.ok((lab.owned('b') as Any)['f:spec']['f:hostNetwork']);
  assert.throws(
    () => lab.apply('b', { spec: { priority: null } }),
    conflict('Apply failed with 1 conflict: conflict with "a": .spec.priority'),
  );
});

test('updates: changed fields change hands, removed ones belong to nobody', () => {
  const lab = new Lab(configMaps)
    .update('a', object => {
      object.data = { x: '1', y: '1', z: '1' };
    })
    .update('b', object => {
      object.data = { x: '2', y: '1' };
    });
  assert.deepEqual(lab.owned('a'), { 'f:data': { '.': {}, 'f:y': {} } });
  assert.deepEqual(lab.owned('b'), { 'f:data': { 'f:x': {} } });
  const before = lab.state.managers;
  lab.update('c', () => {});
  assert.deepEqual(lab.state.managers, before);
});

test('the oldest updates are merged', () => {
  const lab = new Lab(configMaps);
  for (let i = 0; i < 12; i++)
    lab.update(`m${String(i).padStart(2, '0')}`, object => {
      object.data = { ...object.data, [`k${i}`]: '1' };
    });
  const managers = withoutAncient(lab.state.managers);
  assert.equal(managers.length, 10);
  const ancient = managers.find(({ manager }) => manager === 'ancient-changes')!;
  assert.deepEqual(ancient.fields, { 'f:data': { '.': {}, 'f:k0': {}, 'f:k1': {}, 'f:k2': {} } });
  assert.equal(ancient.time, lab.state.managers.find(({ manager }) => manager === 'm02')!.time);
});

test('duplicates in a stored list do not stop anybody', () => {
  const versions = services;
  const before = { ...versions.empty, spec: { ports: [{ port: 80 }, { port: 80, name: 'b' }] } };
  const after = { ...versions.empty, spec: { ports: [{ port: 80 }, { port: 80, name: 'c' }] } };
  assert.deepEqual(compareObjects(versions.table, before, after)?.changed, {
    'f:spec': { 'f:ports': { 'k:{"port":80,"protocol":"TCP"}': {} } },
  });
  assert.equal(compareObjects(versions.table, before, structuredClone(before)), undefined);
});

// Properties

const value = fc.constantFrom('1', '2', '3');
const configuration = fc.record(
  {
    replicas: fc.integer({ min: 0, max: 3 }),
    labels: fc.dictionary(fc.constantFrom('a', 'b', 'c', 'constructor'), value, { maxKeys: 3 }),
    finalizers: fc.uniqueArray(fc.constantFrom('x.io/a', 'x.io/b', 'x.io/c'), { maxLength: 3 }),
    selector: fc.dictionary(fc.constantFrom('a', 'b'), value, { maxKeys: 2 }),
    containers: fc.uniqueArray(
      fc.record(
        {
          name: fc.constantFrom('p', 'q', 'r'),
          image: value,
          args: fc.array(value, { maxLength: 2 }),
          env: fc.uniqueArray(fc.record({ name: fc.constantFrom('E', 'F'), value }), { selector: ({ name }) => name }),
          tty: fc.boolean(),
          resources: fc.record(
            { limits: fc.dictionary(fc.constantFrom('cpu', 'memory'), value) },
            { requiredKeys: [] },
          ),
        },
        { requiredKeys: ['name'] },
      ),
      { selector: ({ name }) => name, minLength: 1, maxLength: 3 },
    ),
  },
  { requiredKeys: [] },
);
type Configuration = typeof configuration extends fc.Arbitrary<infer T> ? T : never;

function deploymentOf({ replicas, labels, finalizers, selector, containers }: Configuration): object {
  return {
    metadata: { name: 'x', ...(labels && { labels }), ...(finalizers && { finalizers }) },
    spec: {
      ...(replicas === undefined ? {} : { replicas }),
      ...(selector && { selector: { matchLabels: selector } }),
      ...(containers && { template: { spec: { containers } } }),
    },
  };
}

test('applying twice changes nothing the second time', () => {
  fc.assert(
    fc.property(configuration, configuration, configuration, (first, other, again) => {
      const lab = new Lab(deployments)
        .apply('a', deploymentOf(first))
        .apply('b', deploymentOf(other), { force: true })
        .apply('a', deploymentOf(again), { force: true });
      const before = lab.state;
      lab.apply('a', deploymentOf(again));
      assert.ok(isEqual(lab.state.object, before.object), 'the object changed');
      assert.deepEqual(
        lab.state.managers
          .map(({ manager, fields }) => ({ manager, fields }))
          .sort((a, b) => (a.manager < b.manager ? -1 : 1)),
        before.managers
          .map(({ manager, fields }) => ({ manager, fields }))
          .sort((a, b) => (a.manager < b.manager ? -1 : 1)),
      );
    }),
    { numRuns: 200 },
  );
});

test('what was applied is there, and giving up everything leaves nothing of it', () => {
  fc.assert(
    fc.property(configuration, configuration, (first, second) => {
      const lab = new Lab(deployments).apply('a', deploymentOf(first)).apply('a', deploymentOf(second));
      const fresh = new Lab(deployments).apply('a', deploymentOf(second));
      assert.deepEqual(sortedLists(lab.object), sortedLists(fresh.object));
      lab.apply('a', {});
      assert.deepEqual(lab.state.managers, []);
      assert.equal(lab.object.spec.replicas, undefined);
      assert.equal(lab.object.spec.template.spec.containers, undefined);
    }),
    { numRuns: 200 },
  );
});

// A list keeps the order in which its items came.
function sortedLists(object: unknown): unknown {
  return JSON.parse(
    JSON.stringify(object, (key, item: unknown) =>
      Array.isArray(item) && key !== 'args'
        ? [...item].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
        : item,
    ),
  );
}

test('two managers with different fields never conflict and never lose any', () => {
  const half = (keys: string[]) => fc.dictionary(fc.constantFrom(...keys), value, { maxKeys: keys.length });
  const steps = fc.array(
    fc.oneof(
      half(['a', 'b', 'c']).map(data => ({ manager: 'left', data })),
      half(['x', 'y', 'z']).map(data => ({ manager: 'right', data })),
    ),
    { maxLength: 6 },
  );
  fc.assert(
    fc.property(steps, sequence => {
      const lab = new Lab(configMaps);
      const wanted: Record<string, Record<string, string>> = {};
      for (const { manager, data } of sequence) {
        // `data: {}` names data itself, as upstream has it.
        lab.apply(manager, Object.keys(data).length > 0 ? { data } : {});
        wanted[manager] = data;
        assert.deepEqual({ ...lab.object.data }, { ...wanted['left'], ...wanted['right'] });
      }
    }),
    { numRuns: 200 },
  );
});
