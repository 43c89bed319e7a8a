#pragma once

#include <napi.h>

void SetLingerReset(const Napi::CallbackInfo& info);
Napi::Value SocketCookie(const Napi::CallbackInfo& info);
Napi::Value TcpInfo(const Napi::CallbackInfo& info);
void ClaimAddress(const Napi::CallbackInfo& info);
void CloseDescriptor(const Napi::CallbackInfo& info);
