// Calls on sockets that nftables redirects, marks or lets carry a foreign address.

#include "redirect.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "js.h"

namespace {

// linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h, which do not go with netinet/in.h.
constexpr int kOriginalDestination = 80;

int FamilyOf(Napi::Env env, int fd) {
  int family = 0;
  socklen_t size = sizeof(family);
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0) {
    throw SystemError(env, "getsockopt", errno);
  }
  return family;
}

void Enable(Napi::Env env, int fd, int level, int option) {
  const int on = 1;
  if (setsockopt(fd, level, option, &on, sizeof(on)) < 0) {
    throw SystemError(env, "setsockopt", errno);
  }
}

// The address, and behind it the port in network order.
template <typename Address>
Napi::Value AddressAndPort(Napi::Env env, const Address& address, in_port_t port) {
  auto result = Napi::Uint8Array::New(env, sizeof(address) + sizeof(port));
  memcpy(result.Data(), &address, sizeof(address));
  memcpy(result.Data() + sizeof(address), &port, sizeof(port));
  return result;
}

}  // namespace

// originalDestination(fd): address and port before NAT, or null where conntrack has no such
// connection.
Napi::Value OriginalDestination(const Napi::CallbackInfo& info) {
  const int fd = TakeFd(info, 0);
  const bool is_ipv6 = FamilyOf(info.Env(), fd) == AF_INET6;
  sockaddr_storage storage = {};
  socklen_t size = is_ipv6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  const int level = is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP;
  if (getsockopt(fd, level, kOriginalDestination, &storage, &size) < 0) {
    if (errno == ENOENT) return info.Env().Null();
    throw SystemError(info.Env(), "getsockopt", errno);
  }
  if (is_ipv6) {
    const auto* name = reinterpret_cast<const sockaddr_in6*>(&storage);
    return AddressAndPort(info.Env(), name->sin6_addr, name->sin6_port);
  }
  const auto* name = reinterpret_cast<const sockaddr_in*>(&storage);
  return AddressAndPort(info.Env(), name->sin_addr, name->sin_port);
}

// setMark(fd, mark): on each packet that the socket sends.
void SetMark(const Napi::CallbackInfo& info) {
  const int fd = TakeFd(info, 0);
  const int mark = TakeInt(info, 1, "mark", 0, INT32_MAX);
  if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) < 0) {
    throw SystemError(info.Env(), "setsockopt", errno);
  }
}

// bindTransparent(fd, ip): to an address that may be another machine's; connect chooses the port.
void BindTransparent(const Napi::CallbackInfo& info) {
  const int fd = TakeFd(info, 0);
  const Bytes ip = TakeBytes(info, 1, "ip");
  sockaddr_storage storage = {};
  socklen_t length = 0;
  if (ip.size == sizeof(in_addr)) {
    auto* name = reinterpret_cast<sockaddr_in*>(&storage);
    name->sin_family = AF_INET;
    memcpy(&name->sin_addr, ip.data, ip.size);
    length = sizeof(*name);
    Enable(info.Env(), fd, IPPROTO_IP, IP_TRANSPARENT);
  } else if (ip.size == sizeof(in6_addr)) {
    auto* name = reinterpret_cast<sockaddr_in6*>(&storage);
    name->sin6_family = AF_INET6;
    memcpy(&name->sin6_addr, ip.data, ip.size);
    length = sizeof(*name);
    Enable(info.Env(), fd, IPPROTO_IPV6, IPV6_TRANSPARENT);
  } else {
    throw Napi::RangeError::New(info.Env(), "ip must have 4 or 16 bytes");
  }
  // Else bind() would take a whole port: 28 k connections per client and no more.
  Enable(info.Env(), fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&storage), length) < 0) {
    throw SystemError(info.Env(), "bind", errno);
  }
}
