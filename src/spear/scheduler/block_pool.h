// The pages of a KV cache as integers: who holds how many references, and in which order free pages
// are taken. A free page may still hold a prefix that someone could use again ("cached"): plain
// free pages go first, then cached ones, least recently released first. Allocates only when made.
// One thread.
#pragma once

#include <cstdint>
#include <vector>

namespace spear {

class BlockPool {
 public:
  explicit BlockPool(int32_t pages);

  [[nodiscard]] int32_t size() const { return static_cast<int32_t>(pages_.size()); }
  [[nodiscard]] int32_t free_pages() const { return free_; }  // cached ones included
  [[nodiscard]] int32_t free_cached_pages() const { return free_cached_; }
  [[nodiscard]] int32_t references(int32_t page) const { return at(page).references; }
  [[nodiscard]] bool cached(int32_t page) const { return at(page).cached; }

  // A free page with one reference; -1: none is left. A page that was cached no longer is:
  // `was_cached` tells, and the caller forgets its prefix.
  int32_t take(bool& was_cached);
  // One reference more; a free cached page comes back into use.
  void share(int32_t page);
  // One reference less; the last one frees the page.
  void release(int32_t page);
  // Whether a page is worth keeping when it is free.
  void set_cached(int32_t page, bool cached);

  // Broken promises as a sentence, nullptr: none. Every page is either free and once in the list of
  // free pages, or in use and not there; the counts agree.
  [[nodiscard]] const char* check() const;

 private:
  static constexpr int32_t kNone = -1;
  struct Page {
    int32_t references = 0;
    int32_t before = kNone, after = kNone;  // in the list of free pages
    bool cached = false;
  };

  [[nodiscard]] const Page& at(int32_t page) const;
  Page& at(int32_t page);
  void put_first(int32_t page);
  void put_last(int32_t page);
  void unlink(int32_t page);

  std::vector<Page> pages_;
  int32_t first_ = kNone, last_ = kNone;
  int32_t free_ = 0, free_cached_ = 0;
};

}  // namespace spear
