#include "ring_buffer.h"

#include <bpf/bpf.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "bpf_kind.h"
#include "js.h"

namespace {

// A record is 8 bytes of header and its data, rounded up to 8 bytes.
constexpr uint32_t kBusy = BPF_RINGBUF_BUSY_BIT;
constexpr uint32_t kDiscarded = BPF_RINGBUF_DISCARD_BIT;
constexpr size_t kHeaderBytes = BPF_RINGBUF_HDR_SZ;

size_t RecordBytes(uint32_t header) {
  const size_t data = header & ~(kBusy | kDiscarded);
  return (data + kHeaderBytes + 7) / 8 * 8;
}

}  // namespace

Napi::Function RingBuffer::Define(Napi::Env env) {
  return DefineClass(env, "RingBuffer",
                     {
                         InstanceMethod<&RingBuffer::Drain>("drain"),
                         InstanceMethod<&RingBuffer::Watch>("watch"),
                         InstanceMethod<&RingBuffer::ForeignRecords>("foreignRecords"),
                         InstanceMethod<&RingBuffer::Close>("close"),
                     });
}

// new RingBuffer(path): the ring that is pinned there.
RingBuffer::RingBuffer(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RingBuffer>(info) {
  const std::string path = TakeString(info, 0, "path");
  const int fd = bpf_obj_get(path.c_str());
  if (fd < 0) throw SystemError(info.Env(), "bpf_obj_get", -fd);
  fd_.Reset(fd);
  RequireBpfKind(info.Env(), fd, "map");
  bpf_map_info map = {};
  uint32_t size = sizeof(map);
  const int error = bpf_obj_get_info_by_fd(fd, &map, &size);
  if (error < 0) throw SystemError(info.Env(), "bpf_obj_get_info_by_fd", -error);
  if (map.type != BPF_MAP_TYPE_RINGBUF) throw SystemError(info.Env(), "bpf_obj_get", EINVAL);
  Map(info.Env(), map.max_entries);
}

RingBuffer::~RingBuffer() { Release(); }

void RingBuffer::Map(Napi::Env env, size_t bytes) {
  page_bytes_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  ring_bytes_ = bytes;
  void* consumer = mmap(nullptr, page_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (consumer == MAP_FAILED) throw SystemError(env, "mmap", errno);
  consumer_ = consumer;
  void* producer = mmap(nullptr, page_bytes_ + 2 * ring_bytes_, PROT_READ, MAP_SHARED, fd_.get(),
                        static_cast<off_t>(page_bytes_));
  if (producer == MAP_FAILED) {
    const int error = errno;
    Release();
    throw SystemError(env, "mmap", error);
  }
  producer_ = producer;
}

// drain(recordBytes): all records that are there, one after the other in an ArrayBuffer; null where
// there is none. Those of another size, which another version may have left, are counted instead.
Napi::Value RingBuffer::Drain(const Napi::CallbackInfo& info) {
  if (producer_ == nullptr) throw SystemError(info.Env(), "ring_buffer", EBADF);
  const int max = static_cast<int>(ring_bytes_);
  const auto record_bytes = static_cast<size_t>(TakeInt(info, 0, "recordBytes", 1, max));
  auto* position = static_cast<unsigned long*>(consumer_);
  const auto* records = static_cast<const uint8_t*>(producer_) + page_bytes_;
  const unsigned long end =
      __atomic_load_n(static_cast<const unsigned long*>(producer_), __ATOMIC_ACQUIRE);
  const unsigned long start = *position;  // only ever written by us

  // Space for as many as there can be; a record that is being written ends the batch.
  size_t count = 0;
  unsigned long at = start;
  while (at < end) {
    const uint8_t* record = records + (at & (ring_bytes_ - 1));
    const uint32_t header =
        __atomic_load_n(reinterpret_cast<const uint32_t*>(record), __ATOMIC_ACQUIRE);
    if (header & kBusy) break;
    if (header == record_bytes) count++;
    at += RecordBytes(header);
  }
  if (at == start) return info.Env().Null();

  auto batch = Napi::ArrayBuffer::New(info.Env(), count * record_bytes);
  auto* to = static_cast<uint8_t*>(batch.Data());
  for (unsigned long from = start; from < at;) {
    const uint8_t* record = records + (from & (ring_bytes_ - 1));
    const uint32_t header = *reinterpret_cast<const uint32_t*>(record);
    if (header == record_bytes) {
      memcpy(to, record + kHeaderBytes, record_bytes);
      to += record_bytes;
    } else if (!(header & kDiscarded)) {
      foreign_records_++;
    }
    from += RecordBytes(header);
  }
  // The kernel may write over what has been copied from here on.
  __atomic_store_n(position, at, __ATOMIC_RELEASE);
  return batch;
}

// foreignRecords(): how many had another size than was asked for.
Napi::Value RingBuffer::ForeignRecords(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(foreign_records_));
}

// watch(callback): calls it when a producer wakes the consumer.
//
// The ring's descriptor is readable for as long as there is data, and data that nobody was woken
// for is to wait. So it is watched for edges, in an epoll instance of its own, since libuv knows
// levels only: without that a busy ring would keep the event loop from sleeping.
void RingBuffer::Watch(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!fd_.ok()) throw SystemError(env, "ring_buffer", EBADF);
  if (poll_ != nullptr) throw SystemError(env, "ring_buffer", EBUSY);
  if (!info[0].IsFunction()) throw Napi::TypeError::New(env, "callback must be a function");
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.ok()) throw SystemError(env, "epoll_create1", errno);
  epoll_event interest = {};
  interest.events = EPOLLIN | EPOLLET;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd_.get(), &interest) < 0) {
    throw SystemError(env, "epoll_ctl", errno);
  }
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) {
    throw SystemError(env, "napi_get_uv_event_loop", EINVAL);
  }
  auto* poll = new uv_poll_t;
  const int error = uv_poll_init(loop, poll, epoll.get());
  if (error < 0) {
    delete poll;
    throw SystemError(env, "uv_poll_init", -error);
  }
  poll->data = this;
  epoll_ = std::move(epoll);
  poll_ = poll;
  on_woken_ = Napi::Persistent(info[0].As<Napi::Function>());
  // The ring does not keep the process alive.
  uv_unref(reinterpret_cast<uv_handle_t*>(poll));
  uv_poll_start(poll, UV_READABLE, OnWoken);
}

void RingBuffer::OnWoken(uv_poll_t* poll, int, int) {
  auto* ring = static_cast<RingBuffer*>(poll->data);
  // Takes the edge, so that the next call is for the next wake-up.
  epoll_event event;
  epoll_wait(ring->epoll_.get(), &event, 1, 0);
  const Napi::Env env = ring->Env();
  const Napi::HandleScope scope(env);
  try {
    ring->on_woken_.MakeCallback(env.Global(), {});
  } catch (const Napi::Error& error) {
    napi_fatal_exception(env, error.Value());
  }
}

void RingBuffer::Close(const Napi::CallbackInfo&) { Release(); }

// Does nothing twice.
void RingBuffer::Release() {
  if (poll_ != nullptr) {
    uv_poll_stop(poll_);
    uv_close(reinterpret_cast<uv_handle_t*>(poll_),
             [](uv_handle_t* handle) { delete reinterpret_cast<uv_poll_t*>(handle); });
    poll_ = nullptr;
    on_woken_.Reset();
  }
  epoll_.Reset();
  if (producer_ != nullptr) munmap(producer_, page_bytes_ + 2 * ring_bytes_);
  if (consumer_ != nullptr) munmap(consumer_, page_bytes_);
  producer_ = nullptr;
  consumer_ = nullptr;
  fd_.Reset();
}
