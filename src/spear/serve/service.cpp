#include "spear/serve/service.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <new>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/serve/chat_writer.h"
#include "spear/serve/completion_writer.h"
#include "spear/serve/generation.h"
#include "spear/serve/openapi.h"
#include "spear/serve/page.h"
#include "spear/serve/tokenize_routes.h"

namespace spear {

struct Service::Route {
  enum class Kind : uint8_t {
    kHealth,
    kReady,
    kMetrics,
    kVersion,
    kLoad,
    kOpenApi,
    kModels,
    kModel,
    kPage,
    kTokenizerInfo,
    kTokenize,
    kDetokenize,
    kCompletions,
    kChat,
  };
  Kind kind;
  const char* method;
  const char* path;
  bool open = false;  // wants no key
};

namespace {

Handled just(HttpReply reply) {
  return {std::move(reply), nullptr};
}

Handled just(const ApiError& error) {
  return {error_reply(error), nullptr};
}

bool is_json(std::string_view content_type) {
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  return type.empty() || type.starts_with("application/json") || type.starts_with("text/json");
}

// Percent signs of a model's name; nothing where they are wrong.
std::optional<std::string> decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const std::string_view digits = text.substr(i + 1, 2);
    const char* const last = digits.data() + digits.size();
    unsigned char byte = 0;
    const auto [end, problem] = std::from_chars(digits.data(), last, byte, 16);
    if (digits.size() != 2 || problem != std::errc() || end != last) return std::nullopt;
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

constexpr std::string_view kModelPrefix = "/v1/models/";

}  // namespace

const Service::Route* Service::find_route(std::string_view method, std::string_view path) {
  using Kind = Route::Kind;
  static constexpr std::array kRoutes = {
      Route{Kind::kHealth, "GET", "/health", true},
      Route{Kind::kHealth, "GET", "/livez", true},
      Route{Kind::kHealth, "GET", "/ping", true},
      Route{Kind::kReady, "GET", "/ready", true},
      Route{Kind::kReady, "GET", "/readyz", true},
      Route{Kind::kMetrics, "GET", "/metrics"},
      Route{Kind::kVersion, "GET", "/version"},
      Route{Kind::kLoad, "GET", "/load"},
      Route{Kind::kOpenApi, "GET", "/openapi.json"},
      Route{Kind::kModels, "GET", "/v1/models"},
      Route{Kind::kModel, "GET", "/v1/models/{model}"},
      Route{Kind::kPage, "GET", "/", true},
      Route{Kind::kPage, "GET", "/page/{file}", true},
      Route{Kind::kTokenizerInfo, "GET", "/tokenizer_info"},
      Route{Kind::kTokenize, "POST", "/tokenize"},
      Route{Kind::kDetokenize, "POST", "/detokenize"},
      Route{Kind::kCompletions, "POST", "/v1/completions"},
      Route{Kind::kChat, "POST", "/v1/chat/completions"},
  };
  if (method == "HEAD") method = "GET";
  for (const Route& route : kRoutes) {
    const std::string_view pattern = route.path;
    const std::string_view prefix = pattern.substr(0, pattern.find('{'));
    const bool same = prefix == pattern ? path == pattern
                                        : path.starts_with(prefix) && path.size() > prefix.size();
    if (same && (method.empty() || method == route.method)) return &route;
  }
  return nullptr;
}

Service::Service(ServiceOptions options)
    : options_(std::move(options)),
      boot_(static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count())) {}

Service::~Service() = default;

void Service::attach(std::shared_ptr<const ServedModel> model) {
  std::atomic_store(&model_, std::move(model));
}

std::optional<HttpReply> Service::refuse_head(const HttpRequest& request) const {
  const auto no = [](ApiError error) { return error_reply(error); };
  if (request.target.size() > options_.limits.target_bytes)
    return no({414,
               fmt::format("at most {} bytes of target expected", options_.limits.target_bytes), "",
               "uri_too_long"});
  if (request.headers.size() > options_.limits.headers)
    return no({431,
               fmt::format("at most {} headers expected, found {}", options_.limits.headers,
                           request.headers.size()),
               "", "headers_too_large"});
  if (request.method == "OPTIONS") return std::nullopt;
  const Route* route = find_route(request.method, request.path());
  const Route* other = route != nullptr ? nullptr : find_route("", request.path());
  const bool open =
      route != nullptr &&
      (route->open || (route->kind == Route::Kind::kMetrics && options_.open_metrics));
  if (!open && !options_.keys.allows(request.header("authorization")))
    return no(
        {401, "a valid API key is expected: Authorization: Bearer KEY", "", "invalid_api_key"});
  if (route == nullptr && other == nullptr)
    return no({404, "there is nothing at this path; /openapi.json lists what there is", "",
               "unknown_path"});
  if (route == nullptr) {
    HttpReply reply =
        no({405, fmt::format("{} expected at this path", other->method), "", "method_not_allowed"});
    reply.headers.emplace_back("Allow", other->method);
    return reply;
  }
  if (std::string_view(route->method) != "POST") return std::nullopt;
  if (!request.has_length)
    return no({411, "Content-Length or a chunked body expected", "", "length_required"});
  if (!is_json(request.header("content-type")))
    return no({415, "Content-Type: application/json expected", "", "unsupported_media_type"});
  const std::string_view encoding = request.header("content-encoding");
  if (!encoding.empty() && encoding != "identity")
    return no({415, "bodies are taken as they are, without Content-Encoding", "",
               "unsupported_encoding"});
  return std::nullopt;
}

bool Service::is_quick(const HttpRequest& request) const {
  return request.method != "POST";
}

void Service::finish_headers(const HttpRequest& request, HttpReply& reply) const {
  reply.headers.emplace_back("X-Request-Id", request.id);
  const std::string_view origin = request.header("origin");
  if (origin.empty()) return;
  for (const std::string& allowed : options_.cors_origins) {
    if (allowed != "*" && allowed != origin) continue;
    reply.headers.emplace_back("Access-Control-Allow-Origin",
                               allowed == "*" ? allowed : std::string(origin));
    reply.headers.emplace_back("Vary", "Origin");
    if (request.method != "OPTIONS") return;
    reply.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    reply.headers.emplace_back("Access-Control-Allow-Headers",
                               "Authorization, Content-Type, X-Request-Id, x-slo-ttft-ms, "
                               "x-slo-tpot-ms");
    reply.headers.emplace_back("Access-Control-Max-Age", "600");
    return;
  }
}

HttpReply Service::health() const {
  const auto served = model();
  const bool good = served == nullptr || served->engine().healthy();
  if (good) return {.body = R"({"status":"ok"})"};
  return error_reply({503, "the engine has failed; start the server anew", "", "engine_failed"});
}

std::optional<ApiError> Service::unavailable(bool new_work) const {
  const auto served = model();
  if (served == nullptr) return ApiError{503, "the model is loading", "", "loading", 1};
  if (!served->engine().healthy())
    return ApiError{503, "the engine has failed; start the server anew", "", "engine_failed"};
  if (refusing_ || (!ready_ && !new_work))
    return ApiError{503, "the server is being shut down", "", "draining", 1};
  return std::nullopt;
}

HttpReply Service::readiness() const {
  if (const auto trouble = unavailable(false)) return error_reply(*trouble);
  return {.body = R"({"status":"ready"})"};
}

HttpReply Service::metrics_text() {
  const auto served = model();
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = metrics_.text(served == nullptr ? "" : served->facts().name,
                                served == nullptr ? nullptr : &served->engine())};
}

HttpReply Service::model_card(const ServedModel& served, std::string_view path) const {
  const auto name = decoded(path.substr(kModelPrefix.size()));
  if (!name || *name != served.facts().name)
    return error_reply({404, fmt::format("model: {} is served here", served.facts().name), "model",
                        "model_not_found"});
  return {.body = served.card()};
}

Handled Service::handle(const HttpRequest& request, std::function<void()> wake) {
  try {
    if (request.method == "OPTIONS") return just(HttpReply{.status = 204, .content_type = ""});
    const Route& route = *find_route(request.method, request.path());
    const auto served = model();
    switch (route.kind) {
      case Route::Kind::kHealth:
        return just(health());
      case Route::Kind::kReady:
        return just(readiness());
      case Route::Kind::kMetrics:
        return just(metrics_text());
      case Route::Kind::kVersion:
        return just(HttpReply{.body = one_line({{"version", options_.version}})});
      case Route::Kind::kPage:
        if (auto page = page_reply(request.path())) return just(std::move(*page));
        return just(ApiError{404, "the page has no such file", "", "unknown_path"});
      case Route::Kind::kOpenApi:
        return just(HttpReply{
            .body = openapi_document(options_.version, options_.keys.required(),
                                     served == nullptr ? 0 : served->tokenizer().vocab_size())});
      default:
        break;
    }
    if (served == nullptr) return just(*unavailable(true));
    switch (route.kind) {
      case Route::Kind::kLoad: {
        const EngineStats stats = served->engine().stats();
        return just(HttpReply{.body = one_line({{"server_load", stats.running + stats.waiting}})});
      }
      case Route::Kind::kModels:
        return just(HttpReply{.body = served->list()});
      case Route::Kind::kModel:
        return just(model_card(*served, request.path()));
      case Route::Kind::kTokenizerInfo:
        return just(HttpReply{.body = served->tokenizer_config()});
      default:
        return post(request, route, std::move(wake));
    }
  } catch (const std::bad_alloc&) {
    return just(ApiError{503, "out of memory for this request", "", "out_of_memory", 1});
  } catch (const std::exception&) {
    return just(ApiError{500, "the server failed at this request", "", "internal_error"});
  }
}

ApiResult<Json> Service::read_body(const HttpRequest& request) const {
  Result<Json> body = parse_json(request.body, "body", options_.limits.json_depth);
  if (!body) return refuse({400, body.error().message, "", "invalid_json"});
  if (!body->is_object())
    return refuse({400, fmt::format("body: an object expected, found {}", type_text(*body)), "",
                   "invalid_type"});
  return std::move(*body);
}

// By what waits alone, before the prompt is tokenized. Fields that are wrong are told of later.
std::optional<ApiError> Service::foreseen_late(const HttpRequest& request, const Json& body,
                                               const ServedModel& served) {
  Request objectives;
  if (!read_objectives(request, objectives)) return std::nullopt;
  const auto priority = body.find("priority");
  if (priority != body.end() && priority->is_number_integer())
    objectives.priority =
        static_cast<int32_t>(-std::clamp<int64_t>(priority->get<int64_t>(), -100, 100));
  const Admission admission =
      served.engine().foresee(1, objectives.ttft_objective, objectives.priority);
  if (admission.code != AdmissionCode::kTooLate) return std::nullopt;
  return too_late(admission);
}

Handled Service::post(const HttpRequest& request, const Route& route, std::function<void()> wake) {
  const bool generates =
      route.kind == Route::Kind::kCompletions || route.kind == Route::Kind::kChat;
  if (const auto trouble = unavailable(true); trouble && generates) {
    Handled refused = just(*trouble);
    refused.reply.close = true;
    return refused;
  }
  auto served = model();
  const ApiResult<Json> body = read_body(request);
  if (!body) return just(body.error());
  if (const auto late = generates ? foreseen_late(request, *body, *served) : std::nullopt)
    return just(*late);
  switch (route.kind) {
    case Route::Kind::kTokenize:
      return just(tokenize_reply(*body, *served, options_.limits));
    case Route::Kind::kDetokenize:
      return just(detokenize_reply(*body, *served));
    case Route::Kind::kCompletions:
      return completions(request, *body, std::move(served), std::move(wake));
    default:
      return chat(request, *body, std::move(served), std::move(wake));
  }
}

Handled Service::completions(const HttpRequest& request, const Json& body,
                             std::shared_ptr<const ServedModel> served,
                             std::function<void()> wake) {
  ApiResult<CompletionRequest> read = read_completion(request, body, *served, options_.limits);
  if (!read) return just(read.error());
  auto writer = std::make_unique<CompletionWriter>(
      *served, *read, fmt::format("cmpl-{:x}{:06x}", boot_, ++answers_));
  return run(*served, std::move(read->requests), std::move(writer), read->fields.streaming.stream,
             std::move(wake));
}

Handled Service::chat(const HttpRequest& request, const Json& body,
                      std::shared_ptr<const ServedModel> served, std::function<void()> wake) {
  ApiResult<ChatRequest> read = read_chat(request, body, *served, options_.limits);
  if (!read) return just(read.error());
  auto writer = std::make_unique<ChatWriter>(*served, *read,
                                             fmt::format("chatcmpl-{:x}{:06x}", boot_, ++answers_));
  std::vector<Request> requests;
  requests.push_back(std::move(read->request));
  return run(*served, std::move(requests), std::move(writer), read->fields.streaming.stream,
             std::move(wake));
}

Handled Service::run(const ServedModel& served, std::vector<Request> requests,
                     std::unique_ptr<AnswerWriter> writer, bool stream,
                     std::function<void()> wake) {
  auto generation = std::make_unique<Generation>(served.engine(), metrics_, std::move(writer),
                                                 stream, std::move(wake));
  if (const ApiResult<void> taken = generation->submit(std::move(requests)); !taken)
    return just(taken.error());
  return {{}, std::move(generation)};
}

std::string Service::finished(const HttpRequest& request, int status, double seconds,
                              const ExchangeRecord& answer) {
  const Route* route = find_route("", request.path());
  constexpr std::array<std::string_view, 5> kMethods = {"GET", "HEAD", "POST", "OPTIONS", ""};
  const bool known = std::find(kMethods.begin(), kMethods.end(), request.method) != kMethods.end();
  RequestLine line{.id = request.id,
                   .method = known ? request.method : "other",
                   .route = route == nullptr ? "other" : route->path,
                   .status = status,
                   .seconds = seconds,
                   .answer = answer};
  metrics_.http(line.route, line.method, status, seconds);
  return log_line(line);
}

std::string log_line(const RequestLine& line) {
  Json json = {{"request_id", line.id},
               {"method", line.method},
               {"route", line.route},
               {"status", line.status},
               {"seconds", std::round(line.seconds * 1e6) / 1e6}};
  const ExchangeRecord& a = line.answer;
  if (a.prompt_tokens > 0) {
    json["stream"] = a.stream;
    json["prompt_tokens"] = a.prompt_tokens;
    json["cached_tokens"] = a.cached_tokens;
    json["tokens"] = a.tokens;
    json["ttft_seconds"] = std::round(a.first_token_seconds * 1e6) / 1e6;
    json["finish"] = a.finish;
  }
  return one_line(json);
}

}  // namespace spear
