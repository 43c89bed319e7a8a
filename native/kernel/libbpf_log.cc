#include "libbpf_log.h"

#include <bpf/libbpf.h>

#include <cstdarg>
#include <cstdio>
#include <vector>

namespace {

// The end tells why the verifier refused; what comes before can be megabytes.
constexpr size_t kTextBytesMax = 8192;

// libbpf's callback has no argument of ours, so this is the one way to find the collector.
thread_local LibbpfLog* collector = nullptr;

// Called from C: must not throw. An account that does not fit in memory is left out.
int Collect(enum libbpf_print_level level, const char* format, va_list args) {
  if (collector == nullptr || level != LIBBPF_WARN) return 0;
  try {
    va_list measured;
    va_copy(measured, args);
    const int length = vsnprintf(nullptr, 0, format, measured);
    va_end(measured);
    if (length < 0) return 0;
    std::vector<char> message(static_cast<size_t>(length) + 1);
    vsnprintf(message.data(), message.size(), format, args);
    collector->Append(message.data());
  } catch (...) {
    return 0;
  }
  return 0;
}

}  // namespace

LibbpfLog::LibbpfLog() {
  libbpf_set_print(Collect);
  collector = this;
}

LibbpfLog::~LibbpfLog() { collector = nullptr; }

void LibbpfLog::Append(const char* message) {
  text_ += message;
  if (text_.size() > kTextBytesMax) text_.erase(0, text_.size() - kTextBytesMax);
}
