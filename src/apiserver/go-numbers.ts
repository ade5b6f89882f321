/**
 * Whole numbers in texts as Go's strconv reads them, with its words for those that are none. Says only what is wrong: who asks knows
 * which Status that makes. Pure.
 */

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;
const UINT64_MAX = 2n ** 64n - 1n;

/** What ParseInt (base 10, 64 bits) says of the text. */
export function intProblem(text: string): string | undefined {
  const isNumber = /^[-+]?\d+$/.test(text);
  return problem('ParseInt', text, { isNumber, min: INT64_MIN, max: INT64_MAX });
}

/** What ParseUint (base 10, 64 bits) says of the text. */
export function uintProblem(text: string): string | undefined {
  return problem('ParseUint', text, { isNumber: /^\d+$/.test(text), min: 0n, max: UINT64_MAX });
}

function problem(
  parser: string,
  text: string,
  { isNumber, min, max }: { readonly isNumber: boolean; readonly min: bigint; readonly max: bigint },
): string | undefined {
  const about = (why: string) => `strconv.${parser}: parsing ${JSON.stringify(text)}: ${why}`;
  if (!isNumber) return about('invalid syntax');
  // Almost all are short.
  if (text.length < 19) return undefined;
  const value = BigInt(text.replace(/^\+/, ''));
  return value < min || value > max ? about('value out of range') : undefined;
}
