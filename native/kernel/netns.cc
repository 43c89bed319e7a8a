#include "netns.h"

#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/nsfs.h>
#include <linux/sock_diag.h>
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

// A socket as sock_diag(7) names it: both ends, and the cookie once that is known.
inet_diag_sockid TakeSocketId(const Napi::CallbackInfo& info, size_t index, size_t ip_bytes) {
  inet_diag_sockid id = {};
  memcpy(id.idiag_src, TakeBytes(info, index, "ip", ip_bytes), ip_bytes);
  id.idiag_sport = htons(static_cast<uint16_t>(TakeInt(info, index + 1, "port", 0, UINT16_MAX)));
  memcpy(id.idiag_dst, TakeBytes(info, index + 2, "peerIp", ip_bytes), ip_bytes);
  id.idiag_dport =
      htons(static_cast<uint16_t>(TakeInt(info, index + 3, "peerPort", 0, UINT16_MAX)));
  id.idiag_cookie[0] = INET_DIAG_NOCOOKIE;
  id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  return id;
}

struct DiagRequest {
  nlmsghdr header;
  inet_diag_req_v2 body;
};

// Sends one request; what comes first in answer goes into `answer`. 0, or a positive errno.
int AskSockDiag(const UniqueFd& fd, uint16_t type, uint16_t flags, uint8_t family,
                const inet_diag_sockid& id, inet_diag_msg* answer) {
  DiagRequest request = {};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = type;
  request.header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  request.body.sdiag_family = family;
  request.body.sdiag_protocol = IPPROTO_TCP;
  request.body.idiag_states = ~0U;
  request.body.id = id;
  if (send(fd.get(), &request, sizeof(request), 0) < 0) return errno;

  alignas(nlmsghdr) char buffer[8192];
  const ssize_t size = recv(fd.get(), buffer, sizeof(buffer), 0);
  if (size < 0) return errno;
  const auto* header = reinterpret_cast<const nlmsghdr*>(buffer);
  if (!NLMSG_OK(header, static_cast<uint32_t>(size))) return EBADMSG;
  if (header->nlmsg_type == NLMSG_ERROR) {
    if (header->nlmsg_len < NLMSG_LENGTH(sizeof(nlmsgerr))) return EBADMSG;
    return -reinterpret_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
  }
  if (answer == nullptr || header->nlmsg_len < NLMSG_LENGTH(sizeof(*answer))) return EBADMSG;
  memcpy(answer, NLMSG_DATA(header), sizeof(*answer));
  return 0;
}

constexpr uint8_t kListen = 10;  // TCP_LISTEN, linux/tcp_states.h

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

// netnsDestroyTcp(netnsFd, ip, port, peerIp, peerPort): whether there was such a connection. It
// ends at once with a reset, in whatever state it is.
Napi::Value NetnsDestroyTcp(const Napi::CallbackInfo& info) {
  const int netns = TakeFd(info, 0);
  const size_t ip_bytes = TakeBytes(info, 1, "ip").size;
  if (ip_bytes != sizeof(in_addr) && ip_bytes != sizeof(in6_addr)) {
    throw Napi::RangeError::New(info.Env(), "ip must have 4 or 16 bytes");
  }
  const uint8_t family = ip_bytes == sizeof(in_addr) ? AF_INET : AF_INET6;
  inet_diag_sockid id = TakeSocketId(info, 1, ip_bytes);

  const InsideNetns inside(info.Env(), netns);
  const UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!fd.ok()) throw SystemError(info.Env(), "socket", errno);
  // The kernel looks a connection up as it does for a packet: where there is none it finds the
  // listener, and would destroy that. So it is asked first what it finds, and told that by cookie.
  inet_diag_msg found = {};
  int error = AskSockDiag(fd, SOCK_DIAG_BY_FAMILY, 0, family, id, &found);
  const bool is_there =
      error == 0 && found.idiag_state != kListen && found.id.idiag_dport == id.idiag_dport;
  if (error == ENOENT || (error == 0 && !is_there)) return Napi::Boolean::New(info.Env(), false);
  if (error != 0) throw SystemError(info.Env(), "sock_diag", error);
  memcpy(id.idiag_cookie, found.id.idiag_cookie, sizeof(id.idiag_cookie));
  error = AskSockDiag(fd, SOCK_DESTROY, NLM_F_ACK, family, id, nullptr);
  if (error == ENOENT || error == ESTALE) return Napi::Boolean::New(info.Env(), false);
  if (error != 0) throw SystemError(info.Env(), "sock_destroy", error);
  return Napi::Boolean::New(info.Env(), true);
}
