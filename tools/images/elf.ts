/**
 * What a 64-bit little-endian ELF file needs at run time: its interpreter and its shared libraries by soname.
 * Reads the program headers and the dynamic section only; anything else gives undefined.
 */

export interface ElfNeeds {
  readonly interpreter: string | undefined;
  readonly libraries: readonly string[];
}

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const DT_NEEDED = 1;
const DT_STRTAB = 5;

export function elfNeeds(file: Buffer): ElfNeeds | undefined {
  if (file.length < 64 || file.readUInt32BE(0) !== 0x7f454c46 || file[4] !== 2 || file[5] !== 1) return undefined;
  const number = (at: number): number => Number(file.readBigUInt64LE(at));
  const text = (at: number): string => file.toString('latin1', at, file.indexOf(0, at));
  const table = number(32);
  const [size, count] = [file.readUInt16LE(54), file.readUInt16LE(56)];
  const segments = Array.from({ length: count }, (_, index) => {
    const at = table + index * size;
    return { type: file.readUInt32LE(at), offset: number(at + 8), address: number(at + 16), bytes: number(at + 32) };
  });
  const interpreter = segments.find(segment => segment.type === PT_INTERP);
  const dynamic = segments.find(segment => segment.type === PT_DYNAMIC);
  const needed: number[] = [];
  let strings = 0;
  if (dynamic) {
    for (let at = dynamic.offset; at < dynamic.offset + dynamic.bytes; at += 16) {
      const tag = number(at);
      if (tag === DT_NEEDED) needed.push(number(at + 8));
      else if (tag === DT_STRTAB) strings = number(at + 8);
    }
  }
  const home = segments.find(
    ({ type, address, bytes }) => type === PT_LOAD && strings >= address && strings < address + bytes,
  );
  const stringsAt = home ? strings - home.address + home.offset : strings;
  return {
    interpreter: interpreter && text(interpreter.offset),
    libraries: needed.map(offset => text(stringsAt + offset)),
  };
}
