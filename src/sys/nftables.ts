/**
 * nftables through libnftables, in process: text in the language of `nft` runs as one atomic transaction.
 * A context belongs to the namespace it was opened in. libnftables may look at the namespace's whole ruleset for each
 * command; changes of elements alone are quicker through `nfnetlink.ts`. It refuses nothing that `nft` accepts.
 */

import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { assert } from '../base/assert.ts';
import { inNamespace, type NetnsRef } from './netns.ts';

/** What libnftables printed about a command that failed; nothing of the command was applied. */
export class NftablesError extends Error {
  override name = 'NftablesError';
}

const NFT_CTX_OUTPUT_JSON = 1 << 4;

interface Library {
  newContext(flags: number): unknown;
  freeContext(context: unknown): void;
  bufferOutput(context: unknown): number;
  bufferError(context: unknown): number;
  output(context: unknown): string;
  error(context: unknown): string;
  setOutput(context: unknown, flags: number): void;
  run(context: unknown, text: string): number;
}

let loaded: Library | undefined;

/**
 * libnftables waits with select(), which ends the process when its socket has a number of 1024 or more. Numbers are given
 * lowest first: these are held from when a process is young, and free while libnftables looks for one.
 */
const reserved: number[] = [];
const RESERVED = 2;

function reserve(): void {
  while (reserved.length < RESERVED) reserved.push(openSync('/dev/null', 'r'));
}

// Loaded at first use: a control plane without a node needs no libnftables.
function library(): Library {
  if (loaded) return loaded;
  const file = koffi.load('libnftables.so.1');
  return (loaded = {
    newContext: file.func('void *nft_ctx_new(uint32_t flags)'),
    freeContext: file.func('void nft_ctx_free(void *ctx)'),
    bufferOutput: file.func('int nft_ctx_buffer_output(void *ctx)'),
    bufferError: file.func('int nft_ctx_buffer_error(void *ctx)'),
    output: file.func('const char *nft_ctx_get_output_buffer(void *ctx)'),
    error: file.func('const char *nft_ctx_get_error_buffer(void *ctx)'),
    setOutput: file.func('void nft_ctx_output_set_flags(void *ctx, unsigned int flags)'),
    run: file.func('int nft_run_cmd_from_buffer(void *ctx, const char *buf)'),
  });
}

/** The door that callers depend on; `Nftables` is the real one. */
export interface NftablesDoor {
  /** Runs commands as one transaction and returns what they print. Throws NftablesError, having changed nothing. */
  run(text: string): string;
  close(): void;
}

export class Nftables implements NftablesDoor {
  readonly #namespace: NetnsRef | undefined;
  #context: unknown;

  constructor(namespace?: NetnsRef) {
    this.#namespace = namespace;
    reserve();
  }

  run(text: string): string {
    // Element changes of large maps leave much garbage inside a context: each run gets a fresh one, 20 µs.
    return this.#enter(() => {
      const lib = library();
      this.#context = lib.newContext(0);
      assert(this.#context, 'libnftables gave no context');
      try {
        lib.bufferOutput(this.#context);
        lib.bufferError(this.#context);
        const failed = lib.run(this.#context, text) !== 0;
        if (failed) throw new NftablesError(lib.error(this.#context).trim() || 'nftables: command failed');
        return lib.output(this.#context);
      } finally {
        lib.freeContext(this.#context);
        this.#context = undefined;
      }
    });
  }

  /** The same as JSON (`libnftables-json(5)`), for reading a ruleset back. */
  list(command = 'list ruleset'): unknown {
    return this.#enter(() => {
      const lib = library();
      const context = lib.newContext(0);
      try {
        lib.setOutput(context, NFT_CTX_OUTPUT_JSON);
        lib.bufferOutput(context);
        lib.bufferError(context);
        if (lib.run(context, command) !== 0) throw new NftablesError(lib.error(context).trim());
        return JSON.parse(lib.output(context) || '{"nftables":[]}');
      } finally {
        lib.freeContext(context);
      }
    });
  }

  close(): void {}

  #enter<T>(work: () => T): T {
    const run = () => {
      while (reserved.length > 0) closeSync(reserved.pop()!);
      try {
        return work();
      } finally {
        reserve();
      }
    };
    return this.#namespace === undefined ? run() : inNamespace(this.#namespace, run);
  }
}
