#pragma once

#include <string>

// Collects what libbpf would print to stderr, the verifier's log among it, on this thread and for
// as long as it lives. Do not nest.
class LibbpfLog {
 public:
  LibbpfLog();
  ~LibbpfLog();
  LibbpfLog(const LibbpfLog&) = delete;
  LibbpfLog& operator=(const LibbpfLog&) = delete;

  const std::string& text() const { return text_; }
  void Append(const char* message);

 private:
  std::string text_;
};
