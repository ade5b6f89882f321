/**
 * Domain names between their two forms: wire (RFC 1035 §3.1: length-prefixed labels, a zero at the end) and text
 * (`web.default.svc.cluster.local`, no final dot, `''` is the root). Text escapes dots, backslashes and bytes outside
 * printable ASCII as zone files do, so that every wire name has exactly one text and comes back the same.
 * It refuses names over 255 bytes, labels over 63 and compression pointers that do not lead strictly backwards.
 */

export const NAME_BYTES_MAX = 255;
const LABEL_BYTES_MAX = 63;
const POINTER = 0xc0;

/** A message or name that breaks RFC 1035; answered with FORMERR or dropped, never a crash. */
export class FormatError extends Error {
  override name = 'FormatError';
}

function escapeLabel(bytes: Uint8Array, start: number, end: number): string {
  let out = '';
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    if (byte === 0x2e || byte === 0x5c) out += `\\${String.fromCharCode(byte)}`;
    else if (byte <= 0x20 || byte >= 0x7f) out += `\\${String(byte).padStart(3, '0')}`;
    else out += String.fromCharCode(byte);
  }
  return out;
}

/** Splits text into labels of raw bytes (as latin1), undoing escapes. Throws FormatError. */
export function labelsOf(text: string): string[] {
  const trimmed = text.endsWith('.') && !text.endsWith('\\.') ? text.slice(0, -1) : text;
  if (trimmed === '') return [];
  if (!trimmed.includes('\\')) return checkLabels(trimmed.split('.'));
  const labels: string[] = [];
  let label = '';
  for (let at = 0; at < trimmed.length; at++) {
    const char = trimmed[at]!;
    if (char === '.') {
      labels.push(label);
      label = '';
    } else if (char !== '\\') {
      label += char;
    } else {
      const digits = /^[0-9]{3}/.exec(trimmed.slice(at + 1, at + 4))?.[0];
      if (digits !== undefined) {
        if (Number(digits) > 255) throw new FormatError('escape out of range');
        label += String.fromCharCode(Number(digits));
        at += 3;
      } else {
        const next = trimmed[++at];
        if (next === undefined) throw new FormatError('escape at end of name');
        label += next;
      }
    }
  }
  labels.push(label);
  return checkLabels(labels);
}

function checkLabels(labels: string[]): string[] {
  let bytes = 1;
  for (const label of labels) {
    if (label.length === 0 || label.length > LABEL_BYTES_MAX) throw new FormatError('label length');
    bytes += label.length + 1;
  }
  if (bytes > NAME_BYTES_MAX) throw new FormatError('name too long');
  return labels;
}

export function encodeName(text: string): Buffer {
  const labels = labelsOf(text);
  return Buffer.from(`${labels.map(label => String.fromCharCode(label.length) + label).join('')}\0`, 'latin1');
}

/**
 * Where the uncompressed name that starts at `at` ends (the byte after its zero), or -1 when it is malformed,
 * compressed, or does not fit before `end`. For questions, which have nothing to point back to.
 */
export function endOfPlainName(message: Uint8Array, at: number, end: number): number {
  const limit = Math.min(end, at + NAME_BYTES_MAX);
  while (at < limit) {
    const length = message[at]!;
    if (length === 0) return at + 1;
    if (length > LABEL_BYTES_MAX) return -1;
    at += length + 1;
  }
  return -1;
}

/** Where the name at `at` ends in the message, pointers included but not followed; -1 when malformed. */
export function endOfName(message: Uint8Array, at: number, end: number): number {
  const limit = Math.min(end, at + NAME_BYTES_MAX + 1);
  while (at < limit) {
    const length = message[at]!;
    if (length === 0) return at + 1;
    if (length >= POINTER) return at + 2 <= end ? at + 2 : -1;
    if (length > LABEL_BYTES_MAX) return -1;
    at += length + 1;
  }
  return -1;
}

/** Reads a name, following pointers. Every pointer must lead before the name's own start, which bounds the walk. */
export function decodeName(message: Uint8Array, at: number): { readonly name: string; readonly end: number } {
  const labels: string[] = [];
  let bytes = 1;
  let end = -1;
  let lowest = at;
  for (;;) {
    const length = message[at];
    if (length === undefined) throw new FormatError('name outside message');
    if (length === 0) {
      if (end < 0) end = at + 1;
      return { name: labels.join('.'), end };
    }
    if (length >= POINTER) {
      const low = message[at + 1];
      if (low === undefined) throw new FormatError('pointer outside message');
      if (end < 0) end = at + 2;
      at = ((length & 0x3f) << 8) | low;
      if (at >= lowest) throw new FormatError('pointer does not lead backwards');
      lowest = at;
      continue;
    }
    if (length > LABEL_BYTES_MAX) throw new FormatError('label type');
    bytes += length + 1;
    if (bytes > NAME_BYTES_MAX) throw new FormatError('name too long');
    if (at + 1 + length > message.length) throw new FormatError('label outside message');
    labels.push(escapeLabel(message, at + 1, at + 1 + length));
    at += length + 1;
  }
}
