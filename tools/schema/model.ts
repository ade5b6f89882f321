/**
 * Turns the parsed Go packages into the tables of `schema.gen.json`: for every type its lines, one a field.
 * The line format is documented where it is read, in `src/api/schema-registry.ts`.
 */
import { extraTypes } from './extra-types.ts';
import type { GoField, GoPackage, GoStruct, ProtoField } from './go-source.ts';
import { readGoPackage } from './go-source.ts';
import { type ApiPackage, apiPackages } from './groups.ts';

export interface Tables {
  /** Short package name → [API group, OpenAPI package prefix]. */
  readonly packages: Readonly<Record<string, readonly [string, string]>>;
  /** Short type name → lines. */
  readonly types: Readonly<Record<string, readonly string[]>>;
}

/** Go types whose JSON form is not that of their fields. */
const scalars: Readonly<Record<string, string>> = {
  string: 'string',
  bool: 'bool',
  int32: 'int32',
  int64: 'int64',
  double: 'double',
  bytes: 'bytes',
  'k8s.io/apimachinery/pkg/apis/meta/v1.Time': 'time',
  'k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime': 'microtime',
  'k8s.io/apimachinery/pkg/apis/meta/v1.Duration': 'duration',
  'k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1': 'fieldsV1',
  'k8s.io/apimachinery/pkg/api/resource.Quantity': 'quantity',
  'k8s.io/apimachinery/pkg/util/intstr.IntOrString': 'intOrString',
  'k8s.io/apimachinery/pkg/runtime.RawExtension': 'raw',
};

/** Scalars that Go holds as a plain value with a zero. */
const values = new Set(['string', 'bool', 'int32', 'int64', 'double']);

/** Types of `meta/v1` that are Go or protobuf plumbing, never part of an API body. */
const plumbing = new Set([
  'FieldsV1',
  'Duration',
  'InternalEvent',
  'MicroTime',
  'Table',
  'TableColumnDefinition',
  'TableOptions',
  'TableRow',
  'TableRowCondition',
  'Time',
  'Timestamp',
  'TypeMeta',
  'GroupKind',
  'GroupVersion',
  'List',
  'Patch',
  'RootPaths',
]);

export function buildTables(root: string): Tables {
  const model = new Model(root);
  const packages: Record<string, readonly [string, string]> = {};
  const types: Record<string, readonly string[]> = {};
  for (const apiPackage of apiPackages) {
    packages[apiPackage.short] = [
      apiPackage.group,
      `io.${apiPackage.path.replaceAll('/', '.')}`.replace('io.k8s.io.', 'io.k8s.'),
    ];
    const prefix = `${apiPackage.short}.`;
    const extra = Object.keys(extraTypes).filter(name => name.startsWith(prefix));
    if (extra.length > 0) for (const name of extra) types[name] = extraTypes[name]!;
    else for (const [name, lines] of model.typesOf(apiPackage)) types[prefix + name] = lines;
  }
  return { packages, types };
}

class Model {
  readonly #root: string;
  readonly #packages = new Map<string, GoPackage>();

  constructor(root: string) {
    this.#root = root;
  }

  /** The package's wire types and their lines, sorted by name. */
  typesOf({ path, short, kinds }: ApiPackage): [string, string[]][] {
    const go = this.#package(path);
    const all = new Map(this.#allTypesOf(go, short));
    if (kinds === undefined) return [...all];
    const wanted = new Set<string>();
    const visit = (name: string) => {
      if (!all.has(name) || wanted.has(name)) return;
      wanted.add(name);
      for (const [, type] of all
        .get(name)!
        .join('\n')
        .matchAll(/^\S* \S*?([A-Z]\w*) \d/gm))
        visit(type!);
    };
    for (const kind of kinds) for (const name of [kind, `${kind}List`]) visit(name);
    return [...all].filter(([name]) => wanted.has(name));
  }

  *#allTypesOf(go: GoPackage, short: string): Generator<[string, string[]]> {
    const names = new Set([...go.messages.keys(), ...(short === 'version' ? go.structs.keys() : [])]);
    for (const name of [...names].sort()) {
      if (short === 'meta.v1' && plumbing.has(name)) continue;
      const found = this.#struct(go, name);
      if (found !== undefined) yield [name, this.#lines(found.go, found.struct, go.messages.get(name))];
    }
  }

  #package(path: string): GoPackage {
    let found = this.#packages.get(path);
    if (found === undefined) this.#packages.set(path, (found = readGoPackage(this.#root, path)));
    return found;
  }

  /** The struct that a type name of a package stands for, and the package that defines it. */
  #struct(go: GoPackage, name: string): { go: GoPackage; struct: GoStruct } | undefined {
    const struct = go.structs.get(name);
    if (struct !== undefined) return { go, struct };
    const alias = go.named.get(name);
    if (alias === undefined || !/^[\w.]+$/.test(alias)) return undefined;
    const [qualifier, type] = alias.includes('.') ? alias.split('.') : [undefined, alias];
    if (qualifier === undefined) return this.#struct(go, type!);
    const path = go.imports.get(qualifier);
    if (path === undefined || type === 'List') return undefined;
    return this.#struct(this.#package(path), type!);
  }

  #lines(go: GoPackage, struct: GoStruct, message: ReadonlyMap<string, ProtoField> | undefined): string[] {
    const lines: string[] = [];
    const structType = struct.markers.get('structType')?.[0];
    if (structType) lines.push(`@struct ${structType}`);
    if (struct.markers.has('union')) lines.push(this.#union(struct));
    for (const [index, field] of struct.fields.entries()) {
      const [name = '', ...options] = (field.tags['json'] ?? '').split(',');
      if (name === '-') continue;
      if (field.embedded && field.goName === 'TypeMeta') {
        lines.push('apiVersion string 0', 'kind string 0');
        continue;
      }
      const protoName = /name=(\w+)/.exec(field.tags['protobuf'] ?? '')?.[1] ?? name;
      const proto = message?.get(protoName) ?? message?.get(field.goName[0]!.toLowerCase() + field.goName.slice(1));
      if (message !== undefined && proto === undefined) {
        throw new Error(`${go.path}.${struct.name}: no protobuf field for ${field.goName}`);
      }
      const type =
        proto === undefined ? field.goType : this.#typeRef(proto.repeated ? `[]${proto.type}` : proto.type, go);
      const omitEmpty = options.some(option => option.startsWith('omit'));
      const facts = name === '' ? [] : this.#facts(go, field, type, omitEmpty);
      lines.push([name, type, proto?.number ?? index + 1, ...facts].join(' '));
    }
    return lines;
  }

  #union(struct: GoStruct): string {
    const jsonName = (field: GoField) => field.tags['json']!.split(',')[0]!;
    const discriminator = struct.fields.find(field => field.markers.has('unionDiscriminator'));
    const members = struct.fields.filter(field => field !== discriminator).map(jsonName);
    return ['@union', discriminator ? jsonName(discriminator) : '-', ...members].join(' ');
  }

  #typeRef(proto: string, go: GoPackage): string {
    if (proto.startsWith('[]')) return `[]${this.#typeRef(proto.slice(2), go)}`;
    const map = /^map<string, (.*)>$/.exec(proto);
    if (map) return `map[string]${this.#typeRef(map[1]!, go)}`;
    // `.k8s.io.api.core.v1.PodSpec` or a name of this package.
    const name = proto.slice(proto.lastIndexOf('.') + 1);
    const path = proto.startsWith('.k8s.io.')
      ? `k8s.io/${proto.slice(8, -name.length - 1).replaceAll('.', '/')}`
      : go.path;
    const scalar = scalars[proto] ?? scalars[`${path}.${name}`];
    if (scalar !== undefined) return scalar;
    // A named slice is wrapped in a message on the protobuf wire only.
    const slice = /^\[\](\w+)$/.exec(this.#package(path).named.get(name) ?? '');
    if (slice) return `[]${slice[1]}`;
    const short = apiPackages.find(apiPackage => apiPackage.path === path)?.short;
    if (short === undefined) throw new Error(`${proto}: ${path} is not generated`);
    return `${short}.${name}`;
  }

  #facts(go: GoPackage, field: GoField, type: string, omitEmpty: boolean): string[] {
    const facts: string[] = [];
    const marker = (name: string) => field.markers.get(name);
    const optional = marker('optional') ? true : marker('required') ? false : omitEmpty;
    const always = this.#alwaysPresent(type, field, omitEmpty);
    const flags = `${optional ? '' : '!'}${always ? '~' : ''}${omitEmpty && this.#omittedWhenEmpty(type, field) ? '-' : ''}`;
    if (flags !== '') facts.push(flags);
    const listType = marker('listType');
    if (listType) facts.push(`list=${listType[0]}`);
    const keys = marker('listMapKey');
    if (keys) facts.push(`keys=${keys.join(',')}`);
    // On a field of a struct type `structType` overrides how the struct merges, as `mapType` does for a map.
    const mapType = marker('mapType') ?? marker('structType');
    if (mapType) facts.push(`map=${mapType[0]}`);
    const { patchStrategy, patchMergeKey } = field.tags;
    if (patchStrategy) facts.push(`patch=${patchStrategy}`);
    if (patchMergeKey) facts.push(`mergeKey=${patchMergeKey}`);
    const allowed = this.#enumOf(go, field.goType.replace(/^(\[\]|\*|map\[\w+\])+/, ''));
    if (allowed) facts.push(`enum=${allowed.join(',')}`);
    const fallback = marker('default')?.[0];
    if (fallback) facts.push(`default=${this.#defaultValue(go, fallback)}`);
    return facts;
  }

  /** Whether Go writes the field even when it is absent from the input: values without `omitempty`, and structs anyway. */
  #alwaysPresent(type: string, field: GoField, omitEmpty: boolean): boolean {
    if (/^[*[]|^map\[/.test(field.goType)) return false;
    if (values.has(type)) return !omitEmpty;
    const struct = type.includes('.') || type === 'quantity' || type === 'intOrString';
    return struct && !type.startsWith('[') && !type.startsWith('map[');
  }

  /** Whether `omitempty` drops the field when it holds false, 0, '', [] or {}. */
  #omittedWhenEmpty(type: string, field: GoField): boolean {
    if (field.goType.startsWith('*')) return false;
    return values.has(type) || type === 'bytes' || type.startsWith('[]') || type.startsWith('map[');
  }

  #enumOf(go: GoPackage, goType: string): string[] | undefined {
    const [qualifier, name] = goType.includes('.') ? goType.split('.') : [undefined, goType];
    if (qualifier !== undefined) {
      const path = go.imports.get(qualifier);
      return path?.startsWith('k8s.io/api') ? this.#enumOf(this.#package(path), name!) : undefined;
    }
    const alias = go.named.get(name!);
    if (alias !== undefined && !go.enums.has(name!) && /[A-Z]/.test(alias)) return this.#enumOf(go, alias);
    if (!go.enums.has(name!)) return undefined;
    if (alias !== 'string' && alias !== undefined) return this.#enumOf(go, alias);
    const found = go.constants
      .filter(constant => constant.type === name)
      .map(constant => this.#constant(go, constant.value));
    return [...new Set(found)].sort();
  }

  #constant(go: GoPackage, value: string): string {
    if (value.startsWith('"')) return JSON.parse(value);
    const [qualifier, name] = value.includes('.') ? value.split('.') : [undefined, value];
    const home = qualifier === undefined ? go : this.#package(go.imports.get(qualifier)!);
    const constant = home.constants.find(candidate => candidate.name === name);
    if (constant === undefined) throw new Error(`${go.path}: unknown constant ${value}`);
    return this.#constant(home, constant.value);
  }

  #defaultValue(go: GoPackage, value: string): string {
    const reference = /^ref\(([\w.]+)\)$/.exec(value);
    return JSON.stringify(reference ? this.#constant(go, reference[1]!) : JSON.parse(value));
  }
}
