#include "bpf_map.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <utility>

#include "addon_data.h"
#include "bpf_kind.h"
#include "js.h"

namespace {

bool IsPerCpu(uint32_t type) {
  return type == BPF_MAP_TYPE_PERCPU_ARRAY || type == BPF_MAP_TYPE_PERCPU_HASH ||
         type == BPF_MAP_TYPE_LRU_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

}  // namespace

Napi::Function BpfMap::Define(Napi::Env env) {
  return DefineClass(env, "BpfMap",
                     {
                         InstanceAccessor<&BpfMap::Fd>("fd"),
                         InstanceAccessor<&BpfMap::KeyBytes>("keyBytes"),
                         InstanceAccessor<&BpfMap::ValueBytes>("valueBytes"),
                         InstanceAccessor<&BpfMap::EntriesMax>("entriesMax"),
                         InstanceMethod<&BpfMap::Lookup>("lookup"),
                         InstanceMethod<&BpfMap::Update>("update"),
                         InstanceMethod<&BpfMap::Delete>("delete"),
                         InstanceMethod<&BpfMap::NextKey>("nextKey"),
                         InstanceMethod<&BpfMap::Close>("close"),
                     });
}

Napi::Value BpfMap::Make(Napi::Env env, UniqueFd fd) {
  auto* data = env.GetInstanceData<AddonData>();
  auto given = Napi::External<UniqueFd>::New(env, &fd);
  return data->bpf_map.New({given});
}

// new BpfMap(path): the map that is pinned there. With an External: see Make().
BpfMap::BpfMap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<BpfMap>(info) {
  if (info[0].IsExternal()) {
    fd_ = std::move(*info[0].As<Napi::External<UniqueFd>>().Data());
  } else {
    const std::string path = TakeString(info, 0, "path");
    const int fd = bpf_obj_get(path.c_str());
    if (fd < 0) throw SystemError(info.Env(), "bpf_obj_get", -fd);
    fd_.Reset(fd);
    RequireBpfKind(info.Env(), fd, "map");
  }
  Measure(info.Env());
}

// makeHash(name, keyBytes, valueBytes, entriesMax): a new hash map that takes memory as it fills.
Napi::Value BpfMap::MakeHash(const Napi::CallbackInfo& info) {
  const std::string name = TakeString(info, 0, "name");
  const int key_bytes = TakeInt(info, 1, "keyBytes", 1, 512);
  const int value_bytes = TakeInt(info, 2, "valueBytes", 1, 4096);
  const int entries_max = TakeInt(info, 3, "entriesMax", 1, 1 << 24);

  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_NO_PREALLOC);
  const int fd = bpf_map_create(BPF_MAP_TYPE_HASH, name.c_str(), static_cast<uint32_t>(key_bytes),
                                static_cast<uint32_t>(value_bytes),
                                static_cast<uint32_t>(entries_max), &options);
  if (fd < 0) throw SystemError(info.Env(), "bpf_map_create", -fd);
  return Make(info.Env(), UniqueFd(fd));
}

void BpfMap::Measure(Napi::Env env) {
  bpf_map_info map = {};
  uint32_t size = sizeof(map);
  const int error = bpf_obj_get_info_by_fd(fd_.get(), &map, &size);
  if (error < 0) throw SystemError(env, "bpf_obj_get_info_by_fd", -error);
  key_bytes_ = map.key_size;
  value_bytes_ = map.value_size;
  entries_max_ = map.max_entries;
  if (IsPerCpu(map.type)) {
    const int cpus = libbpf_num_possible_cpus();
    if (cpus < 0) throw SystemError(env, "libbpf_num_possible_cpus", -cpus);
    // The kernel copies each CPU's value in units of 8 bytes.
    value_bytes_ = (value_bytes_ + 7) / 8 * 8 * static_cast<size_t>(cpus);
  }
}

Napi::Value BpfMap::Fd(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), fd_.get());
}

Napi::Value BpfMap::KeyBytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(key_bytes_));
}

Napi::Value BpfMap::ValueBytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(value_bytes_));
}

Napi::Value BpfMap::EntriesMax(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), entries_max_);
}

// lookup(key, value): copies the entry of `key` into `value`; false where there is none.
//
// bpf(2) takes bare pointers and believes them: the kernel reads key_bytes_ from one and writes
// value_bytes_ to the other, whatever lies behind. TakeBytes() is all that stands between a short
// buffer and an overwritten heap, so it stays here even though the types upstairs rule it out.
Napi::Value BpfMap::Lookup(const Napi::CallbackInfo& info) {
  const uint8_t* key = TakeBytes(info, 0, "key", key_bytes_);
  uint8_t* value = TakeBytes(info, 1, "value", value_bytes_);

  const int error = bpf_map_lookup_elem(fd_.get(), key, value);
  if (error == -ENOENT) return Napi::Boolean::New(info.Env(), false);
  if (error < 0) throw SystemError(info.Env(), "bpf_map_lookup_elem", -error);
  return Napi::Boolean::New(info.Env(), true);
}

// update(key, value): makes or replaces the entry of `key`.
void BpfMap::Update(const Napi::CallbackInfo& info) {
  const uint8_t* key = TakeBytes(info, 0, "key", key_bytes_);
  const uint8_t* value = TakeBytes(info, 1, "value", value_bytes_);

  const int error = bpf_map_update_elem(fd_.get(), key, value, BPF_ANY);
  if (error < 0) throw SystemError(info.Env(), "bpf_map_update_elem", -error);
}

// delete(key): false where there is none.
Napi::Value BpfMap::Delete(const Napi::CallbackInfo& info) {
  const uint8_t* key = TakeBytes(info, 0, "key", key_bytes_);

  const int error = bpf_map_delete_elem(fd_.get(), key);
  // A SOCKMAP says EINVAL for an empty slot.
  if (error == -ENOENT || error == -EINVAL) return Napi::Boolean::New(info.Env(), false);
  if (error < 0) throw SystemError(info.Env(), "bpf_map_delete_elem", -error);
  return Napi::Boolean::New(info.Env(), true);
}

// nextKey(key or null, next): the key after `key`, or the first; false where there is none.
Napi::Value BpfMap::NextKey(const Napi::CallbackInfo& info) {
  const uint8_t* key = info[0].IsNull() ? nullptr : TakeBytes(info, 0, "key", key_bytes_);
  uint8_t* next = TakeBytes(info, 1, "next", key_bytes_);

  const int error = bpf_map_get_next_key(fd_.get(), key, next);
  if (error == -ENOENT) return Napi::Boolean::New(info.Env(), false);
  if (error < 0) throw SystemError(info.Env(), "bpf_map_get_next_key", -error);
  return Napi::Boolean::New(info.Env(), true);
}

void BpfMap::Close(const Napi::CallbackInfo&) { fd_.Reset(); }
