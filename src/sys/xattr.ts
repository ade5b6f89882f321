/** Extended attributes and special files of unpacked image layers. Never follows a symlink. */

import { declare, SystemError } from './libc.ts';

const lsetxattr = declare<[path: string, name: string, value: Uint8Array, size: number, flags: number]>(
  'int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)',
);
const lgetxattr = declare<[path: string, name: string, value: Uint8Array, size: number]>(
  'long lgetxattr(const char *path, const char *name, _Out_ void *value, size_t size)',
);
const mknodCall = declare<[path: string, mode: number, device: number]>(
  'int mknod(const char *path, uint32_t mode, uint64_t dev)',
);

export function setAttribute(path: string, name: string, value: Uint8Array): void {
  lsetxattr(path, name, value, value.length, 0);
}

/** Undefined when the attribute is absent. */
export function getAttribute(path: string, name: string): Buffer | undefined {
  const buffer = Buffer.alloc(4096);
  try {
    return buffer.subarray(0, lgetxattr(path, name, buffer, buffer.length));
  } catch (error) {
    if (error instanceof SystemError && error.code === 'ENODATA') return undefined;
    throw error;
  }
}

export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
export const S_IFIFO = 0o010000;

/** `mode` holds the file type (S_IF…) and permissions; the umask applies. */
export function makeNode(path: string, mode: number, major = 0, minor = 0): void {
  mknodCall(path, mode, ((major & 0xfff) << 8) | (minor & 0xff) | ((minor & ~0xff) << 12));
}
