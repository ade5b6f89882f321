/** Lists of a Job's indexes as text, `1,3-5,7`: their syntax, and whether two of them overlap. Messages as upstream's. */

export interface IndexList {
  readonly intervals: readonly (readonly [first: number, last: number])[];
  readonly total: number;
  /** What is wrong with the text; `intervals` then hold what stands before. */
  readonly problem?: string;
}

/** Intervals grow, and stay below `completions`. The empty text is the empty list. */
export function readIndexList(text: string, completions: number): IndexList {
  const intervals: [number, number][] = [];
  let total = 0;
  let previous = -1;
  for (const part of text === '' ? [] : text.split(',')) {
    const limits = part.split('-');
    if (limits.length > 2)
      return {
        intervals,
        total: 0,
        problem: `the fragment ${JSON.stringify(part)} violates the requirement that an index interval can have at most two parts separated by '-'`,
      };
    const numbers: number[] = [];
    for (const limit of limits) {
      if (!/^\+?\d+$/.test(limit))
        return { intervals, total: 0, problem: `cannot convert string to integer for index: ${JSON.stringify(limit)}` };
      if (Number(limit) >= completions)
        return { intervals, total: 0, problem: `too large index: ${JSON.stringify(limit)}` };
      numbers.push(Number(limit));
    }
    const [first = 0, last = first] = numbers;
    if (numbers.length === 2 && first >= last) return { intervals, total: 0, problem: disorder(first, last) };
    if (previous >= first) return { intervals, total: 0, problem: disorder(previous, first) };
    intervals.push([first, last]);
    total += last - first + 1;
    previous = last;
  }
  return { intervals, total };
}

function disorder(previous: number, current: number): string {
  return `non-increasing order, previous: ${previous}, current: ${current}`;
}

/** The first index that both have; one pass over each. */
export function sharedIndex(one: IndexList, other: IndexList): number | undefined {
  let left = 0;
  let right = 0;
  while (left < one.intervals.length && right < other.intervals.length) {
    const [first, last] = one.intervals[left]!;
    const [otherFirst, otherLast] = other.intervals[right]!;
    if (first <= otherLast && otherFirst <= last) return Math.max(first, otherFirst);
    if (first <= otherFirst) left++;
    else right++;
  }
  return undefined;
}
