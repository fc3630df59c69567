#include "spear/serve/page.h"

namespace spear {
namespace {

constexpr std::string_view kFolder = "/page/";

const char* type_of(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  return "image/svg+xml";
}

}  // namespace

std::optional<HttpReply> page_reply(std::string_view path) {
  const std::string_view name = path == "/"                 ? "index.html"
                                : path.starts_with(kFolder) ? path.substr(kFolder.size())
                                                            : "";
  for (const PageFile& file : page_files()) {
    if (file.name != name) continue;
    HttpReply reply{.content_type = type_of(name), .body = {file.bytes.begin(), file.bytes.end()}};
    reply.headers = {
        {"Content-Security-Policy",
         "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
         "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
         "require-trusted-types-for 'script'; trusted-types 'none'"},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
        {"Cache-Control", "no-cache"}};
    return reply;
  }
  return std::nullopt;
}

}  // namespace spear
