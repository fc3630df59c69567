#include "spear/hub/hub_refusal.h"

#include <fmt/format.h>

namespace spear {
namespace {

constexpr const char* kAskToken =
    "set HF_TOKEN to an access token of your account (its settings page on the hub makes one)";

std::string repository_of(const std::string& what) {
  return what.substr(0, what.find(": "));
}

Error unauthorized(const HubAddress& a) {
  if (a.with_token)
    return {
        ErrorCode::kUsage,
        fmt::format(
            "{}: {} does not accept the token in HF_TOKEN (401): it is wrong, expired, or may not "
            "read this model",
            a.what, a.endpoint)};
  return {
      ErrorCode::kUsage,
      fmt::format(
          "{}: {} asks for a login (401): the model is private, gated, or does not exist; check "
          "the name, and {}",
          a.what, a.endpoint, kAskToken)};
}

Error gated(const HubAddress& a) {
  const std::string page = fmt::format("{}/{}", a.endpoint, repository_of(a.what));
  if (a.with_token)
    return {ErrorCode::kUsage, fmt::format("{}: this model is gated: accept its conditions at {} "
                                           "with the account of your HF_TOKEN, "
                                           "then run the same command again",
                                           a.what, page)};
  return {ErrorCode::kUsage,
          fmt::format("{}: this model is gated: accept its conditions at {} and {}", a.what, page,
                      kAskToken)};
}

Error not_found(const HttpResponse& response, const HubAddress& a) {
  const std::string code = response.header("x-error-code");
  if (code == "RevisionNotFound")
    return {ErrorCode::kNotFound,
            fmt::format("{}: the model has no such revision (branch, tag or commit) on {}", a.what,
                        a.endpoint)};
  if (code == "EntryNotFound")
    return {ErrorCode::kNotFound, fmt::format("{}: no such file on {}", a.what, a.endpoint)};
  return {ErrorCode::kNotFound,
          fmt::format("{}: not found on {} (404): check the spelling of org/name, or the revision",
                      a.what, a.endpoint)};
}

}  // namespace

Error explain_refusal(const HttpResponse& response, const HubAddress& a) {
  if (!response.problem.empty())
    return {ErrorCode::kNetwork,
            fmt::format("{}: the connection to {} failed: {}; check the network, the proxy and "
                        "HF_ENDPOINT, then "
                        "run the same command again: it goes on where it stopped",
                        a.what, a.endpoint, response.problem)};
  if (response.header("x-error-code") == "GatedRepo") return gated(a);
  switch (response.status) {
    case 401:
      return unauthorized(a);
    case 403:
      return {
          ErrorCode::kUsage,
          fmt::format("{}: {} refuses access (403){}; {}", a.what, a.endpoint,
                      a.with_token ? " with the token in HF_TOKEN" : "",
                      a.with_token ? "give the token read permission for this model" : kAskToken)};
    case 404:
    case 410:
      return not_found(response, a);
    case 429:
      return {
          ErrorCode::kNetwork,
          fmt::format(
              "{}: {} says too many requests (429){}; wait and run the same command again, {}",
              a.what, a.endpoint,
              response.header("retry-after").empty()
                  ? ""
                  : fmt::format(", and to come back in {} seconds", response.header("retry-after")),
              a.with_token ? "it goes on where it stopped"
                           : "or set HF_TOKEN, which raises the limit")};
    default:
      return {
          ErrorCode::kNetwork,
          fmt::format(
              "{}: {} answered with HTTP status {}; run the same command again later: it goes on "
              "where it stopped",
              a.what, a.endpoint, response.status)};
  }
}

bool may_pass(const HttpResponse& response) {
  if (!response.problem.empty()) return response.retryable;
  return response.status == 408 || response.status == 429 || response.status >= 500;
}

}  // namespace spear
