// The addon's exports: same names and same order as in addon.ts, to be read side by side.

#include <napi.h>

#include "addon_data.h"
#include "bpf_link.h"
#include "bpf_map.h"
#include "bpf_object.h"
#include "file_systems.h"
#include "netns.h"
#include "redirect.h"
#include "ring_buffer.h"
#include "sockets.h"

namespace {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData;
  env.SetInstanceData(data);  // deleted with the environment

  data->bpf_link = Napi::Persistent(BpfLink::Define(env));
  data->bpf_map = Napi::Persistent(BpfMap::Define(env));
  data->bpf_object = Napi::Persistent(BpfObject::Define(env));
  exports.Set("BpfLink", data->bpf_link.Value());
  exports.Set("BpfMap", data->bpf_map.Value());
  exports.Set("BpfObject", data->bpf_object.Value());
  exports.Set("RingBuffer", RingBuffer::Define(env));
  exports.Set("cgroupExists", Napi::Function::New<CgroupExists>(env, "cgroupExists"));
  exports.Set("ensureBpffs", Napi::Function::New<EnsureBpffs>(env, "ensureBpffs"));
  exports.Set("makeHash", Napi::Function::New<BpfMap::MakeHash>(env, "makeHash"));
  exports.Set("openNetns", Napi::Function::New<OpenNetns>(env, "openNetns"));
  exports.Set("netnsCookie", Napi::Function::New<NetnsCookie>(env, "netnsCookie"));
  exports.Set("netnsSocket", Napi::Function::New<NetnsSocket>(env, "netnsSocket"));
  exports.Set("netnsListen", Napi::Function::New<NetnsListen>(env, "netnsListen"));
  exports.Set("netnsUdpSocket", Napi::Function::New<NetnsUdpSocket>(env, "netnsUdpSocket"));
  exports.Set("originalDestination",
              Napi::Function::New<OriginalDestination>(env, "originalDestination"));
  exports.Set("setMark", Napi::Function::New<SetMark>(env, "setMark"));
  exports.Set("bindTransparent", Napi::Function::New<BindTransparent>(env, "bindTransparent"));
  exports.Set("netnsDestroyTcp", Napi::Function::New<NetnsDestroyTcp>(env, "netnsDestroyTcp"));
  exports.Set("setLingerReset", Napi::Function::New<SetLingerReset>(env, "setLingerReset"));
  exports.Set("socketCookie", Napi::Function::New<SocketCookie>(env, "socketCookie"));
  exports.Set("tcpInfo", Napi::Function::New<TcpInfo>(env, "tcpInfo"));
  exports.Set("claimAddress", Napi::Function::New<ClaimAddress>(env, "claimAddress"));
  exports.Set("closeDescriptor", Napi::Function::New<CloseDescriptor>(env, "closeDescriptor"));
  return exports;
}

}  // namespace

NODE_API_MODULE(aquifer_kernel, Init)
