#pragma once

#include <napi.h>

Napi::Value EnsureBpffs(const Napi::CallbackInfo& info);
