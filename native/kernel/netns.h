#pragma once

#include <napi.h>

Napi::Value OpenNetns(const Napi::CallbackInfo& info);
Napi::Value NetnsCookie(const Napi::CallbackInfo& info);
Napi::Value NetnsSocket(const Napi::CallbackInfo& info);
Napi::Value NetnsListen(const Napi::CallbackInfo& info);
Napi::Value NetnsUdpSocket(const Napi::CallbackInfo& info);
Napi::Value NetnsDestroyTcp(const Napi::CallbackInfo& info);
