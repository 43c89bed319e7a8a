# Built by tools/build, which copies the addon to build/native/.
{
  "targets": [
    {
      "target_name": "aquifer_kernel",
      "sources": [
        "kernel/addon.cc",
        "kernel/bpf_kind.cc",
        "kernel/bpf_link.cc",
        "kernel/bpf_map.cc",
        "kernel/bpf_object.cc",
        "kernel/file_systems.cc",
        "kernel/js.cc",
        "kernel/libbpf_log.cc",
        "kernel/netns.cc",
        "kernel/redirect.cc",
        "kernel/ring_buffer.cc",
        "kernel/sockets.cc",
      ],
      # Shared, because the archives of Debian and Ubuntu are not position independent.
      "libraries": ["-lbpf"],
      # Headers of others are system headers: their warnings are not ours to fix.
      "cflags_cc": [
        "-std=c++17",
        "-fexceptions",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Wshadow",
        "-Werror",
        "-isystem <!(node -p \"path.dirname(require.resolve('node-addon-api/napi.h'))\")",
        "-isystem <(nodedir)/include/node",
      ],
      "cflags_cc!": ["-std=gnu++20", "-std=gnu++17", "-fno-exceptions"],
      "defines": ["NODE_ADDON_API_CPP_EXCEPTIONS", "NAPI_VERSION=9"],
    },
  ],
}
