import type { Loggers } from "../log.ts";
import type { Timers } from "../timers.ts";
import { ConnectionLog } from "./connection-log.ts";
import { type Certificates, Outstanding, type ProxyContext, type ProxyCounts } from "./context.ts";
import { LiveInbound } from "./live-inbound.ts";
import { MeshState } from "./mesh-state.ts";
import { TrafficTable } from "./traffic.ts";

export interface RuntimeOptions {
  readonly network: string;
  readonly clusterId: string;
  readonly certificates: Certificates;
  readonly timers: Timers;
  readonly random: () => number;
  readonly loggers: Loggers;
}

/** What all pods' proxies share, with the tables that only metrics read. */
export interface ProxyRuntime {
  readonly context: ProxyContext;
  readonly traffic: TrafficTable;
}

export function createProxyRuntime(options: RuntimeOptions): ProxyRuntime {
  const { network, clusterId, certificates, timers, random, loggers } = options;
  const counts: ProxyCounts = {
    notCaptured: 0,
    endpointRetries: 0,
    handshakesFailed: 0,
    closedByPolicy: 0,
  };
  const state = new MeshState({ network, clusterId, timers });
  const traffic = new TrafficTable();
  const live = new LiveInbound(state, timers, loggers.for("policy"), () => {
    counts.closedByPolicy++;
  });
  const context: ProxyContext = {
    state,
    certificates,
    connections: new ConnectionLog(loggers.for("access"), traffic, timers),
    live,
    outstanding: new Outstanding(),
    timers,
    random,
    log: loggers.for("proxy"),
    counts,
  };
  return { context, traffic };
}
