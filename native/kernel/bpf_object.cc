#include "bpf_object.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <fcntl.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "addon_data.h"
#include "bpf_link.h"
#include "bpf_map.h"
#include "js.h"
#include "libbpf_log.h"
#include "unique_fd.h"

namespace {

constexpr char kConstants[] = ".rodata";

struct Place {
  size_t offset;
  size_t size;
};

// Where the variable `name` lies in .rodata, by the object's BTF; size 0 where there is none.
Place FindConstant(const btf* types, const char* name) {
  const int section_id = btf__find_by_name_kind(types, kConstants, BTF_KIND_DATASEC);
  if (section_id < 0) return {0, 0};
  const btf_type* section = btf__type_by_id(types, static_cast<uint32_t>(section_id));
  const btf_var_secinfo* variables = btf_var_secinfos(section);
  for (int i = 0; i < btf_vlen(section); i++) {
    const btf_type* variable = btf__type_by_id(types, variables[i].type);
    if (strcmp(btf__name_by_offset(types, variable->name_off), name) == 0) {
      return {variables[i].offset, variables[i].size};
    }
  }
  return {0, 0};
}

// What the kernel says it has set aside for the map.
double MemoryOf(int map) {
  std::ifstream info("/proc/self/fdinfo/" + std::to_string(map));
  std::string field;
  while (info >> field) {
    double bytes = 0;
    if (field == "memlock:" && info >> bytes) return bytes;
  }
  return 0;
}

}  // namespace

Napi::Function BpfObject::Define(Napi::Env env) {
  return DefineClass(env, "BpfObject",
                     {
                         InstanceMethod<&BpfObject::Costs>("costs"),
                         InstanceMethod<&BpfObject::SetConstant>("setConstant"),
                         InstanceMethod<&BpfObject::SetPinPath>("setPinPath"),
                         InstanceMethod<&BpfObject::SetEntriesMax>("setEntriesMax"),
                         InstanceMethod<&BpfObject::Load>("load"),
                         InstanceMethod<&BpfObject::OpenMap>("openMap"),
                         InstanceMethod<&BpfObject::AttachCgroup>("attachCgroup"),
                         InstanceMethod<&BpfObject::AttachNetns>("attachNetns"),
                         InstanceMethod<&BpfObject::Close>("close"),
                     });
}

// new BpfObject(path): reads the file; nothing reaches the kernel yet.
BpfObject::BpfObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<BpfObject>(info) {
  const std::string path = TakeString(info, 0, "path");
  LibbpfLog log;
  object_.reset(bpf_object__open_file(path.c_str(), nullptr));
  if (!object_) throw LibbpfError(info.Env(), "bpf_object__open_file", errno, log.text());
}

// costs(): what the kernel has spent on the programs and maps of a loaded object.
Napi::Value BpfObject::Costs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!object_ || !loaded_) throw SystemError(env, "bpf_object", EBADF);
  auto programs = Napi::Array::New(env);
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object_.get()) {
    bpf_prog_info loaded = {};
    uint32_t size = sizeof(loaded);
    const int error = bpf_obj_get_info_by_fd(bpf_program__fd(program), &loaded, &size);
    if (error < 0) throw SystemError(env, "bpf_obj_get_info_by_fd", -error);
    auto cost = Napi::Object::New(env);
    cost.Set("name", Napi::String::New(env, bpf_program__name(program)));
    cost.Set("verifiedInstructions", Napi::Number::New(env, loaded.verified_insns));
    cost.Set("jitedBytes", Napi::Number::New(env, loaded.jited_prog_len));
    programs.Set(programs.Length(), cost);
  }
  auto maps = Napi::Array::New(env);
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object_.get()) {
    auto cost = Napi::Object::New(env);
    cost.Set("name", Napi::String::New(env, bpf_map__name(map)));
    cost.Set("memoryBytes", Napi::Number::New(env, MemoryOf(bpf_map__fd(map))));
    maps.Set(maps.Length(), cost);
  }
  auto result = Napi::Object::New(env);
  result.Set("programs", programs);
  result.Set("maps", maps);
  return result;
}

// setConstant(name, bytes): the initial value of a `const volatile`, of exactly its size.
void BpfObject::SetConstant(const Napi::CallbackInfo& info) {
  bpf_object* object = Unloaded(info.Env());
  const std::string name = TakeString(info, 0, "name");
  const Place place = FindConstant(bpf_object__btf(object), name.c_str());
  if (place.size == 0) throw SystemError(info.Env(), "btf_var_secinfos", ENOENT);
  const uint8_t* bytes = TakeBytes(info, 1, "bytes", place.size);

  bpf_map* section = Map(info.Env(), kConstants);
  size_t section_bytes = 0;
  const auto* initial =
      static_cast<const uint8_t*>(bpf_map__initial_value(section, &section_bytes));
  if (initial == nullptr || place.offset + place.size > section_bytes) {
    throw SystemError(info.Env(), "bpf_map__initial_value", EINVAL);
  }
  std::vector<uint8_t> changed(initial, initial + section_bytes);
  memcpy(changed.data() + place.offset, bytes, place.size);
  const int error = bpf_map__set_initial_value(section, changed.data(), changed.size());
  if (error < 0) throw SystemError(info.Env(), "bpf_map__set_initial_value", -error);
}

// setPinPath(map, path): load() takes what is pinned there, or pins what it makes.
void BpfObject::SetPinPath(const Napi::CallbackInfo& info) {
  Unloaded(info.Env());
  const std::string map = TakeString(info, 0, "map");
  const std::string path = TakeString(info, 1, "path");
  const int error = bpf_map__set_pin_path(Map(info.Env(), map), path.c_str());
  if (error < 0) throw SystemError(info.Env(), "bpf_map__set_pin_path", -error);
}

// setEntriesMax(map, entriesMax): the size of a map that load() will make; of a ring in bytes.
void BpfObject::SetEntriesMax(const Napi::CallbackInfo& info) {
  Unloaded(info.Env());
  const std::string map = TakeString(info, 0, "map");
  const int entries = TakeInt(info, 1, "entriesMax", 1, INT_MAX);
  const int error = bpf_map__set_max_entries(Map(info.Env(), map), static_cast<uint32_t>(entries));
  if (error < 0) throw SystemError(info.Env(), "bpf_map__set_max_entries", -error);
}

// load(): makes what maps are missing and has the verifier check the programs.
void BpfObject::Load(const Napi::CallbackInfo& info) {
  bpf_object* object = Unloaded(info.Env());
  LibbpfLog log;
  const int error = bpf_object__load(object);
  if (error < 0) throw LibbpfError(info.Env(), "bpf_object__load", -error, log.text());
  loaded_ = true;
}

// openMap(name): a descriptor of its own.
Napi::Value BpfObject::OpenMap(const Napi::CallbackInfo& info) {
  const std::string name = TakeString(info, 0, "name");
  const int fd = bpf_map__fd(Map(info.Env(), name));
  if (fd < 0) throw SystemError(info.Env(), "bpf_map__fd", -fd);
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.ok()) throw SystemError(info.Env(), "fcntl", errno);
  return BpfMap::Make(info.Env(), std::move(copy));
}

// attachCgroup(program, path): the program's hook, beside what others have there.
Napi::Value BpfObject::AttachCgroup(const Napi::CallbackInfo& info) {
  bpf_program* program = LoadedProgram(info.Env(), TakeString(info, 0, "program"));
  const std::string path = TakeString(info, 1, "cgroupPath");
  const UniqueFd cgroup(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup.ok()) throw SystemError(info.Env(), "open", errno);

  LibbpfLog log;
  UniqueLink link(bpf_program__attach_cgroup(program, cgroup.get()));
  if (!link) throw LibbpfError(info.Env(), "bpf_program__attach_cgroup", errno, log.text());
  return BpfLink::Make(info.Env(), std::move(link));
}

// attachNetns(program, fd): the program's hook in that network namespace.
Napi::Value BpfObject::AttachNetns(const Napi::CallbackInfo& info) {
  bpf_program* program = LoadedProgram(info.Env(), TakeString(info, 0, "program"));
  const int netns = TakeFd(info, 1);

  LibbpfLog log;
  UniqueLink link(bpf_program__attach_netns(program, netns));
  if (!link) throw LibbpfError(info.Env(), "bpf_program__attach_netns", errno, log.text());
  return BpfLink::Make(info.Env(), std::move(link));
}

void BpfObject::Close(const Napi::CallbackInfo&) {
  object_.reset();
  loaded_ = false;
}

bpf_program* BpfObject::LoadedProgram(Napi::Env env, const std::string& name) const {
  if (!object_ || !loaded_) throw SystemError(env, "bpf_object", EBADF);
  bpf_program* program = bpf_object__find_program_by_name(object_.get(), name.c_str());
  if (program == nullptr) throw SystemError(env, "bpf_object__find_program_by_name", ENOENT);
  return program;
}

bpf_object* BpfObject::Unloaded(Napi::Env env) const {
  if (!object_ || loaded_) throw SystemError(env, "bpf_object", EBUSY);
  return object_.get();
}

bpf_map* BpfObject::Map(Napi::Env env, const std::string& name) const {
  if (!object_) throw SystemError(env, "bpf_object", EBADF);
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object_.get()) {
    // libbpf's own name of .rodata has the object's in front, as far as it fits.
    const bool is_constants = name == kConstants && strstr(bpf_map__name(map), kConstants);
    if (is_constants || name == bpf_map__name(map)) return map;
  }
  throw SystemError(env, "bpf_object__find_map_by_name", ENOENT);
}

bpf_program* TakeProgram(const Napi::CallbackInfo& info, size_t object_index, size_t name_index) {
  const Napi::Value value = info[object_index];
  auto* data = info.Env().GetInstanceData<AddonData>();
  if (!value.IsObject() || !value.As<Napi::Object>().InstanceOf(data->bpf_object.Value())) {
    throw Napi::TypeError::New(info.Env(), "object must be a BpfObject");
  }
  const BpfObject* object = BpfObject::Unwrap(value.As<Napi::Object>());
  return object->LoadedProgram(info.Env(), TakeString(info, name_index, "program"));
}
