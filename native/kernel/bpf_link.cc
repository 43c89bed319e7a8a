#include "bpf_link.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <utility>

#include "addon_data.h"
#include "bpf_kind.h"
#include "bpf_object.h"
#include "js.h"

Napi::Function BpfLink::Define(Napi::Env env) {
  return DefineClass(env, "BpfLink",
                     {
                         InstanceMethod<&BpfLink::Info>("info"),
                         InstanceMethod<&BpfLink::Pin>("pin"),
                         InstanceMethod<&BpfLink::Update>("update"),
                         InstanceMethod<&BpfLink::Detach>("detach"),
                         InstanceMethod<&BpfLink::Close>("close"),
                     });
}

Napi::Value BpfLink::Make(Napi::Env env, UniqueLink link) {
  auto* data = env.GetInstanceData<AddonData>();
  auto given = Napi::External<UniqueLink>::New(env, &link);
  return data->bpf_link.New({given});
}

// new BpfLink(path): the link that is pinned there. With an External: see Make().
BpfLink::BpfLink(const Napi::CallbackInfo& info) : Napi::ObjectWrap<BpfLink>(info) {
  if (info[0].IsExternal()) {
    link_ = std::move(*info[0].As<Napi::External<UniqueLink>>().Data());
    return;
  }
  const std::string path = TakeString(info, 0, "path");
  link_.reset(bpf_link__open(path.c_str()));
  if (!link_) throw SystemError(info.Env(), "bpf_link__open", errno);
  RequireBpfKind(info.Env(), bpf_link__fd(link_.get()), "link");
}

// info(): what it is attached to, by number; 0 where that is gone, null where it is another kind.
Napi::Value BpfLink::Info(const Napi::CallbackInfo& info) {
  bpf_link_info link = {};
  uint32_t size = sizeof(link);
  const int error = bpf_obj_get_info_by_fd(bpf_link__fd(Open(info.Env())), &link, &size);
  if (error < 0) throw SystemError(info.Env(), "bpf_obj_get_info_by_fd", -error);

  auto result = Napi::Object::New(info.Env());
  result.Set("id", Napi::Number::New(info.Env(), link.id));
  result.Set("programId", Napi::Number::New(info.Env(), link.prog_id));
  result.Set("cgroupId", info.Env().Null());
  result.Set("netnsInode", info.Env().Null());
  if (link.type == BPF_LINK_TYPE_CGROUP) {
    const auto id = static_cast<uint64_t>(link.cgroup.cgroup_id);
    result.Set("cgroupId", Napi::BigInt::New(info.Env(), id));
  }
  if (link.type == BPF_LINK_TYPE_NETNS) {
    result.Set("netnsInode", Napi::Number::New(info.Env(), link.netns.netns_ino));
  }
  return result;
}

// pin(path): keeps the link alive without this process.
void BpfLink::Pin(const Napi::CallbackInfo& info) {
  const std::string path = TakeString(info, 0, "path");
  const int error = bpf_link__pin(Open(info.Env()), path.c_str());
  if (error < 0) throw SystemError(info.Env(), "bpf_link__pin", -error);
}

// update(object, program): runs that program from now on, without a moment of none.
void BpfLink::Update(const Napi::CallbackInfo& info) {
  bpf_program* program = TakeProgram(info, 0, 1);
  const int error = bpf_link__update_program(Open(info.Env()), program);
  if (error < 0) throw SystemError(info.Env(), "bpf_link__update_program", -error);
}

// detach(): takes the program off, although the link may be pinned.
void BpfLink::Detach(const Napi::CallbackInfo& info) {
  const int error = bpf_link__detach(Open(info.Env()));
  if (error < 0) throw SystemError(info.Env(), "bpf_link__detach", -error);
}

// close(): gives the descriptor back; a pinned link stays in force.
void BpfLink::Close(const Napi::CallbackInfo&) { link_.reset(); }

bpf_link* BpfLink::Open(Napi::Env env) const {
  if (!link_) throw SystemError(env, "bpf_link", EBADF);
  return link_.get();
}
