/** Equality of API values, as upstream's `equality.Semantic`: absent, null and an empty list are the same. */

export function semanticEqual(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (isNothing(a)) return isNothing(b);
  if (isNothing(b) || typeof a !== 'object' || typeof b !== 'object') return false;
  if (Array.isArray(a)) {
    if (!Array.isArray(b) || a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!semanticEqual(a[i], b[i])) return false;
    return true;
  }
  if (Array.isArray(b)) return false;
  const left = a as Record<string, unknown>;
  const right = b as Record<string, unknown>;
  for (const key in left) if (!semanticEqual(left[key], right[key])) return false;
  for (const key in right) if (left[key] === undefined && !isNothing(right[key])) return false;
  return true;
}

/** Whether another spec is asked for: what raises the generation of most kinds. */
export function isNewSpec({ spec }: { readonly spec?: unknown }, { spec: old }: { readonly spec?: unknown }): boolean {
  return !semanticEqual(spec, old);
}

function isNothing(value: unknown): value is undefined | null | [] {
  return value === undefined || value === null || (Array.isArray(value) && value.length === 0);
}
