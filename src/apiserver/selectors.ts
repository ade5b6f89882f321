/**
 * Label and field selectors of list, watch and deletecollection, compiled to one predicate on objects. Fields that a
 * kind does not name are refused, as upstream does.
 */

import { type Match, matchEverything, parseLabelSelector } from '../api/machinery/labels.ts';
import type { KubeObject } from '../api/meta.ts';
import { badRequest } from '../base/errors.ts';
import type { Served } from './resource-table.ts';

export interface Selector {
  readonly matches: (object: KubeObject) => boolean;
  /** Nothing is selected away. */
  readonly everything: boolean;
  /** The only name that can match, from `metadata.name=x`. */
  readonly name?: string;
  /** Likewise for `metadata.namespace=x`. */
  readonly namespace?: string;
}

const SELECT_ALL: Selector = { matches: () => true, everything: true };

interface FieldRequirement {
  readonly field: string;
  readonly value: string;
  readonly equal: boolean;
}

export function compileSelector(
  served: Served,
  options: { labelSelector?: string | undefined; fieldSelector?: string | undefined },
): Selector {
  if (!options.labelSelector && !options.fieldSelector) return SELECT_ALL;
  const labels: Match = options.labelSelector ? parseLabelSelector(options.labelSelector) : matchEverything;
  const requirements = options.fieldSelector ? parseFieldSelector(options.fieldSelector) : [];
  const tests = requirements.map(({ field, value, equal }) => {
    const read = fieldReader(served, field);
    return (object: KubeObject) => (read(object) === value) === equal;
  });
  const only = (field: string) => requirements.find(item => item.equal && item.field === field)?.value;
  const name = only('metadata.name');
  const namespace = only('metadata.namespace');
  return {
    everything: labels === matchEverything && tests.length === 0,
    matches: object => labels(object.metadata.labels) && tests.every(test => test(object)),
    ...(name === undefined ? {} : { name }),
    ...(namespace === undefined ? {} : { namespace }),
  };
}

function fieldReader(served: Served, field: string): (object: KubeObject) => string {
  if (field === 'metadata.name') return object => object.metadata.name;
  if (field === 'metadata.namespace' && served.info.namespaced) return object => object.metadata.namespace ?? '';
  const fields = served.kind?.selectableFields;
  // A kind served in a second version names the same facts differently there (events.k8s.io: regarding).
  const storedName = field
    .replace(/^regarding\b/, 'involvedObject')
    .replace(/^reportingController$/, 'reportingComponent');
  const read = fields?.[field] ?? (served.info !== served.stored ? fields?.[storedName] : undefined);
  if (!read)
    throw badRequest(
      fields || served.custom
        ? `field label not supported: ${field}`
        : `${JSON.stringify(field)} is not a known field selector: only "metadata.name", "metadata.namespace"`,
    );
  return read;
}

/** `a=b,c!=d`; a backslash takes the next comma, equals sign or backslash literally. */
export function parseFieldSelector(text: string): FieldRequirement[] {
  const requirements: FieldRequirement[] = [];
  for (const term of splitTerms(text)) {
    if (term === '') continue;
    const match = /^([^=!]*?)(==|!=|=)(.*)$/s.exec(term);
    if (!match) throw badRequest(`invalid selector: '${text}'; can't understand '${term}'`);
    requirements.push({ field: match[1]!, equal: match[2] !== '!=', value: match[3]!.replace(/\\([\\,=])/g, '$1') });
  }
  return requirements;
}

function splitTerms(text: string): string[] {
  const terms: string[] = [];
  let start = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === ',') {
      terms.push(text.slice(start, at));
      start = at + 1;
    }
  }
  terms.push(text.slice(start));
  return terms;
}
