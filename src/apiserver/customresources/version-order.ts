/** The order in which the versions of a group are preferred. */

/** Kubernetes' order of preference: v10, v2, v1, v11beta2, v3beta1, v1alpha1, then other names in their own order. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [ranked(a), ranked(b)];
  if (!left || !right) return left ? -1 : right ? 1 : a < b ? -1 : a > b ? 1 : 0;
  return right[0] - left[0] || right[1] - left[1] || right[2] - left[2];
}

const STAGES = ['alpha', 'beta', undefined];

function ranked(name: string): [stage: number, major: number, minor: number] | undefined {
  const match = /^v(\d+)(?:(alpha|beta)(\d+))?$/.exec(name);
  return match ? [STAGES.indexOf(match[2]), Number(match[1]), Number(match[3] ?? 0)] : undefined;
}
