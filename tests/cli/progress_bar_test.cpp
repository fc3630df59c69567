#include "spear/cli/progress_bar.h"

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include <gtest/gtest.h>

namespace spear {
namespace {

using std::chrono::milliseconds;

// A stream in memory that can be read back.
class Stream {
 public:
  Stream() : file_(open_memstream(&text_, &size_)) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() {
    std::fclose(file_);
    std::free(text_);
  }
  [[nodiscard]] std::FILE* file() const { return file_; }
  std::string text() {
    std::fflush(file_);
    return {text_, size_};
  }

 private:
  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* file_;
};

BarState state() {
  return {.phase = "train",
          .unit = {},
          .done = 30,
          .total = 120,
          .seconds = 60,
          .rate = 0.5,
          .note = "loss 0.31"};
}

TEST(Duration, IsShortAndReadable) {
  EXPECT_EQ(duration_text(0.4), "0 s");
  EXPECT_EQ(duration_text(59.4), "59 s");
  EXPECT_EQ(duration_text(59.6), "1:00");
  EXPECT_EQ(duration_text(185), "3:05");
  EXPECT_EQ(duration_text(3723), "1:02:03");
  EXPECT_EQ(duration_text(-1), "0 s");
}

TEST(BarLine, HasShareRateEtaAndNote) {
  EXPECT_EQ(bar_line(state(), 100),
            "train  [=====>              ]  25%  30/120  0.5/s  ETA 3:00  loss 0.31");
}

TEST(BarLine, NamesTheUnit) {
  BarState s = state();
  s.unit = "MB";
  s.rate = 12;
  EXPECT_NE(bar_line(s, 100).find("30/120 MB  12 MB/s"), std::string::npos);
}

TEST(BarLine, SaysSecondsPerStepWhenStepsAreSlow) {
  BarState s = state();
  s.rate = 0.02;
  EXPECT_NE(bar_line(s, 100).find("50 s each"), std::string::npos);
}

TEST(BarLine, CopesWithUnknownAndOverfullTotals) {
  BarState s = state();
  s.total = 0;
  EXPECT_EQ(bar_line(s, 100), "train  30  0.5/s  1:00 so far  loss 0.31");
  s.total = 10;
  EXPECT_NE(bar_line(s, 100).find("[====================] 100%"), std::string::npos);
}

TEST(BarLine, IsNeverWiderThanTheTerminal) {
  BarState s = state();
  s.note = "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9 and much more that does not fit";
  const std::string line = bar_line(s, 65);
  int columns = 0;
  for (const char c : line) columns += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  EXPECT_EQ(columns, 65);
  EXPECT_EQ(line.substr(line.size() - 6), "\xC3\xA9\xC3\xA9\xC3\xA9");
}

TEST(ProgressBar, SaysNothingAboutShortWork) {
  Stream stream;
  {
    ProgressBar bar({.stream = stream.file(), .terminal = true, .stop_requested = {}});
    bar.begin("short", 10);
    bar.advance(10);
    bar.end();
  }
  EXPECT_EQ(stream.text(), "");
}

TEST(ProgressBar, RedrawsOneLineOnATerminal) {
  Stream stream;
  {
    ProgressBar bar({.stream = stream.file(),
                     .terminal = true,
                     .quiet = false,
                     .stop_requested = {},
                     .show_after = milliseconds(0)});
    bar.begin("work", 10);
    bar.advance(4, "a note");
    std::this_thread::sleep_for(milliseconds(500));
    bar.end();
  }
  const std::string text = stream.text();
  EXPECT_NE(text.find("\r\033[Kwork  ["), std::string::npos) << text;
  EXPECT_NE(text.find("4/10"), std::string::npos);
  EXPECT_EQ(text.find('\n'), text.size() - 1) << "one line is left behind";
}

TEST(ProgressBar, WritesPlainLinesElsewhere) {
  Stream stream;
  {
    ProgressBar bar({.stream = stream.file(),
                     .terminal = false,
                     .quiet = false,
                     .stop_requested = {},
                     .show_after = milliseconds(0),
                     .plain_every = milliseconds(100)});
    bar.begin("work [MB]", 10);
    bar.advance(4);
    std::this_thread::sleep_for(milliseconds(700));
    bar.print_above("a warning");
  }
  const std::string text = stream.text();
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(text.find('\033'), std::string::npos);
  EXPECT_NE(text.find("spear: work 40% 4/10 MB"), std::string::npos) << text;
  EXPECT_NE(text.find("a warning\n"), std::string::npos);
}

TEST(ProgressBar, IsSilentWhenAskedTo) {
  Stream stream;
  {
    ProgressBar bar({.stream = stream.file(),
                     .terminal = true,
                     .quiet = true,
                     .stop_requested = {},
                     .show_after = milliseconds(0)});
    bar.begin("work", 10);
    bar.advance(1);
    std::this_thread::sleep_for(milliseconds(300));
  }
  EXPECT_EQ(stream.text(), "");
}

TEST(ProgressBar, PassesOnTheWishToStop) {
  bool stop = false;
  ProgressBar bar({.stream = stderr, .terminal = false, .quiet = true, .stop_requested = [&stop] {
                     return stop;
                   }});
  EXPECT_FALSE(bar.stop_requested());
  stop = true;
  EXPECT_TRUE(bar.stop_requested());
}

}  // namespace
}  // namespace spear
