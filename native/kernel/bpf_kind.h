#pragma once

#include <napi.h>

// Throws EINVAL unless the descriptor is a BPF "map" or "link", as `kind` says.
//
// BPF_OBJ_GET hands out whatever is pinned, and the kernel then answers questions about one kind
// with the structure of another.
void RequireBpfKind(Napi::Env env, int fd, const char* kind);
