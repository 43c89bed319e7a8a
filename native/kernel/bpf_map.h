#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>

#include "unique_fd.h"

// A BPF map by descriptor, with the sizes that the kernel will read and write.
class BpfMap : public Napi::ObjectWrap<BpfMap> {
 public:
  static Napi::Function Define(Napi::Env env);
  // Hands `fd` to a new object.
  static Napi::Value Make(Napi::Env env, UniqueFd fd);
  static Napi::Value MakeHash(const Napi::CallbackInfo& info);

  explicit BpfMap(const Napi::CallbackInfo& info);

 private:
  Napi::Value Fd(const Napi::CallbackInfo& info);
  Napi::Value KeyBytes(const Napi::CallbackInfo& info);
  Napi::Value ValueBytes(const Napi::CallbackInfo& info);
  Napi::Value EntriesMax(const Napi::CallbackInfo& info);
  Napi::Value Lookup(const Napi::CallbackInfo& info);
  void Update(const Napi::CallbackInfo& info);
  Napi::Value Delete(const Napi::CallbackInfo& info);
  Napi::Value NextKey(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  void Measure(Napi::Env env);

  UniqueFd fd_;
  size_t key_bytes_ = 0;
  size_t value_bytes_ = 0;
  uint32_t entries_max_ = 0;
};
