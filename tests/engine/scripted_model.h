// A model whose logits are a fixed function of the whole prefix, read back from the pages that the
// engine filled, copied and shared: a token in a wrong page changes what it says. Fast enough for
// thousands of requests.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <thread>
#include <vector>

#include "spear/base/error.h"
#include "spear/base/rng.h"
#include "spear/engine/step_model.h"

namespace spear::test {

class ScriptedModel final : public StepModel {
 public:
  // Writes the logits that follow a prefix.
  using Script = std::function<void(std::span<const int32_t> prefix, std::span<float> logits)>;

  // Normal noise from a hash of the prefix.
  static void noise(std::span<const int32_t> prefix, std::span<float> logits) {
    uint64_t h = 1469598103934665603ULL;
    for (const int32_t token : prefix) h = (h ^ static_cast<uint32_t>(token)) * 1099511628211ULL;
    Rng rng(h);
    for (float& logit : logits) logit = 2 * static_cast<float>(rng.normal());
  }

  ScriptedModel(int64_t vocab, int64_t pages, int64_t page_size = 4, int64_t context = 256,
                Script script = noise)
      : vocab_(vocab),
        page_size_(page_size),
        context_(context),
        script_(std::move(script)),
        memory_(static_cast<size_t>(pages * page_size), -1) {}

  int64_t vocab_size() const override { return vocab_; }
  int64_t max_context() const override { return context_; }
  int64_t page_size() const override { return page_size_; }
  int64_t pages() const override { return std::ssize(memory_) / page_size_; }
  bool rows_stand_alone() const override { return true; }

  std::span<float> run(const StepInput& input) override {
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    if (fails.load()) throw Failure(ErrorCode::kInternal, "the scripted device is gone");
    ++steps;
    for (const PageCopy& copy : input.copies)
      std::copy_n(memory_.begin() + copy.from * page_size_, page_size_,
                  memory_.begin() + copy.to * page_size_);
    for (const AttentionSequence& s : input.sequences)
      for (int64_t i = 0; i < s.rows; ++i)
        at(s, s.context + i) = input.tokens[static_cast<size_t>(s.first_row + i)];
    logits_.resize(input.logit_rows.size() * static_cast<size_t>(vocab_));
    size_t row = 0;
    for (const AttentionSequence& s : input.sequences)
      for (int64_t i = 0; i < s.rows; ++i) {
        if (row == input.logit_rows.size() || input.logit_rows[row] != s.first_row + i) continue;
        std::vector<int32_t> prefix;
        for (int64_t t = 0; t <= s.context + i; ++t) prefix.push_back(at(s, t));
        script_(prefix, std::span(logits_).subspan(row * static_cast<size_t>(vocab_),
                                                   static_cast<size_t>(vocab_)));
        ++row;
      }
    if (row != input.logit_rows.size())
      throw std::logic_error("a row with logits is in no sequence");
    return logits_;
  }

  std::atomic<bool> fails = false;
  std::atomic<int64_t> steps = 0;
  std::chrono::microseconds delay{0};

 private:
  int32_t& at(const AttentionSequence& s, int64_t position) {
    const int64_t page = s.pages[position / page_size_];
    return memory_[static_cast<size_t>(page * page_size_ + position % page_size_)];
  }

  int64_t vocab_, page_size_, context_;
  Script script_;
  std::vector<int32_t> memory_;  // token by page and place
  std::vector<float> logits_;
};

}  // namespace spear::test
