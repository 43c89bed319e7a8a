#include "sockets.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "js.h"

// setLingerReset(fd): close() will send RST.
void SetLingerReset(const Napi::CallbackInfo& info) {
  const int fd = TakeFd(info, 0);
  const linger now = {1, 0};
  if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) < 0) {
    throw SystemError(info.Env(), "setsockopt", errno);
  }
}

// socketCookie(fd): the kernel's own name for the socket, which no later one will have.
Napi::Value SocketCookie(const Napi::CallbackInfo& info) {
  const int fd = TakeFd(info, 0);
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) < 0) {
    throw SystemError(info.Env(), "getsockopt", errno);
  }
  return Napi::BigInt::New(info.Env(), cookie);
}

// tcpInfo(fd): what the kernel has measured of the connection.
Napi::Value TcpInfo(const Napi::CallbackInfo& info) {
  const int fd = TakeFd(info, 0);
  tcp_info now = {};
  socklen_t size = sizeof(now);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &now, &size) < 0) {
    throw SystemError(info.Env(), "getsockopt", errno);
  }
  auto result = Napi::Object::New(info.Env());
  result.Set("rttUs", Napi::Number::New(info.Env(), now.tcpi_rtt));
  result.Set("retransmits", Napi::Number::New(info.Env(), now.tcpi_total_retrans));
  return result;
}

// claimAddress(fd): nobody else may bind the address that the socket is bound to.
void ClaimAddress(const Napi::CallbackInfo& info) {
  const int fd = TakeFd(info, 0);
  const int off = 0;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off)) < 0) {
    throw SystemError(info.Env(), "setsockopt", errno);
  }
}

// closeDescriptor(fd).
void CloseDescriptor(const Napi::CallbackInfo& info) {
  const int fd = TakeFd(info, 0);
  if (close(fd) < 0) throw SystemError(info.Env(), "close", errno);
}
