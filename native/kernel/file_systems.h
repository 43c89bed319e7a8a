#pragma once

#include <napi.h>

Napi::Value EnsureBpffs(const Napi::CallbackInfo& info);
Napi::Value CgroupExists(const Napi::CallbackInfo& info);
