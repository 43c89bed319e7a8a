#include "netns.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "js.h"
#include "unique_fd.h"

namespace {

// Puts the calling thread into a network namespace for as long as it lives.
//
// setns(2) is the thread's alone, so nobody else notices. If the way back fails, everything that
// this thread opens from then on would belong to one pod: then it is better to end the process.
class InsideNetns {
 public:
  InsideNetns(Napi::Env env, int netns)
      : home_(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    if (!home_.ok()) throw SystemError(env, "open", errno);
    if (setns(netns, CLONE_NEWNET) < 0) throw SystemError(env, "setns", errno);
  }
  ~InsideNetns() {
    if (setns(home_.get(), CLONE_NEWNET) == 0) return;
    perror("Cannot return to the agent's network namespace");
    abort();
  }
  InsideNetns(const InsideNetns&) = delete;
  InsideNetns& operator=(const InsideNetns&) = delete;

 private:
  UniqueFd home_;
};

struct SocketName {
  sockaddr_storage storage = {};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
};

// An address of 4 or 16 bytes at `index`, and the port behind it.
SocketName TakeSocketName(const Napi::CallbackInfo& info, size_t index) {
  const Bytes ip = TakeBytes(info, index, "ip");
  const auto port = static_cast<uint16_t>(TakeInt(info, index + 1, "port", 0, UINT16_MAX));
  SocketName name;
  if (ip.size == sizeof(in_addr)) {
    auto* address = reinterpret_cast<sockaddr_in*>(&name.storage);
    address->sin_family = AF_INET;
    address->sin_port = htons(port);
    memcpy(&address->sin_addr, ip.data, ip.size);
    name.length = sizeof(*address);
  } else if (ip.size == sizeof(in6_addr)) {
    auto* address = reinterpret_cast<sockaddr_in6*>(&name.storage);
    address->sin6_family = AF_INET6;
    address->sin6_port = htons(port);
    memcpy(&address->sin6_addr, ip.data, ip.size);
    name.length = sizeof(*address);
  } else {
    throw Napi::RangeError::New(info.Env(), "ip must have 4 or 16 bytes");
  }
  return name;
}

// In the network namespace that the calling thread is in.
UniqueFd OpenSocket(Napi::Env env, int family, int type, int protocol) {
  UniqueFd fd(socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
  if (!fd.ok()) throw SystemError(env, "socket", errno);
  return fd;
}

UniqueFd OpenTcpSocket(Napi::Env env, int family) {
  return OpenSocket(env, family, SOCK_STREAM, IPPROTO_TCP);
}

void Enable(Napi::Env env, const UniqueFd& fd, int level, int option) {
  const int on = 1;
  if (setsockopt(fd.get(), level, option, &on, sizeof(on)) < 0) {
    throw SystemError(env, "setsockopt", errno);
  }
}

}  // namespace

// openNetns(path): a descriptor, of a network namespace and of nothing else.
Napi::Value OpenNetns(const Napi::CallbackInfo& info) {
  const std::string path = TakeString(info, 0, "path");
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.ok()) throw SystemError(info.Env(), "open", errno);
  const int type = ioctl(fd.get(), NS_GET_NSTYPE);
  if (type < 0) throw SystemError(info.Env(), "ioctl", errno);
  if (type != CLONE_NEWNET) throw SystemError(info.Env(), "ioctl", EINVAL);
  return Napi::Number::New(info.Env(), fd.Release());
}

// netnsCookie(netnsFd): the number by which BPF programs know it.
Napi::Value NetnsCookie(const Napi::CallbackInfo& info) {
  const int netns = TakeFd(info, 0);
  const InsideNetns inside(info.Env(), netns);
  const UniqueFd fd = OpenTcpSocket(info.Env(), AF_INET);
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(fd.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) < 0) {
    throw SystemError(info.Env(), "getsockopt", errno);
  }
  return Napi::BigInt::New(info.Env(), cookie);
}

// netnsSocket(netnsFd, ip, port, bind): a TCP socket of the address's family, not connected.
Napi::Value NetnsSocket(const Napi::CallbackInfo& info) {
  const int netns = TakeFd(info, 0);
  const SocketName name = TakeSocketName(info, 1);
  const bool wants_bind = TakeBool(info, 3, "bind");

  const InsideNetns inside(info.Env(), netns);
  UniqueFd fd = OpenTcpSocket(info.Env(), name.family());
  if (wants_bind) {
    // Else bind() would take a whole port: 28 k connections per source and no more.
    Enable(info.Env(), fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
    if (bind(fd.get(), name.get(), name.length) < 0) throw SystemError(info.Env(), "bind", errno);
  }
  return Napi::Number::New(info.Env(), fd.Release());
}

// netnsListen(netnsFd, ip, port, backlog): a listening TCP socket.
Napi::Value NetnsListen(const Napi::CallbackInfo& info) {
  const int netns = TakeFd(info, 0);
  const SocketName name = TakeSocketName(info, 1);
  const int backlog = TakeInt(info, 3, "backlog", 1, UINT16_MAX);

  const InsideNetns inside(info.Env(), netns);
  UniqueFd fd = OpenTcpSocket(info.Env(), name.family());
  Enable(info.Env(), fd, SOL_SOCKET, SO_REUSEADDR);
  if (name.family() == AF_INET6) Enable(info.Env(), fd, IPPROTO_IPV6, IPV6_V6ONLY);
  if (bind(fd.get(), name.get(), name.length) < 0) throw SystemError(info.Env(), "bind", errno);
  if (listen(fd.get(), backlog) < 0) throw SystemError(info.Env(), "listen", errno);
  return Napi::Number::New(info.Env(), fd.Release());
}

// netnsUdpSocket(netnsFd, ip, port, bind): a UDP socket of the address's family, not connected.
Napi::Value NetnsUdpSocket(const Napi::CallbackInfo& info) {
  const int netns = TakeFd(info, 0);
  const SocketName name = TakeSocketName(info, 1);
  const bool wants_bind = TakeBool(info, 3, "bind");

  const InsideNetns inside(info.Env(), netns);
  UniqueFd fd = OpenSocket(info.Env(), name.family(), SOCK_DGRAM, IPPROTO_UDP);
  if (name.family() == AF_INET6) Enable(info.Env(), fd, IPPROTO_IPV6, IPV6_V6ONLY);
  if (wants_bind && bind(fd.get(), name.get(), name.length) < 0) {
    throw SystemError(info.Env(), "bind", errno);
  }
  return Napi::Number::New(info.Env(), fd.Release());
}
