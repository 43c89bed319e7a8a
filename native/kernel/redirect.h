#pragma once

#include <napi.h>

Napi::Value OriginalDestination(const Napi::CallbackInfo& info);
void SetMark(const Napi::CallbackInfo& info);
void BindTransparent(const Napi::CallbackInfo& info);
