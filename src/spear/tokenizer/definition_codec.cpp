// The binary form of a definition, as docs/tokenizer-section.md lays it out.
#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>

#include "spear/tokenizer/definition.h"

namespace spear {
namespace {

constexpr std::string_view kMagic = "SPTK";
constexpr uint64_t kVersion = 1;

class Writer {
 public:
  void byte(unsigned value) { out_.push_back(static_cast<char>(value)); }

  void number(uint64_t value) {  // LEB128
    for (; value >= 0x80; value >>= 7) byte(static_cast<unsigned>(value & 0x7f) | 0x80);
    byte(static_cast<unsigned>(value));
  }

  void id(int32_t value) {
    number(static_cast<uint64_t>(static_cast<int64_t>(value) + 1));
  }  // -1 is 0

  void real(double value) {
    const auto bits = std::bit_cast<uint64_t>(value);
    for (int shift = 0; shift < 64; shift += 8) byte(static_cast<unsigned>(bits >> shift) & 0xff);
  }

  void text(std::string_view value) {
    number(value.size());
    out_.append(value);
  }

  void flags(std::initializer_list<bool> values) {
    unsigned bits = 0;
    unsigned bit = 1;
    for (const bool value : values) {
      if (value) bits |= bit;
      bit <<= 1;
    }
    byte(bits);
  }

  template <class List, class Write>
  void list(const List& values, Write&& write) {
    number(values.size());
    for (const auto& value : values) write(value);
  }

  std::string take() { return std::move(out_); }

 private:
  std::string out_{kMagic};
};

// Reads within its bytes; everything that does not fit is a Failure caught in parse_definition().
class Reader {
 public:
  Reader(std::string_view bytes, std::string_view source) : bytes_(bytes), source_(source) {}

  [[noreturn]] void bad(std::string_view what) const {
    throw Failure(ErrorCode::kBadFile,
                  fmt::format("{}: tokenizer section, byte {}: {}", source_, at_, what));
  }

  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - at_)
      bad(fmt::format("{} bytes are announced, {} are left", count, bytes_.size() - at_));
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }

  unsigned byte() { return static_cast<uint8_t>(take(1).front()); }

  uint64_t number() {
    uint64_t value = 0;
    for (int shift = 0; shift < 63; shift += 7) {
      const uint64_t digit = byte();
      value |= (digit & 0x7f) << shift;
      if (digit < 0x80) return value;
    }
    bad("a number of more than 9 bytes");
  }

  int32_t id() {
    const uint64_t value = number();
    if (value > INT32_MAX) bad(fmt::format("the id {}, too large for any vocabulary", value - 1));
    return static_cast<int32_t>(static_cast<int64_t>(value) - 1);
  }

  double real() {
    const std::string_view bytes = take(8);
    uint64_t bits = 0;
    for (size_t i = 8; i-- > 0;) bits = (bits << 8) | static_cast<uint8_t>(bytes[i]);
    return std::bit_cast<double>(bits);
  }

  std::string text() { return std::string(take(number())); }

  template <class Enum>
  Enum choice(Enum last, std::string_view what) {
    const unsigned value = byte();
    if (value > static_cast<unsigned>(last)) bad(fmt::format("{} {} is unknown", what, value));
    return static_cast<Enum>(value);
  }

  void flags(std::initializer_list<bool*> values) {
    unsigned bits = byte();
    for (bool* value : values) {
      *value = (bits & 1) != 0;
      bits >>= 1;
    }
    if (bits != 0) bad("an unknown flag is set");
  }

  // Every entry takes at least one byte, so a count beyond the rest of the section is refused at
  // once.
  template <class T, class Read>
  void list(std::vector<T>& values, Read&& read) {
    const uint64_t count = number();
    if (count > bytes_.size() - at_)
      bad(fmt::format("{} entries are announced in the {} bytes left", count, bytes_.size() - at_));
    values.reserve(std::min<uint64_t>(count, size_t{1} << 16));
    for (uint64_t i = 0; i < count; ++i) values.push_back(read());
  }

  [[nodiscard]] bool at_end() const { return at_ == bytes_.size(); }

 private:
  std::string_view bytes_;
  std::string_view source_;
  size_t at_ = 0;
};

void write_steps(const TokenizerDefinition& definition, Writer& out) {
  out.list(definition.normalizer, [&out](const NormalizerStep& step) {
    out.byte(static_cast<unsigned>(step.kind));
    out.flags({step.left, step.right, step.dummy_prefix, step.squeeze_spaces, step.escape_spaces});
    out.text(step.pattern);
    out.text(step.content);
  });
  out.list(definition.splits, [&out](const SplitStep& step) {
    out.byte(static_cast<unsigned>(step.kind));
    out.byte(static_cast<unsigned>(step.behavior));
    out.byte(static_cast<unsigned>(step.prepend));
    out.flags({step.invert, step.cut});
    out.text(step.pattern);
  });
}

void read_steps(Reader& in, TokenizerDefinition& definition) {
  in.list(definition.normalizer, [&in] {
    NormalizerStep step;
    step.kind = in.choice(NormalizerKind::kSentencePiece, "normalizer");
    in.flags(
        {&step.left, &step.right, &step.dummy_prefix, &step.squeeze_spaces, &step.escape_spaces});
    step.pattern = in.text();
    step.content = in.text();
    return step;
  });
  in.list(definition.splits, [&in] {
    SplitStep step;
    step.kind = in.choice(SplitKind::kPrefixSpace, "pre-tokenizer");
    step.behavior = in.choice(SplitBehavior::kContiguous, "split behavior");
    step.prepend = in.choice(PrependScheme::kAlways, "prepend scheme");
    in.flags({&step.invert, &step.cut});
    step.pattern = in.text();
    return step;
  });
}

void read_vocabulary(Reader& in, TokenizerDefinition& definition) {
  in.list(definition.pieces, [&] {
    definition.kinds.push_back(static_cast<PieceKind>(in.byte()));  // judged by check_definition()
    return in.text();
  });
  in.list(definition.scores, [&in] { return in.real(); });
  in.list(definition.merges, [&in] {
    const int32_t left = in.id();
    return std::pair{left, in.id()};
  });
  in.list(definition.added, [&in] {
    AddedToken token;
    token.id = in.id();
    in.flags({&token.special, &token.normalized, &token.left_strip, &token.right_strip,
              &token.single_word});
    token.content = in.text();
    return token;
  });
}

}  // namespace

std::string serialize_definition(const TokenizerDefinition& definition) {
  Writer out;
  out.number(kVersion);
  out.byte(static_cast<unsigned>(definition.model));
  out.flags({definition.byte_level, definition.byte_fallback, definition.ignore_merges,
             definition.fuse_unknown, definition.single_precision, definition.strip_first_space});
  for (const int32_t id : {definition.bos, definition.eos, definition.unknown, definition.padding})
    out.id(id);
  size_t index = 0;
  out.list(definition.pieces, [&](const std::string& piece) {
    out.byte(static_cast<unsigned>(definition.kinds[index++]));
    out.text(piece);
  });
  out.list(definition.scores, [&out](double score) { out.real(score); });
  out.list(definition.merges, [&out](const auto& merge) {
    out.id(merge.first);
    out.id(merge.second);
  });
  out.list(definition.added, [&out](const AddedToken& token) {
    out.id(token.id);
    out.flags(
        {token.special, token.normalized, token.left_strip, token.right_strip, token.single_word});
    out.text(token.content);
  });
  write_steps(definition, out);
  out.list(definition.prefix, [&out](int32_t id) { out.id(id); });
  out.list(definition.suffix, [&out](int32_t id) { out.id(id); });
  out.text(definition.chat_template);
  return out.take();
}

Result<TokenizerDefinition> parse_definition(std::string_view bytes, std::string_view source) {
  try {
    Reader in(bytes, source);
    if (in.take(std::min(bytes.size(), kMagic.size())) != kMagic)
      in.bad("does not begin with SPTK");
    if (const uint64_t version = in.number(); version != kVersion)
      in.bad(fmt::format("version {}; this spear reads version {}", version, kVersion));
    TokenizerDefinition definition;
    definition.model = in.choice(ModelKind::kUnigram, "model");
    in.flags({&definition.byte_level, &definition.byte_fallback, &definition.ignore_merges,
              &definition.fuse_unknown, &definition.single_precision,
              &definition.strip_first_space});
    for (int32_t* id : {&definition.bos, &definition.eos, &definition.unknown, &definition.padding})
      *id = in.id();
    read_vocabulary(in, definition);
    read_steps(in, definition);
    in.list(definition.prefix, [&in] { return in.id(); });
    in.list(definition.suffix, [&in] { return in.id(); });
    definition.chat_template = in.text();
    if (!in.at_end()) in.bad("bytes follow the end");
    return definition;
  } catch (const Failure& failure) {
    return tl::unexpected(failure.error());
  }
}

}  // namespace spear
