// What a client may ask of the server at most; docs/server.md publishes them. Plain values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace spear {

struct ServeLimits {
  size_t body_bytes = size_t{8} << 20;
  size_t header_bytes = size_t{16} << 10;
  size_t target_bytes = size_t{8} << 10;
  size_t headers = 100;
  int json_depth = 64;
  size_t prompts = 256;         // of one completion request
  size_t messages = 4096;       // of a conversation
  size_t tools = 128;           // of one request
  size_t schema_bytes = 65536;  // of a JSON schema, a regular expression, a list of choices
  size_t tool_bytes = 262144;   // of all tools of a request
};

}  // namespace spear
