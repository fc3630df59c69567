// Turns what the engine says of a request's answers into the bytes of its reply: one JSON object,
// or server-sent events. One owner, one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/json_fwd.h"
#include "spear/engine/token_stream.h"
#include "spear/serve/generation_fields.h"
#include "spear/serve/served_model.h"

namespace spear {

class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;
  // What came of prompt `prompt`; of a stream, the events that follow from it go to `out`.
  virtual void add(size_t prompt, const StreamEvent& event, std::string& out) = 0;
  // Every answer has ended: the body, or the stream's last events.
  virtual void finish(std::string& out) = 0;
};

// "data: …\n\n"
void append_event(std::string& out, std::string_view json);
inline constexpr std::string_view kDoneEvent = "data: [DONE]\n\n";
inline constexpr std::string_view kPingEvent = ": ping\n\n";  // a comment: clients skip it

// What the replies of both endpoints begin and end with.
class ReplyFrame {
 public:
  ReplyFrame(const ServedModel& model, const GenerationFields& fields, std::string id,
             const char* object);

  // {"id", "object", "created", "model", "system_fingerprint"}
  [[nodiscard]] Json head() const;
  void add_prompt(int64_t tokens);  // once a prompt, in order, before the first note()
  void note(size_t prompt, const StreamEvent& event);
  [[nodiscard]] Json usage() const;
  [[nodiscard]] int32_t lowest_level() const;  // the most compensators that were off
  [[nodiscard]] Json metrics() const;          // null unless asked for
  [[nodiscard]] const StreamFields& streaming() const { return streaming_; }

  // One chunk with this choice.
  void append_chunk(std::string& out, Json choice) const;
  // The chunk of usage, where asked for, and the end mark.
  void append_end(std::string& out) const;
  // The whole reply, not streamed.
  void append_body(std::string& out, Json choices) const;

 private:
  std::string id_, object_, model_, fingerprint_;
  int64_t created_;
  StreamFields streaming_;
  bool include_metrics_;
  bool bare_;                                           // no compensator ran, as asked
  std::vector<int64_t> prompt_tokens_, cached_tokens_;  // by prompt
  int64_t completion_tokens_ = 0;
  std::vector<Finish> finishes_;
};

// "stop", "length", "abort"
const char* finish_text(FinishReason reason);
// The stop string or token id that ended an answer; null: none.
Json stop_reason(const Finish& finish, const Tokenizer& tokenizer);

}  // namespace spear
