#include "bpffs.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include <cerrno>

#include "js.h"
#include "unique_fd.h"

namespace {

bool IsBpffs(Napi::Env env, const std::string& path) {
  struct statfs file_system = {};
  if (statfs(path.c_str(), &file_system) < 0) throw SystemError(env, "statfs", errno);
  return file_system.f_type == BPF_FS_MAGIC;
}

}  // namespace

// ensureBpffs(path): whether one had to be mounted.
//
// Every mount of this type is a file system of its own, and a second one would hide the pins in the
// first. The lock is on the directory underneath, so two agents that start together do not do that.
Napi::Value EnsureBpffs(const Napi::CallbackInfo& info) {
  const std::string path = TakeString(info, 0, "path");
  if (IsBpffs(info.Env(), path)) return Napi::Boolean::New(info.Env(), false);

  const UniqueFd underneath(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!underneath.ok()) throw SystemError(info.Env(), "open", errno);
  if (flock(underneath.get(), LOCK_EX) < 0) throw SystemError(info.Env(), "flock", errno);
  if (IsBpffs(info.Env(), path)) return Napi::Boolean::New(info.Env(), false);
  if (mount("bpf", path.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0) {
    throw SystemError(info.Env(), "mount", errno);
  }
  return Napi::Boolean::New(info.Env(), true);
}
