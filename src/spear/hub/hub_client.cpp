#include "spear/hub/hub_client.h"

#include <algorithm>
#include <charconv>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "spear/base/hash.h"
#include "spear/base/log.h"
#include "spear/hub/hub_refusal.h"
#include "spear/hub/part_file.h"

namespace spear {
namespace fs = std::filesystem;
namespace {

constexpr int kMostRedirects = 8;
constexpr size_t kListingLimit = size_t{32} << 20;

[[noreturn]] void throw_interrupted() {
  throw Failure(ErrorCode::kInterrupted,
                "stopped; what arrived was kept: run the same command to go on");
}

// An ETag without its quotes: W/"abc" -> abc.
std::string unquoted(std::string_view text) {
  if (text.starts_with("W/")) text.remove_prefix(2);
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') {
    text.remove_prefix(1);
    text.remove_suffix(1);
  }
  return std::string(text);
}

int64_t number_or(std::string_view text, int64_t otherwise) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 ? value : otherwise;
}

// "bytes 100-199/200" -> 100; -1 when it is not that.
int64_t range_start(const std::string& content_range) {
  constexpr std::string_view kUnit = "bytes ";
  const size_t dash = content_range.find('-');
  if (!content_range.starts_with(kUnit) || dash == std::string::npos) return -1;
  return number_or(std::string_view(content_range).substr(kUnit.size(), dash - kUnit.size()), -1);
}

std::string encoded_path(std::string_view path) {
  std::string out;
  size_t begin = 0;
  while (begin <= path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    if (begin > 0) out += '/';
    out += percent_encoded(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

// The digest the hub published, compared with what arrived. Returns the sha256.
std::string verified_sha256(const HubFile& file, const fs::path& part, const std::string& what) {
  std::string sha256 = value_or_throw(sha256_of_file(part));
  if (!file.sha256.empty() && file.sha256 != sha256)
    throw Failure(ErrorCode::kBadFile,
                  fmt::format("{}: sha256 {} expected, found {}", what, file.sha256, sha256));
  if (!file.git_sha1.empty()) {
    const std::string found = value_or_throw(git_blob_sha1(part));
    if (found != file.git_sha1)
      throw Failure(ErrorCode::kBadFile, fmt::format("{}: git object {} expected, found {}", what,
                                                     file.git_sha1, found));
  }
  if (file.sha256.empty() && file.git_sha1.empty())
    log(LogLevel::kWarning,
        fmt::format("{}: the hub publishes no checksum for it; only its size was checked", what));
  return sha256;
}

}  // namespace

HubClient::HubClient(HubOptions options, std::function<bool()> keep_going)
    : options_(std::move(options)), keep_going_(std::move(keep_going)) {
  while (options_.endpoint.ends_with('/')) options_.endpoint.pop_back();
  if (!options_.endpoint.starts_with("https://") && !options_.endpoint.starts_with("http://"))
    throw Failure(
        ErrorCode::kUsage,
        fmt::format("HF_ENDPOINT: http:// or https:// expected, found \"{}\"", options_.endpoint));
}

HttpResponse HubClient::follow(std::string url, int64_t range_begin,
                               const HttpSession::BodyReader& on_body, Linked* linked) {
  const bool secure = options_.endpoint.starts_with("https://");
  for (int hop = 0; hop <= kMostRedirects; ++hop) {
    const bool own = same_origin(url, options_.endpoint);
    HttpResponse response = session_.get(
        {.url = url, .token = own ? options_.token : std::string(), .range_begin = range_begin},
        on_body, keep_going_);
    if (own && linked != nullptr && linked->sha256.empty()) {
      const std::string tag = unquoted(response.header("x-linked-etag"));
      if (tag.size() == 64) linked->sha256 = tag;
      linked->bytes = number_or(response.header("x-linked-size"), -1);
    }
    if (response.status / 100 != 3 || response.redirect.empty()) return response;
    if (secure && !response.redirect.starts_with("https://")) {
      response.problem = "it redirects from https to an unprotected address";
      return response;
    }
    url = response.redirect;
  }
  HttpResponse lost;
  lost.problem = fmt::format("more than {} redirects", kMostRedirects);
  return lost;
}

void HubClient::wait_before_retry(const std::string& what, const HttpResponse& response,
                                  int failures) {
  using std::chrono::milliseconds;
  auto wait = options_.first_wait * (1 << std::min(failures - 1, 6));
  const int64_t asked = number_or(response.header("retry-after"), 0);
  if (asked > options_.longest_wait.count())
    throw Failure(explain_refusal(response, {options_.endpoint, what, !options_.token.empty()}));
  wait = std::min<milliseconds>(std::max<milliseconds>(wait, std::chrono::seconds(asked)),
                                options_.longest_wait);
  log(LogLevel::kInfo,
      fmt::format("{}: {}; trying again in {:.1f} s", what,
                  response.problem.empty() ? fmt::format("HTTP status {}", response.status)
                                           : response.problem,
                  static_cast<double>(wait.count()) / 1000));
  const auto until = std::chrono::steady_clock::now() + wait;
  while (std::chrono::steady_clock::now() < until) {
    if (!keep_going_()) throw_interrupted();
    std::this_thread::sleep_for(std::min<milliseconds>(wait, milliseconds(50)));
  }
}

HubListing HubClient::list(const HubModelId& id) {
  const std::string url = fmt::format("{}/api/models/{}/revision/{}?blobs=true", options_.endpoint,
                                      encoded_path(id.repository), percent_encoded(id.revision));
  const std::string what =
      id.revision == "main" ? id.repository : id.repository + "@" + id.revision;
  for (int failures = 1;; ++failures) {
    std::string body;
    const auto collect = [&body](const HttpResponse&, std::span<const std::byte> piece) {
      body.append(reinterpret_cast<const char*>(piece.data()), piece.size());
      return body.size() <= kListingLimit;
    };
    HttpResponse response = follow(url, 0, collect, nullptr);
    if (body.size() > kListingLimit)
      throw Failure(ErrorCode::kBadFile, fmt::format("{}: the list of files is longer than {} MiB",
                                                     what, kListingLimit >> 20));
    if (response.stopped) throw_interrupted();
    if (response.status == 200 && response.problem.empty())
      return value_or_throw(parse_hub_listing(body, url));
    if (!may_pass(response) || failures >= options_.attempts)
      throw Failure(explain_refusal(response, {options_.endpoint, what, !options_.token.empty()}));
    wait_before_retry(what, response, failures);
  }
}

// One request for the bytes that are missing. A server that ignores the range starts the file anew;
// one that answers with another place, or with more than was announced, costs us what we had.
HttpResponse HubClient::request_rest(const std::string& url, const std::string& what, HubFile& file,
                                     PartFile& out, const std::function<void(int64_t)>& on_bytes) {
  bool first = true;
  bool misplaced = false;
  const auto write = [&](const HttpResponse& head, std::span<const std::byte> piece) {
    if (std::exchange(first, false)) {
      if (head.status == 200) out.cut(0);
      misplaced = head.status == 206 && range_start(head.header("content-range")) != out.bytes();
    }
    if (misplaced) return false;
    out.append(piece);
    on_bytes(out.bytes());
    return file.bytes < 0 || out.bytes() <= file.bytes;
  };
  Linked linked;
  HttpResponse response = follow(url, out.bytes(), write, &linked);
  if (!keep_going_()) throw_interrupted();
  adopt(linked, what, file);
  if (response.status / 100 == 2 && response.problem.empty() && !response.stopped && file.bytes < 0)
    file.bytes = out.bytes();  // nobody stated it; the server ended it
  const bool too_long = file.bytes >= 0 && out.bytes() > file.bytes;
  if (response.status == 416 || misplaced || too_long) {
    out.cut(0);
    response.problem = "what it sends does not continue what had arrived";
    response.retryable = true;
  } else if (response.status / 100 == 2 && response.problem.empty() && out.bytes() < file.bytes) {
    response.problem = fmt::format("it ended after {} of {} bytes", out.bytes(), file.bytes);
    response.retryable = true;
  }
  return response;
}

// The answer's headers complete the listing, and must not contradict it.
void HubClient::adopt(const Linked& linked, const std::string& what, HubFile& file) {
  if (file.sha256.empty() && file.git_sha1.empty()) file.sha256 = linked.sha256;
  if (file.bytes < 0) file.bytes = linked.bytes;
  if (!linked.sha256.empty() && !file.sha256.empty() && linked.sha256 != file.sha256)
    throw Failure(
        ErrorCode::kBadFile,
        fmt::format(
            "{}: the hub lists sha256 {} and serves {}: the revision changed underway; run the "
            "same command again",
            what, file.sha256, linked.sha256));
}

void HubClient::fill(const std::string& url, const std::string& what, HubFile& file,
                     const fs::path& part, const std::function<void(int64_t)>& on_bytes) {
  PartFile out(part);
  if (file.bytes >= 0 && out.bytes() > file.bytes) out.cut(0);
  int failures = 0;
  while (file.bytes < 0 || out.bytes() != file.bytes) {
    const int64_t begin = out.bytes();
    const HttpResponse response = request_rest(url, what, file, out, on_bytes);
    if (response.status / 100 == 2 && response.problem.empty()) continue;
    failures = out.bytes() > begin ? 1 : failures + 1;
    if (!may_pass(response) || failures >= options_.attempts)
      throw Failure(explain_refusal(response, {options_.endpoint, what, !options_.token.empty()}));
    wait_before_retry(what, response, failures);
  }
  out.flush_to_disk();
}

std::string HubClient::download(const HubModelId& id, const std::string& commit,
                                const HubFile& wanted, const fs::path& target,
                                const std::function<void(int64_t)>& on_bytes) {
  const std::string url =
      fmt::format("{}/{}/resolve/{}/{}", options_.endpoint, encoded_path(id.repository), commit,
                  encoded_path(wanted.name));
  const std::string what = id.repository + ": " + wanted.name;
  const fs::path part = target.string() + ".part";
  // Complete from an interrupted pull: checked again like a part that needs no more bytes.
  if (fs::exists(target)) fs::rename(target, part);
  constexpr int kRounds = 2;  // a wrong digest may come from an old part: once more from the start
  for (int round = 1;; ++round) {
    HubFile file = wanted;
    fill(url, what, file, part, on_bytes);
    try {
      std::string sha256 = verified_sha256(file, part, what);
      fs::rename(part, target);
      return sha256;
    } catch (const Failure& failure) {
      if (failure.error().code != ErrorCode::kBadFile) throw;
      fs::remove(part);
      if (round == kRounds)
        throw Failure(ErrorCode::kBadFile,
                      failure.error().message +
                          "; downloaded twice and deleted: the server or a proxy on the way "
                          "changes the file");
      log(LogLevel::kWarning, failure.error().message + "; downloading it again");
      on_bytes(0);
    }
  }
}

}  // namespace spear
