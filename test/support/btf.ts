/**
 * Reads the types that clang has put into an object file: enough of ELF and BTF for that.
 *
 * Not by bpftool, which Ubuntu ships as a wrapper that works for one kernel only.
 *
 * @see https://docs.kernel.org/bpf/btf.html
 */
import { readFileSync } from "node:fs";

export interface BtfStruct {
  readonly bytes: number;
  /** Member name to offset in bytes. */
  readonly offsets: Readonly<Record<string, number>>;
}

export interface BtfTypes {
  readonly structs: ReadonlyMap<string, BtfStruct>;
  /** Name of an enum to its values by name. */
  readonly enums: ReadonlyMap<string, Readonly<Record<string, number>>>;
}

const BTF_MAGIC = 0xeb9f;
const STRUCT = 4;
const ENUM = 6;

/** What follows the 12 bytes of each kind of type: a fixed part, and a part per member. */
const EXTRA_BYTES: Readonly<Record<number, readonly [fixed: number, each: number]>> = {
  1: [4, 0], // int
  2: [0, 0], // pointer
  3: [12, 0], // array
  4: [0, 12], // struct
  5: [0, 12], // union
  6: [0, 8], // enum
  7: [0, 0], // forward declaration
  8: [0, 0], // typedef
  9: [0, 0], // volatile
  10: [0, 0], // const
  11: [0, 0], // restrict
  12: [0, 0], // function
  13: [0, 8], // function prototype
  14: [4, 0], // variable
  15: [0, 12], // section
  16: [0, 0], // float
  17: [4, 0], // declaration tag
  18: [0, 0], // type tag
  19: [0, 12], // 64-bit enum
};

/** @throws Error where `path` is no little-endian 64-bit ELF file with a section .BTF */
export function readBtf(path: string): BtfTypes {
  const btf = sectionOf(readFileSync(path), ".BTF");
  if (btf.readUInt16LE(0) !== BTF_MAGIC) throw new Error(`"${path}" has no BTF`);
  const headerBytes = btf.readUInt32LE(4);
  const types = btf.subarray(headerBytes + btf.readUInt32LE(8)).subarray(0, btf.readUInt32LE(12));
  const strings = btf.subarray(headerBytes + btf.readUInt32LE(16));
  const structs = new Map<string, BtfStruct>();
  const enums = new Map<string, Record<string, number>>();

  for (let at = 0; at < types.length; ) {
    const info = types.readUInt32LE(at + 4);
    const kind = (info >> 24) & 0x1f;
    const count = info & 0xffff;
    const extra = EXTRA_BYTES[kind];
    if (extra === undefined) throw new Error(`"${path}" has BTF of the unknown kind ${kind}`);
    const [fixedBytes, eachBytes] = extra;
    const name = textAt(strings, types.readUInt32LE(at));
    const members = Array.from({ length: eachBytes === 0 ? 0 : count }, (_, index) => {
      return types.subarray(at + 12 + fixedBytes + index * eachBytes);
    });
    const named = (read: (member: Buffer) => number) =>
      Object.fromEntries(members.map((m) => [textAt(strings, m.readUInt32LE(0)), read(m)]));
    if (kind === STRUCT) {
      const offsets = named((member) => member.readUInt32LE(8) / 8);
      structs.set(name, { bytes: types.readUInt32LE(at + 8), offsets });
    }
    if (kind === ENUM)
      enums.set(
        name,
        named((member) => member.readInt32LE(4)),
      );
    at += 12 + fixedBytes + members.length * eachBytes;
  }
  return { structs, enums };
}

/** @see elf(5) */
function sectionOf(file: Buffer, name: string): Buffer {
  if (file.readUInt32BE(0) !== 0x7f454c46 || file[4] !== 2 || file[5] !== 1) {
    throw new Error("not a little-endian 64-bit ELF file");
  }
  const start = Number(file.readBigUInt64LE(0x28));
  const entryBytes = file.readUInt16LE(0x3a);
  const sections = Array.from({ length: file.readUInt16LE(0x3c) }, (_, index) => {
    const header = file.subarray(start + index * entryBytes);
    const offset = Number(header.readBigUInt64LE(0x18));
    const bytes = Number(header.readBigUInt64LE(0x20));
    return { nameAt: header.readUInt32LE(0), body: file.subarray(offset, offset + bytes) };
  });
  const names = sections[file.readUInt16LE(0x3e)]?.body ?? Buffer.alloc(0);
  const found = sections.find(({ nameAt }) => textAt(names, nameAt) === name);
  if (found === undefined) throw new Error(`no section ${name}`);
  return found.body;
}

function textAt(strings: Buffer, at: number): string {
  return strings.toString("utf8", at, strings.indexOf(0, at));
}
