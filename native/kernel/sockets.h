#pragma once

#include <napi.h>

void SetLingerReset(const Napi::CallbackInfo& info);
void CloseDescriptor(const Napi::CallbackInfo& info);
