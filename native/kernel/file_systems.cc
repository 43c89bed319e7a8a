#include "file_systems.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstring>

#include "js.h"
#include "unique_fd.h"

namespace {

bool IsBpffs(Napi::Env env, const std::string& path) {
  struct statfs file_system = {};
  if (statfs(path.c_str(), &file_system) < 0) throw SystemError(env, "statfs", errno);
  return file_system.f_type == BPF_FS_MAGIC;
}

}  // namespace

// cgroupExists(mountPath, id): whether the cgroup with that number has not been removed.
//
// A link knows its cgroup until the last socket of it is closed, which can be long after rmdir(2).
Napi::Value CgroupExists(const Napi::CallbackInfo& info) {
  const std::string mount_path = TakeString(info, 0, "mountPath");
  const uint64_t id = TakeUint64(info, 1, "id");
  const UniqueFd mount_fd(open(mount_path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!mount_fd.ok()) throw SystemError(info.Env(), "open", errno);

  // A file handle of kernfs is the number of the node (FILEID_KERNFS, linux/exportfs.h).
  constexpr int kFileIdKernfs = 0xfe;
  alignas(file_handle) uint8_t storage[sizeof(file_handle) + sizeof(id)] = {};
  auto* handle = reinterpret_cast<file_handle*>(storage);
  handle->handle_bytes = sizeof(id);
  handle->handle_type = kFileIdKernfs;
  memcpy(handle->f_handle, &id, sizeof(id));
  const UniqueFd cgroup(open_by_handle_at(mount_fd.get(), handle, O_RDONLY | O_CLOEXEC));
  if (!cgroup.ok() && errno != ESTALE) throw SystemError(info.Env(), "open_by_handle_at", errno);
  return Napi::Boolean::New(info.Env(), cgroup.ok());
}

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
