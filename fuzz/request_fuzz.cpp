// Bodies of requests. The first byte says which route reads them. Whatever is taken fits the model,
// and whatever is not is refused with a status and a sentence.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "spear/base/json.h"
#include "spear/serve/chat_request.h"
#include "spear/serve/completion_request.h"
#include "spear/serve/tokenize_routes.h"

#include "serve/talking_model.h"

namespace {

constexpr int kVocabulary = 257;
constexpr int64_t kContext = 256;

// Lives as long as the program: the engine only says what may be asked of it.
struct Server {
  spear::Tokenizer tokenizer = spear::test::byte_tokenizer();
  spear::test::ScriptedModel steps{kVocabulary, 64, 4, kContext, spear::test::talk};
  spear::Engine engine{steps, &tokenizer, {}};
  spear::ServedModel model{
      engine, {"tiny", "spear-fuzz", 7, spear::test::kChatTemplate, "", R"({"n_vocab": 257})"}};
  spear::ServeLimits limits;
};

void check(const spear::ApiError& error) {
  if (error.status < 400 || error.status > 499 || error.message.empty()) std::abort();
  if (!spear::parse_json(spear::error_body(error), "error")) std::abort();
}

void check(const spear::Request& request) {
  if (request.prompt.empty() || request.max_tokens < 0) std::abort();
  if (std::ssize(request.prompt) + request.max_tokens > kContext) std::abort();
  for (const int32_t id : request.prompt)
    if (id < 0 || id >= kVocabulary) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto server = std::make_unique<Server>();
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto body = spear::parse_json(text, "body", server->limits.json_depth);
  if (!body || !body->is_object()) return 0;
  const spear::HttpRequest http{.method = "POST"};
  switch (data[0]) {
    case 'c': {
      const auto read = spear::read_completion(http, *body, server->model, server->limits);
      if (!read) return check(read.error()), 0;
      for (const spear::Request& request : read->requests) check(request);
      return 0;
    }
    case 'm': {
      const auto read = spear::read_chat(http, *body, server->model, server->limits);
      if (!read) return check(read.error()), 0;
      check(read->request);
      return 0;
    }
    case 't':
    case 'd': {
      const spear::HttpReply reply =
          data[0] == 't' ? spear::tokenize_reply(*body, server->model, server->limits)
                         : spear::detokenize_reply(*body, server->model);
      if (!spear::parse_json(reply.body, "reply")) std::abort();
      return 0;
    }
    default:
      return 0;
  }
}
