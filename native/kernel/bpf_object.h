#pragma once

#include <bpf/libbpf.h>
#include <napi.h>

#include <memory>
#include <string>

struct ObjectCloser {
  void operator()(bpf_object* object) const { bpf_object__close(object); }
};

// A compiled object file and, once it is loaded, its programs and maps.
class BpfObject : public Napi::ObjectWrap<BpfObject> {
 public:
  static Napi::Function Define(Napi::Env env);

  explicit BpfObject(const Napi::CallbackInfo& info);

  // Throws where the object is not loaded or has no such program.
  bpf_program* LoadedProgram(Napi::Env env, const std::string& name) const;

 private:
  Napi::Value Costs(const Napi::CallbackInfo& info);
  void SetConstant(const Napi::CallbackInfo& info);
  void SetPinPath(const Napi::CallbackInfo& info);
  void SetEntriesMax(const Napi::CallbackInfo& info);
  void Load(const Napi::CallbackInfo& info);
  Napi::Value OpenMap(const Napi::CallbackInfo& info);
  Napi::Value AttachCgroup(const Napi::CallbackInfo& info);
  Napi::Value AttachNetns(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  bpf_object* Unloaded(Napi::Env env) const;
  bpf_map* Map(Napi::Env env, const std::string& name) const;

  std::unique_ptr<bpf_object, ObjectCloser> object_;
  bool loaded_ = false;
};

// A BpfObject at `object_index` and the name of one of its programs at `name_index`.
bpf_program* TakeProgram(const Napi::CallbackInfo& info, size_t object_index, size_t name_index);
