#pragma once

#include <bpf/libbpf.h>
#include <napi.h>

#include <memory>

struct LinkCloser {
  void operator()(bpf_link* link) const { bpf_link__destroy(link); }
};
using UniqueLink = std::unique_ptr<bpf_link, LinkCloser>;

// The attachment of a program, by descriptor.
class BpfLink : public Napi::ObjectWrap<BpfLink> {
 public:
  static Napi::Function Define(Napi::Env env);
  // Hands `link` to a new object.
  static Napi::Value Make(Napi::Env env, UniqueLink link);

  explicit BpfLink(const Napi::CallbackInfo& info);

 private:
  Napi::Value Info(const Napi::CallbackInfo& info);
  void Pin(const Napi::CallbackInfo& info);
  void Update(const Napi::CallbackInfo& info);
  void Detach(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  bpf_link* Open(Napi::Env env) const;

  UniqueLink link_;
};
