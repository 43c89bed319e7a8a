#pragma once

// Arguments from JavaScript, each checked before anything is done with it, and errors back to it.

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <string>

// What bytes are there: for arguments of which more than one length is right.
struct Bytes {
  uint8_t* data;
  size_t size;
};

// A Uint8Array. Throws TypeError.
Bytes TakeBytes(const Napi::CallbackInfo& info, size_t index, const char* name);
// A Uint8Array of exactly `size` bytes. Throws TypeError, RangeError.
uint8_t* TakeBytes(const Napi::CallbackInfo& info, size_t index, const char* name, size_t size);
// A text without NUL. Throws TypeError, RangeError.
std::string TakeString(const Napi::CallbackInfo& info, size_t index, const char* name);
// An integer from `min` to `max`. Throws TypeError, RangeError.
int TakeInt(const Napi::CallbackInfo& info, size_t index, const char* name, int min, int max);
// A number that can be a descriptor; whether it is one is the kernel's to say.
int TakeFd(const Napi::CallbackInfo& info, size_t index);
// A BigInt of 64 bits. Throws TypeError, RangeError.
uint64_t TakeUint64(const Napi::CallbackInfo& info, size_t index, const char* name);
bool TakeBool(const Napi::CallbackInfo& info, size_t index, const char* name);

// An error with `syscall` and a positive `errno`, which the TypeScript side gives a sentence.
Napi::Error SystemError(Napi::Env env, const char* syscall, int error);
// The same with libbpf's own account of the failure as its message.
Napi::Error LibbpfError(Napi::Env env, const char* call, int error, const std::string& detail);
