/** Resources as the server keeps them: encoded once, and shared by everyone they are sent to. */
import { hash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { DeltaDiscoveryResponseSchema } from "#wire/gen/discovery_pb.js";
import type { DiscoveryType } from "./type-urls.ts";

export interface EncodedResource {
  readonly name: string;
  /** Says whether two resources of one name are the same: a hash of the content, in hex. */
  readonly version: string;
  /** The bytes of a DeltaDiscoveryResponse that holds this resource and nothing else. */
  readonly bytes: Uint8Array;
}

/** 64 bits: two versions of *one name* have to differ, and nobody gains by making them equal. */
const VERSION_DIGITS = 16;

export function encodeResource(
  typeUrl: DiscoveryType,
  name: string,
  value: Uint8Array,
): EncodedResource {
  const version = hash("sha256", value, "hex").slice(0, VERSION_DIGITS);
  const resource = create(AnySchema, { typeUrl, value });
  const response = create(DeltaDiscoveryResponseSchema, {
    resources: [{ name, version, resource }],
  });
  return { name, version, bytes: toBinary(DeltaDiscoveryResponseSchema, response) };
}

export interface ResponseParts {
  readonly typeUrl: DiscoveryType;
  readonly nonce: string;
  readonly changed: readonly EncodedResource[];
  readonly removed: readonly string[];
}

/** The bytes of a response: protobuf messages that stand one after the other are one message. */
export function joinResponse({ typeUrl, nonce, changed, removed }: ResponseParts): Uint8Array {
  const rest = create(DeltaDiscoveryResponseSchema, {
    typeUrl,
    nonce,
    removedResources: [...removed],
  });
  const parts = changed.map(({ bytes }) => bytes);
  return Buffer.concat([toBinary(DeltaDiscoveryResponseSchema, rest), ...parts]);
}
