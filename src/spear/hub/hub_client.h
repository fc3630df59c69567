// The hub's HTTP protocol: the list of a repository's files and the download of one, with redirects
// (the token goes to the hub's own host alone), retries with backoff, resume by Range, and digests.
// One thread at a time.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>

#include "spear/hub/http.h"
#include "spear/hub/hub_files.h"
#include "spear/hub/hub_model_id.h"
#include "spear/hub/part_file.h"

namespace spear {

struct HubOptions {
  std::string endpoint = "https://huggingface.co";
  std::string token;
  int attempts = 6;                            // in a row without a new byte
  std::chrono::milliseconds first_wait{1000};  // doubles from try to try
  std::chrono::seconds longest_wait{120};      // a server that asks for more is taken for a refusal
};

class HubClient {
 public:
  // `keep_going` is asked several times a second; false ends everything with Failure(kInterrupted).
  HubClient(HubOptions options, std::function<bool()> keep_going);

  // Throws Failure: kNotFound, kNetwork, kBadFile, and kUsage for what a token or an accepted
  // licence would allow.
  HubListing list(const HubModelId& id);

  // Downloads into `target`, by way of "target.part", which an interruption leaves for the next
  // call to continue. `on_bytes` hears how many bytes of the file are there. Returns the sha256.
  // Throws Failure as above; kIo on a full disk.
  std::string download(const HubModelId& id, const std::string& commit, const HubFile& file,
                       const std::filesystem::path& target,
                       const std::function<void(int64_t)>& on_bytes);

 private:
  // What the hub itself (not the storage it points to) says about the content.
  struct Linked {
    std::string sha256;
    int64_t bytes = -1;
  };

  HttpResponse follow(std::string url, int64_t range_begin, const HttpSession::BodyReader& on_body,
                      Linked* linked);
  void wait_before_retry(const std::string& what, const HttpResponse& response, int failures);
  HttpResponse request_rest(const std::string& url, const std::string& what, HubFile& file,
                            PartFile& out, const std::function<void(int64_t)>& on_bytes);
  static void adopt(const Linked& linked, const std::string& what, HubFile& file);
  void fill(const std::string& url, const std::string& what, HubFile& file,
            const std::filesystem::path& part, const std::function<void(int64_t)>& on_bytes);

  HubOptions options_;
  std::function<bool()> keep_going_;
  HttpSession session_;
};

}  // namespace spear
