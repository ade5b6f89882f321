/** The language as Kubernetes speaks it: all libraries, and expressions compiled once for many evaluations. */

import { compileExpression, type Program } from './evaluator.ts';
import { type Library, library, type Overload } from './functions.ts';
import { KUBERNETES } from './kubernetes-library.ts';
import { parse } from './parser.ts';
import { STANDARD } from './standard-library.ts';
import { EXTENSIONS } from './strings-library.ts';

let base: Library | undefined;

/** Everything that rules of definitions may call. */
export function kubernetesLibrary(): Library {
  base ??= library(STANDARD, EXTENSIONS, KUBERNETES);
  return base;
}

export function extendedLibrary(...more: readonly (readonly Overload[])[]): Library {
  return library(STANDARD, EXTENSIONS, KUBERNETES, ...more);
}

/** Throws CelSyntaxError or CelError for what cannot be compiled. */
export function compile(source: string, functions: Library = kubernetesLibrary()): Program {
  return compileExpression(parse(source), functions);
}
