#include "sockets.h"

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

// closeDescriptor(fd).
void CloseDescriptor(const Napi::CallbackInfo& info) {
  const int fd = TakeFd(info, 0);
  if (close(fd) < 0) throw SystemError(info.Env(), "close", errno);
}
