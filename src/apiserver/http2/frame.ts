/** The words of RFC 9113 as they stand on the wire: frame types, flags, settings, error codes, and a frame's nine-byte head. */

export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const FLAG = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

export const SETTING = {
  headerTableSize: 1,
  enablePush: 2,
  concurrentStreamsMax: 3,
  initialWindowSize: 4,
  frameSizeMax: 5,
  headerListSizeMax: 6,
} as const;

export const CODE = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  streamClosed: 5,
  frameSize: 6,
  refusedStream: 7,
  cancel: 8,
  compression: 9,
  enhanceYourCalm: 11,
} as const;

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
export const FRAME_HEAD_BYTES = 9;
/** Before settings say otherwise, and what we keep to in both directions. */
export const FRAME_PAYLOAD_BYTES_MAX = 16_384;
export const INITIAL_WINDOW_BYTES = 65_535;
export const WINDOW_BYTES_MAX = 2 ** 31 - 1;

export interface FrameHead {
  readonly length: number;
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
}

/** Writes a frame's head and returns where its payload begins. */
export function writeFrameHead(target: Buffer, at: number, { length, type, flags, stream }: FrameHead): number {
  target[at] = length >>> 16;
  target[at + 1] = length >>> 8;
  target[at + 2] = length;
  target[at + 3] = type;
  target[at + 4] = flags;
  return writeUint32(target, at + 5, stream);
}

export function writeUint32(target: Buffer, at: number, value: number): number {
  target[at] = value >>> 24;
  target[at + 1] = value >>> 16;
  target[at + 2] = value >>> 8;
  target[at + 3] = value;
  return at + 4;
}

export function readUint32(source: Buffer, at: number): number {
  return ((source[at]! << 24) | (source[at + 1]! << 16) | (source[at + 2]! << 8) | source[at + 3]!) >>> 0;
}

/** A frame whose payload is some 32-bit numbers. */
export function numbersFrame(head: Omit<FrameHead, 'length'>, ...numbers: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEAD_BYTES + 4 * numbers.length);
  let at = writeFrameHead(bytes, 0, { ...head, length: 4 * numbers.length });
  for (const number of numbers) at = writeUint32(bytes, at, number);
  return bytes;
}

/** Setting identifiers with their values. */
export function settingsFrame(settings: readonly (readonly [identifier: number, value: number])[]): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEAD_BYTES + 6 * settings.length);
  let at = writeFrameHead(bytes, 0, { length: 6 * settings.length, type: FRAME.settings, flags: 0, stream: 0 });
  for (const [identifier, value] of settings) {
    at = bytes.writeUInt16BE(identifier, at);
    at = writeUint32(bytes, at, value);
  }
  return bytes;
}

/** The peer broke the protocol so that the whole connection has to end. */
export class ConnectionError extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}
