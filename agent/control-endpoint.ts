import { readFile } from "node:fs/promises";
import { MeshError } from "#core/errors.ts";
import type { ControlEndpoint } from "#wire/xds/control-endpoint.ts";
import type { AgentConfig, RootSource, ServerConfig, TokenSource } from "./config.ts";

/** How the settings say that a control server is reached. Files are read for each connection. */
export function controlEndpoint(
  server: ServerConfig,
  { token, clusterId }: Pick<AgentConfig, "token" | "clusterId">,
): ControlEndpoint {
  return {
    url: server.address,
    serverName: server.alternativeHostname,
    readRoots: () => readRoots(server.root),
    readToken: () => readToken(token),
    headers: { clusterid: clusterId, ...server.headers },
  };
}

async function readRoots(root: RootSource): Promise<string | undefined> {
  switch (root.kind) {
    case "system":
      return undefined;
    case "pem":
      return root.text;
    case "file":
      return readText("root certificate", root.path);
  }
}

async function readToken(token: TokenSource): Promise<string> {
  return token.kind === "text" ? token.text : (await readText("token", token.path)).trim();
}

async function readText(what: string, path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new MeshError("CONTROL_UNREACHABLE", `Cannot read ${what} "${path}"`, { cause });
  }
}
