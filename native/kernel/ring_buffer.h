#pragma once

#include <napi.h>
#include <uv.h>

#include <cstddef>
#include <cstdint>

#include "unique_fd.h"

// The consuming end of a BPF ring buffer. A ring has one consumer at a time: two of them would
// write each other's position.
class RingBuffer : public Napi::ObjectWrap<RingBuffer> {
 public:
  static Napi::Function Define(Napi::Env env);

  explicit RingBuffer(const Napi::CallbackInfo& info);
  ~RingBuffer() override;
  RingBuffer(const RingBuffer&) = delete;
  RingBuffer& operator=(const RingBuffer&) = delete;

 private:
  Napi::Value Drain(const Napi::CallbackInfo& info);
  Napi::Value ForeignRecords(const Napi::CallbackInfo& info);
  void Watch(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  void Map(Napi::Env env, size_t bytes);
  void Release();
  static void OnWoken(uv_poll_t* poll, int status, int events);

  UniqueFd fd_;
  UniqueFd epoll_;
  size_t page_bytes_ = 0;
  size_t ring_bytes_ = 0;
  uint64_t foreign_records_ = 0;
  // The kernel's memory: our own position on a page that we write, and the producer's position and
  // the records, twice in a row, on pages that we read.
  void* consumer_ = nullptr;
  void* producer_ = nullptr;
  // Freed by libuv's closing callback, which may come after this object has gone.
  uv_poll_t* poll_ = nullptr;
  Napi::FunctionReference on_woken_;
};
