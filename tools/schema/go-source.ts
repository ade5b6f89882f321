/**
 * Reads the facts of API types out of Kubernetes' Go packages: struct fields with their tags and comment markers,
 * enum constants, and the protobuf messages beside them. A reader of these particular files, not of Go in general.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface GoField {
  /** Go name; for an embedded field the name of its type. */
  readonly goName: string;
  readonly goType: string;
  readonly embedded: boolean;
  /** `json:` and `protobuf:` struct tags and such, by key. */
  readonly tags: Readonly<Record<string, string>>;
  readonly markers: Markers;
}

export interface GoStruct {
  readonly name: string;
  readonly fields: readonly GoField[];
  readonly markers: Markers;
}

export interface ProtoField {
  readonly type: string;
  readonly repeated: boolean;
  readonly number: number;
}

export interface GoPackage {
  /** Import path, `k8s.io/api/core/v1`. */
  readonly path: string;
  readonly imports: ReadonlyMap<string, string>;
  readonly structs: ReadonlyMap<string, GoStruct>;
  /** Named types that are not structs: name → definition. */
  readonly named: ReadonlyMap<string, string>;
  /** Named types marked `+enum`. */
  readonly enums: ReadonlySet<string>;
  readonly constants: readonly GoConstant[];
  readonly messages: ReadonlyMap<string, ReadonlyMap<string, ProtoField>>;
}

export interface GoConstant {
  readonly name: string;
  readonly type: string;
  /** A quoted string or the name of another constant. */
  readonly value: string;
}

/** Comment markers: name → values in order of appearance (`''` when the marker has none). */
export type Markers = ReadonlyMap<string, readonly string[]>;

export function readGoPackage(root: string, path: string): GoPackage {
  const folder = join(root, path.replace(/^k8s\.io\//, ''));
  const imports = new Map<string, string>();
  const structs = new Map<string, GoStruct>();
  const named = new Map<string, string>();
  const enums = new Set<string>();
  const constants: GoConstant[] = [];
  for (const file of readdirSync(folder).sort()) {
    if (!file.endsWith('.go') || /(_test|\.pb|swagger_doc_generated)\.go$|^zz_generated/.test(file)) continue;
    readGoFile(readFileSync(join(folder, file), 'utf8'), { imports, structs, named, enums, constants });
  }
  const proto = join(folder, 'generated.proto');
  const messages = existsSync(proto) ? readProto(readFileSync(proto, 'utf8')) : new Map();
  return { path, imports, structs, named, enums, constants, messages };
}

interface Sink {
  readonly imports: Map<string, string>;
  readonly structs: Map<string, GoStruct>;
  readonly named: Map<string, string>;
  readonly enums: Set<string>;
  readonly constants: GoConstant[];
}

function readGoFile(text: string, sink: Sink): void {
  let comment: string[] = [];
  let struct: { name: string; fields: GoField[]; markers: Markers } | undefined;
  for (const raw of text.replace(/\/\*[\s\S]*?\*\//g, '').split('\n')) {
    const line = raw.trim();
    if (line.startsWith('//')) {
      comment.push(line.slice(2).trim());
      continue;
    }
    const markers = readMarkers(comment);
    if (struct !== undefined) {
      if (line === '}') {
        sink.structs.set(struct.name, struct);
        struct = undefined;
      } else if (line !== '') {
        const field = readField(line, markers);
        if (field !== undefined) struct.fields.push(field);
      }
    } else {
      const [, alias, path] = /^(?:import\s+)?(\w+)?\s*"((?:k8s\.io|sigs)[^"]+)"$/.exec(line) ?? [];
      if (path !== undefined) sink.imports.set(alias ?? path.slice(path.lastIndexOf('/') + 1), path);
      const [, name, definition] = /^type (\w+) (.+)$/.exec(line) ?? [];
      if (name !== undefined && definition === 'struct {') struct = { name, fields: [], markers };
      else if (name !== undefined && /^struct\s*\{\s*\}$/.test(definition!)) {
        sink.structs.set(name, { name, fields: [], markers });
      } else if (name !== undefined) {
        sink.named.set(name, definition!.replace(/^= /, ''));
        if (markers.has('enum')) sink.enums.add(name);
      }
      const constant = /^(?:const )?(\w+)\s+([\w.]+)\s*=\s*("[^"]*"|[\w.]+)$/.exec(line);
      if (constant) sink.constants.push({ name: constant[1]!, type: constant[2]!, value: constant[3]! });
      const converted = /^(?:const )?(\w+)\s*=\s*(\w+)\(("[^"]*")\)$/.exec(line);
      if (converted) sink.constants.push({ name: converted[1]!, type: converted[2]!, value: converted[3]! });
    }
    // A blank line between a comment and a field does not detach the comment's markers: Kubernetes' generators read both.
    if (line !== '') comment = [];
  }
}

function readMarkers(comment: readonly string[]): Markers {
  const markers = new Map<string, string[]>();
  for (const line of comment) {
    const [, name, value] = /^\+([\w:.-]+)(?:=(.*))?$/.exec(line) ?? [];
    if (name === undefined) continue;
    const values = markers.get(name);
    if (values) values.push(value ?? '');
    else markers.set(name, [value ?? '']);
  }
  return markers;
}

function readField(line: string, markers: Markers): GoField | undefined {
  const [, declaration, tagText] = /^(.*?)\s*(?:`([^`]*)`)?(?:\s*\/\/.*)?$/.exec(line)!;
  const tags: Record<string, string> = {};
  for (const [, key, value] of (tagText ?? '').matchAll(/(\w+):"([^"]*)"/g)) tags[key!] = value!;
  const words = declaration!.trim().split(/\s+/);
  if (words.length === 1) {
    const type = words[0]!;
    return { goName: type.replace(/^.*[.*]/, ''), goType: type, embedded: true, tags, markers };
  }
  if (!/^[A-Z]/.test(words[0]!)) return undefined;
  return { goName: words[0]!, goType: words.slice(1).join(' '), embedded: false, tags, markers };
}

function readProto(text: string): Map<string, ReadonlyMap<string, ProtoField>> {
  const messages = new Map<string, ReadonlyMap<string, ProtoField>>();
  for (const [, name, body] of text.matchAll(/^message (\w+) \{\n([\s\S]*?)^\}/gm)) {
    const fields = new Map<string, ProtoField>();
    const pattern = /^\s*(?:(optional|repeated|required) )?(map<[^>]+>|[\w.]+) (\w+) = (\d+);/gm;
    for (const [, label, type, field, number] of body!.matchAll(pattern)) {
      fields.set(field!, { type: type!, repeated: label === 'repeated', number: Number(number) });
    }
    messages.set(name!, fields);
  }
  return messages;
}
