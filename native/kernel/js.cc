#include "js.h"

#include <climits>
#include <cmath>
#include <cstring>

Bytes TakeBytes(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw Napi::TypeError::New(info.Env(), std::string(name) + " must be a Uint8Array");
  }
  auto bytes = value.As<Napi::Uint8Array>();
  return {bytes.Data(), bytes.ByteLength()};
}

uint8_t* TakeBytes(const Napi::CallbackInfo& info, size_t index, const char* name, size_t size) {
  const Bytes bytes = TakeBytes(info, index, name);
  if (bytes.size != size) {
    throw Napi::RangeError::New(info.Env(), std::string(name) + " must have " +
                                                std::to_string(size) + " bytes, not " +
                                                std::to_string(bytes.size));
  }
  return bytes.data;
}

std::string TakeString(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsString()) {
    throw Napi::TypeError::New(info.Env(), std::string(name) + " must be a string");
  }
  std::string text = value.As<Napi::String>().Utf8Value();
  // The kernel would read up to it, and act on another name than was meant.
  if (text.find('\0') != std::string::npos) {
    throw Napi::RangeError::New(info.Env(), std::string(name) + " must not contain NUL");
  }
  return text;
}

int TakeInt(const Napi::CallbackInfo& info, size_t index, const char* name, int min, int max) {
  const Napi::Value value = info[index];
  if (!value.IsNumber()) {
    throw Napi::TypeError::New(info.Env(), std::string(name) + " must be a number");
  }
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= min && number <= max) || std::floor(number) != number) {
    throw Napi::RangeError::New(info.Env(), std::string(name) + " must be an integer from " +
                                                std::to_string(min) + " to " + std::to_string(max));
  }
  return static_cast<int>(number);
}

int TakeFd(const Napi::CallbackInfo& info, size_t index) {
  return TakeInt(info, index, "fd", 0, INT_MAX);
}

uint64_t TakeUint64(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsBigInt()) {
    throw Napi::TypeError::New(info.Env(), std::string(name) + " must be a bigint");
  }
  bool lossless = false;
  const uint64_t number = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) {
    throw Napi::RangeError::New(info.Env(), std::string(name) + " must have 64 bits at most");
  }
  return number;
}

bool TakeBool(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsBoolean()) {
    throw Napi::TypeError::New(info.Env(), std::string(name) + " must be a boolean");
  }
  return value.As<Napi::Boolean>().Value();
}

Napi::Error SystemError(Napi::Env env, const char* syscall, int error) {
  return LibbpfError(env, syscall, error, strerror(error));
}

Napi::Error LibbpfError(Napi::Env env, const char* call, int error, const std::string& detail) {
  const size_t end = detail.find_last_not_of(" \n");
  auto result = Napi::Error::New(env, detail.substr(0, end == std::string::npos ? 0 : end + 1));
  result.Set("syscall", Napi::String::New(env, call));
  result.Set("errno", Napi::Number::New(env, error));
  return result;
}
