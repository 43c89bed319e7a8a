#include "bpf_kind.h"

#include <unistd.h>

#include <cerrno>
#include <string>

#include "js.h"

void RequireBpfKind(Napi::Env env, int fd, const char* kind) {
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  char target[64] = {};
  if (readlink(path.c_str(), target, sizeof(target) - 1) < 0) {
    throw SystemError(env, "readlink", errno);
  }
  // "anon_inode:bpf-map"; of a link, kernels write either "bpf-link" or "bpf_link".
  const std::string name(target);
  const std::string prefix = "anon_inode:bpf";
  const bool is_kind = name.compare(0, prefix.size(), prefix) == 0 && name.size() > prefix.size() &&
                       name.substr(prefix.size() + 1) == kind;
  if (!is_kind) throw SystemError(env, "bpf_obj_get", EINVAL);
}
