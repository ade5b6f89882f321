/** `node:http2`, loaded when it is first used: that takes 10 ms of a start, and the server process is a client of nobody at first. */

export const http2 = (): typeof import('node:http2') => process.getBuiltinModule('node:http2');
