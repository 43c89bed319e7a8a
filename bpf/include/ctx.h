/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef MESH_CTX_H
#define MESH_CTX_H

/*
 * Volatile, because clang merges loads of neighbouring members, and the verifier wants each at its
 * own offset from the context ("dereference of modified ctx ptr disallowed").
 */
#define READ_CTX(member) (*(const volatile typeof(member) *)&(member))

#endif
