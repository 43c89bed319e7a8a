/** The environment and the command line of a container. */
import type { ContainerSpec, PodField } from "../object/object.ts";

export type PodFields = Readonly<Record<PodField, string>>;

/** Names and values in the order in which they are defined: a value may use those before it. */
export function environmentOf(
  { environment }: ContainerSpec,
  fields: PodFields,
  base: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const variables: Record<string, string> = {};
  for (const entry of environment) {
    variables[entry.name] =
      entry.kind === "value" ? expand(entry.value, variables) : fields[entry.field];
  }
  return { ...base, ...variables };
}

export function commandOf(
  { command }: ContainerSpec,
  environment: Readonly<Record<string, string>>,
): readonly string[] {
  return command.map((word) => expand(word, environment));
}

/**
 * Puts variables in: `$(NAME)` is the value of NAME, `$$(NAME)` is the text `$(NAME)`, and a name
 * that is not defined stays as it stands.
 *
 * @see https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
 */
export function expand(text: string, variables: Readonly<Record<string, string>>): string {
  return text.replaceAll(/\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)/g, (whole, name?: string) => {
    if (name === undefined) return "$";
    return variables[name] ?? whole;
  });
}
