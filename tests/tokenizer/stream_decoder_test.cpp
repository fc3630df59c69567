#include "spear/tokenizer/stream_decoder.h"

#include <gtest/gtest.h>

#include "spear/tokenizer/utf8.h"

#include "goldens.h"

namespace spear::test {
namespace {

Tokenizer bytes_only() {
  return value_or_throw(Tokenizer::from_gguf(small_vocabulary(), "small"));
}

std::vector<int32_t> ids_of_bytes(const Tokenizer& tokenizer, const std::string& bytes) {
  std::vector<int32_t> ids;
  for (const char byte : bytes) {
    const auto one = tokenizer.encode(std::string(1, byte));
    ids.insert(ids.end(), one.begin(), one.end());
  }
  return ids;
}

TEST(StreamDecoder, NeverSplitsACharacter) {
  const Tokenizer tokenizer = bytes_only();
  const std::string text = "aé漢🙂\n\U0010ffff";
  StreamDecoder decoder(tokenizer);
  std::string out;
  for (const int32_t id : ids_of_bytes(tokenizer, text)) {
    const std::string part = decoder.push(id);
    EXPECT_TRUE(is_valid_utf8(part));
    out += part;
  }
  EXPECT_EQ(out + decoder.finish(), text);
}

TEST(StreamDecoder, WritesAReplacementForWhatIsNoCharacter) {
  const Tokenizer tokenizer = bytes_only();
  StreamDecoder decoder(tokenizer);
  std::string out;
  for (const int32_t id : ids_of_bytes(tokenizer, "a\xff\x80z\xed\xa0\x80\xc3q\xf0\x9f"))
    out += decoder.push(id);
  EXPECT_EQ(out, "a\ufffd\ufffdz\ufffd\ufffd\ufffd\ufffdq");
  EXPECT_EQ(decoder.finish(), "\ufffd");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, LeavesSpecialTokensOutUnlessAsked) {
  const Tokenizer tokenizer = bytes_only();
  const int32_t special = tokenizer.id_of("<|im_end|>");
  EXPECT_EQ(StreamDecoder(tokenizer).push(special), "");
  EXPECT_EQ(StreamDecoder(tokenizer, false).push(special), "<|im_end|>");
}

TEST(StreamDecoder, EqualsDecodingAtOnceForSentencePiece) {
  const Tokenizer tokenizer = tiny_tokenizer("tiny_sp_bpe.model");
  const std::string text = "Hello  world, 漢字 and é";
  const auto ids = tokenizer.encode(text, {.add_special = true});
  StreamDecoder decoder(tokenizer);
  std::string out;
  for (const int32_t id : ids) out += decoder.push(id);
  EXPECT_EQ(out + decoder.finish(), text);
  EXPECT_EQ(tokenizer.decode(ids, true), text);
}

}  // namespace
}  // namespace spear::test
