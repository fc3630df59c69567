// A request's prompts on their way through the engine, and their answers on the way to the client.
// Made by a worker's thread, then owned by the connection's; the engine's thread only writes into
// its streams and calls the wake-up.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "spear/engine/engine.h"
#include "spear/engine/token_stream.h"
#include "spear/serve/answer_writer.h"
#include "spear/serve/exchange.h"
#include "spear/serve/metrics.h"

namespace spear {

class Generation final : public Exchange {
 public:
  // `engine` and `metrics` must outlive this; `wake` is called on the engine's thread.
  Generation(Engine& engine, ServeMetrics& metrics, std::unique_ptr<AnswerWriter> writer,
             bool stream, std::function<void()> wake);
  ~Generation() override;  // gives up what still runs

  // All of the requests or none: where one is refused those before it are cancelled.
  ApiResult<void> submit(std::vector<Request> requests);

  ExchangeState poll(HttpReply& reply, std::string& out) override;
  void abandon() noexcept override;
  [[nodiscard]] bool streams() const override { return stream_; }
  [[nodiscard]] ExchangeRecord record() const override { return record_; }

 private:
  struct Part {
    uint64_t id = 0;
    std::shared_ptr<TokenStream> stream;
    bool ended = false;
  };
  void note(const StreamEvent& event);
  ExchangeState fail(const Finish& finish, HttpReply& reply, std::string& out);
  [[nodiscard]] ApiError refusal(const Admission& admission) const;

  Engine& engine_;
  ServeMetrics& metrics_;
  std::unique_ptr<AnswerWriter> writer_;
  bool stream_, begun_ = false, over_ = false;
  std::function<void()> wake_;
  std::vector<Part> parts_;
  ExchangeRecord record_;
};

// 429 for a request whose first token would come too late.
ApiError too_late(const Admission& admission);

// Seconds until a full queue has probably moved on: what waits, by how fast answers end.
double retry_after(const EngineStats& stats, double answers_per_second);

}  // namespace spear
