/** Names of the files of every HAProxy of ours, relative to the folder in which it runs. */

export const CONFIGURATION = 'haproxy.cfg';
export const RUNTIME_SOCKET = 'runtime.sock';
export const MASTER_SOCKET = 'master.sock';
