/**
 * A `Base` that only its parser makes, so that two kinds of string are not mixed up.
 *
 * The tag exists for the compiler alone; at run time a branded value is its plain base.
 */
export type Brand<Base, Tag extends string> = Base & { readonly __brand: Tag };
