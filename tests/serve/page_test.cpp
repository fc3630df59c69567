#include "spear/serve/page.h"

#include <gtest/gtest.h>

#include "serve/test_service.h"

namespace spear {
namespace {

using test::Reply;
using test::TestService;
using test::TestServiceOptions;

TEST(Page, ComesWithoutAKeyAndAsksTheApiForOne) {
  TestServiceOptions options;
  options.service.keys = ApiKeys({"sesame"});
  TestService server(std::move(options));
  const Reply page = server.ask("GET", "/");
  EXPECT_EQ(page.status, 200);
  EXPECT_NE(page.body.find("<!doctype html>"), std::string::npos);
  EXPECT_EQ(server.ask("HEAD", "/").status, 200);
  EXPECT_EQ(server.ask("GET", "/page/app.js").status, 200);
  EXPECT_EQ(server.ask("GET", "/page/nothing.js").status, 404);
  EXPECT_EQ(server.ask("GET", "/v1/models").status, 401);
  EXPECT_EQ(server.ask("POST", "/", "{}").status, 401);
}

// No page under this policy runs a script or loads a thing that this server did not send.
TEST(Page, EveryFileForbidsWhatIsNotOfThisServer) {
  TestService server;
  ASSERT_GE(page_files().size(), 10U);
  for (const PageFile& file : page_files()) {
    const Reply reply = server.ask("GET", "/page/" + std::string(file.name));
    EXPECT_EQ(reply.status, 200) << file.name;
    EXPECT_EQ(reply.body.size(), file.bytes.size()) << file.name;
    const std::string policy = reply.header("Content-Security-Policy");
    EXPECT_TRUE(policy.starts_with("default-src 'none'; script-src 'self';")) << file.name;
    EXPECT_EQ(policy.find("unsafe"), std::string::npos) << file.name;
    EXPECT_EQ(reply.header("X-Content-Type-Options"), "nosniff") << file.name;
  }
}

// The files themselves name no other place and hold nothing that the policy would stop.
TEST(Page, FilesNameNoOtherServerAndNoInlineCode) {
  for (const PageFile& file : page_files()) {
    const std::string text(file.bytes.begin(), file.bytes.end());
    for (const char* wrong : {"https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(",
                              " style=", " onclick=", "<style", "localStorage", "document.cookie"})
      EXPECT_EQ(text.find(wrong), std::string::npos) << file.name << ": " << wrong;
  }
}

// What the plots show: pages that are kept for their prefix are free.
TEST(Page, CacheInUseIsAShareAndNothingWhereNobodyRuns) {
  TestService server;
  EXPECT_EQ(server.post("/v1/completions", R"({"prompt": "say:hello hello hello|>"})").status, 200);
  const std::string text = server.ask("GET", "/metrics").body;
  EXPECT_NE(text.find("vllm:kv_cache_usage_perc{model_name=\"tiny\",engine=\"0\"} 0\n"),
            std::string::npos)
      << text;
  EXPECT_GT(server.engine->stats().cached_pages, 0);
}

TEST(Page, CompensatorsAreFullAutoOrNone) {
  TestService server;
  const auto status = [&](const char* value) {
    return server.post("/v1/completions",
                       std::string(R"({"prompt": "say:hi|>", "compensators": )") + value + "}");
  };
  EXPECT_EQ(status("null").status, 200);
  EXPECT_EQ(status("\"auto\"").status, 200);
  EXPECT_EQ(status("\"full\"").status, 200);
  EXPECT_EQ(status("\"some\"").json()["error"]["param"], "compensators");
  EXPECT_EQ(status("false").status, 400);
  // The talking model has none that it could leave out for one request.
  const Reply none = status("\"none\"");
  EXPECT_EQ(none.status, 400);
  EXPECT_NE(none.body.find("compensators"), std::string::npos);
}

}  // namespace
}  // namespace spear
