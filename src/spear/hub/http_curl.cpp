#include <array>
#include <cctype>
#include <cstdlib>
#include <exception>
#include <mutex>

#include <curl/curl.h>

#include "spear/base/error.h"
#include "spear/hub/http.h"

namespace spear {
namespace {

constexpr long kConnectSeconds = 20;
constexpr long kStallSeconds = 60;  // no byte for so long: the connection counts as broken
constexpr size_t kHeaderLimit = 128;

struct Transfer {
  HttpResponse response;
  const HttpSession::BodyReader* on_body = nullptr;
  const std::function<bool()>* keep_going = nullptr;
  std::exception_ptr thrown;  // must not pass through libcurl's frames
};

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == text.npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}

std::string lower_case(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

size_t on_header(char* data, size_t size, size_t count, void* user) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  const std::string_view line(data, size * count);
  if (line.starts_with("HTTP/")) {  // a new answer begins (after "100 Continue", say)
    transfer.response.headers.clear();
    const size_t space = line.find(' ');
    transfer.response.status =
        space == line.npos ? 0 : std::atoi(std::string(line.substr(space + 1, 3)).c_str());
    return size * count;
  }
  const size_t colon = line.find(':');
  if (colon == line.npos || transfer.response.headers.size() >= kHeaderLimit) return size * count;
  transfer.response.headers[lower_case(std::string(line.substr(0, colon)))] =
      trimmed(line.substr(colon + 1));
  return size * count;
}

size_t on_data(char* data, size_t size, size_t count, void* user) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  const size_t bytes = size * count;
  if (transfer.response.status / 100 != 2) return bytes;  // an error's page: headers say enough
  bool go_on = false;
  try {
    go_on = (*transfer.on_body)(transfer.response, std::as_bytes(std::span(data, bytes)));
  } catch (...) {
    transfer.thrown = std::current_exception();
  }
  transfer.response.stopped = !go_on;
  return go_on ? bytes : 0;
}

int on_tick(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  if ((*transfer.keep_going)()) return 0;
  transfer.response.stopped = true;
  return 1;
}

// A wrong address or certificate stays wrong; all else may be a passing trouble.
bool worth_another_try(CURLcode code) {
  switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_OUT_OF_MEMORY:
      return false;
    default:
      return true;
  }
}

void initialize_library() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
      throw Failure(ErrorCode::kNetwork, "libcurl cannot be initialised");
  });
}

struct ParsedUrl {
  explicit ParsedUrl(const std::string& text) : handle(curl_url()) {
    valid = handle != nullptr && curl_url_set(handle, CURLUPART_URL, text.c_str(), 0) == CURLUE_OK;
  }
  ParsedUrl(const ParsedUrl&) = delete;
  ParsedUrl& operator=(const ParsedUrl&) = delete;
  ~ParsedUrl() { curl_url_cleanup(handle); }
  [[nodiscard]] std::string part(CURLUPart which) const {
    char* text = nullptr;
    if (!valid || curl_url_get(handle, which, &text, CURLU_DEFAULT_PORT) != CURLUE_OK) return {};
    std::string copy = text;
    curl_free(text);
    return copy;
  }
  CURLU* handle;
  bool valid = false;
};

}  // namespace

struct HttpSession::State {
  CURL* handle = nullptr;
};

HttpSession::HttpSession() : state_(std::make_unique<State>()) {
  initialize_library();
  state_->handle = curl_easy_init();
  if (state_->handle == nullptr)
    throw Failure(ErrorCode::kNetwork, "libcurl cannot make a session");
}

HttpSession::~HttpSession() {
  curl_easy_cleanup(state_->handle);
}

HttpResponse HttpSession::get(const HttpRequest& request, const BodyReader& on_body,
                              const std::function<bool()>& keep_going) {
  CURL* curl = state_->handle;
  curl_easy_reset(curl);  // keeps the connection
  Transfer transfer{.response = {}, .on_body = &on_body, .keep_going = &keep_going, .thrown = {}};
  std::array<char, CURL_ERROR_SIZE> detail{};
  curl_slist* headers = nullptr;
  if (!request.token.empty())
    headers = curl_slist_append(headers, ("Authorization: Bearer " + request.token).c_str());
  const std::string range = std::to_string(request.range_begin) + "-";

  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "spear");
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail.data());
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_tick);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  if (request.range_begin > 0) curl_easy_setopt(curl, CURLOPT_RANGE, range.c_str());

  const CURLcode code = curl_easy_perform(curl);
  curl_slist_free_all(headers);
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  HttpResponse response = std::move(transfer.response);
  if (code != CURLE_OK && !response.stopped) {
    response.problem = detail[0] != '\0' ? detail.data() : curl_easy_strerror(code);
    response.retryable = worth_another_try(code);
  }
  char* redirect = nullptr;
  if (curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &redirect) == CURLE_OK && redirect != nullptr)
    response.redirect = redirect;
  return response;
}

bool same_origin(const std::string& a, const std::string& b) {
  const ParsedUrl x(a);
  const ParsedUrl y(b);
  if (!x.valid || !y.valid) return false;
  for (const CURLUPart part : {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT})
    if (lower_case(x.part(part)) != lower_case(y.part(part))) return false;
  return true;
}

}  // namespace spear
