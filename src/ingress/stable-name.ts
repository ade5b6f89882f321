/** A short name that says nothing and cannot collide by accident (FNV-1a, 64 bits in two halves). */
export function stableName(text: string): string {
  let [a, b] = [0x811c9dc5, 0x1b873593];
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    a = Math.imul(a ^ code, 0x01000193);
    b = Math.imul(b ^ (code + at), 0x85ebca6b);
  }
  return ((a >>> 0).toString(16) + (b >>> 0).toString(16)).padStart(9, '0');
}
