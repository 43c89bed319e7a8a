#pragma once

#include <napi.h>

// What one environment (main thread or worker) holds of this addon.
struct AddonData {
  Napi::FunctionReference bpf_link;
  Napi::FunctionReference bpf_map;
  Napi::FunctionReference bpf_object;
};
