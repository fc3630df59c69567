// The build without libcurl: packaged models and local paths still work, the model hub is refused
// by name.
#include "spear/base/error.h"
#include "spear/hub/http.h"

namespace spear {

struct HttpSession::State {};

HttpSession::HttpSession() {
  throw Failure(ErrorCode::kUnsupported,
                "this spear was built without libcurl and cannot reach a model hub; rebuild it "
                "with libcurl's "
                "headers installed, or download the files yourself and give their folder");
}

HttpSession::~HttpSession() = default;

HttpResponse HttpSession::get(const HttpRequest&, const BodyReader&, const std::function<bool()>&) {
  return {};
}

bool same_origin(const std::string& a, const std::string& b) {
  return a == b;
}

}  // namespace spear
