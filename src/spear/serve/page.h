// The web page at / and what it is made of: the files of serve/page/, inside the program. They hold
// no secret and want no key; what they ask the API for does. Every thread.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "spear/serve/http_message.h"

namespace spear {

struct PageFile {
  std::string_view name;  // "app.js"
  std::span<const unsigned char> bytes;
};
std::span<const PageFile> page_files();  // written by cmake/embed_files.cmake

// Of "/" and "/page/NAME": the file, with headers under which a browser runs and loads nothing that
// this server did not send, and never reads a string as HTML or code. None: no such file.
std::optional<HttpReply> page_reply(std::string_view path);

}  // namespace spear
