import type { Field, Mistake } from "./field.ts";
import type { Metadata } from "./objects.ts";

export interface InterpretSettings {
  /** A policy in this namespace holds in all of them. */
  readonly rootNamespace: string;
}

/** What reading one kind of object needs and gives back: mistakes go to where `spec` puts them. */
export interface Reading {
  readonly root: Field;
  readonly metadata: Metadata;
  /** Makes the object be refused. */
  readonly mistakes: Mistake[];
  /** Leaves the object in force without what they name. */
  readonly remarks: Mistake[];
  readonly settings: InterpretSettings;
}
