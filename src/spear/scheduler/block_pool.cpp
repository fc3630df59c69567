#include "spear/scheduler/block_pool.h"

#include "spear/base/check.h"

namespace spear {

BlockPool::BlockPool(int32_t pages) : pages_(static_cast<size_t>(pages)) {
  expects(pages > 0);
  for (int32_t p = 0; p < pages; ++p) put_last(p);
}

const BlockPool::Page& BlockPool::at(int32_t page) const {
  expects(page >= 0 && page < size());
  return pages_[static_cast<size_t>(page)];
}

BlockPool::Page& BlockPool::at(int32_t page) {
  expects(page >= 0 && page < size());
  return pages_[static_cast<size_t>(page)];
}

void BlockPool::put_first(int32_t page) {
  Page& p = at(page);
  p.before = kNone;
  p.after = first_;
  (first_ == kNone ? last_ : at(first_).before) = page;
  first_ = page;
  ++free_;
  free_cached_ += p.cached ? 1 : 0;
}

void BlockPool::put_last(int32_t page) {
  Page& p = at(page);
  p.before = last_;
  p.after = kNone;
  (last_ == kNone ? first_ : at(last_).after) = page;
  last_ = page;
  ++free_;
  free_cached_ += p.cached ? 1 : 0;
}

void BlockPool::unlink(int32_t page) {
  Page& p = at(page);
  (p.before == kNone ? first_ : at(p.before).after) = p.after;
  (p.after == kNone ? last_ : at(p.after).before) = p.before;
  p.before = p.after = kNone;
  --free_;
  free_cached_ -= p.cached ? 1 : 0;
}

int32_t BlockPool::take(bool& was_cached) {
  const int32_t page = first_;
  was_cached = false;
  if (page == kNone) return kNone;
  unlink(page);
  Page& p = at(page);
  was_cached = p.cached;
  p.cached = false;
  p.references = 1;
  return page;
}

void BlockPool::share(int32_t page) {
  Page& p = at(page);
  if (p.references == 0) {
    expects(p.cached);  // a plain free page holds nothing to share
    unlink(page);
  }
  ++p.references;
}

void BlockPool::release(int32_t page) {
  Page& p = at(page);
  expects(p.references > 0);
  if (--p.references > 0) return;
  if (p.cached) {
    put_last(page);
  } else {
    put_first(page);
  }
}

void BlockPool::set_cached(int32_t page, bool cached) {
  Page& p = at(page);
  if (p.cached == cached) return;
  if (p.references > 0) {
    p.cached = cached;
    return;
  }
  unlink(page);
  p.cached = cached;
  if (cached) {
    put_last(page);
  } else {
    put_first(page);
  }
}

const char* BlockPool::check() const {
  int32_t listed = 0;
  int32_t before = kNone;
  for (int32_t page = first_; page != kNone; page = at(page).after) {
    if (++listed > size()) return "the list of free pages has a circle";
    if (at(page).before != before) return "the list of free pages is not linked both ways";
    if (at(page).references != 0) return "a page in use is in the list of free pages";
    before = page;
  }
  if (before != last_) return "the list of free pages does not end at its last page";
  if (listed != free_) return "the number of free pages is wrong";
  int32_t unused = 0, kept = 0;
  for (const Page& p : pages_) {
    if (p.references < 0) return "a page has fewer than no references";
    if (p.references == 0) ++unused;
    if (p.references == 0 && p.cached) ++kept;
  }
  if (kept != free_cached_) return "the number of free pages with a prefix is wrong";
  if (unused != listed) return "a page that nobody holds is not in the list of free pages";
  return nullptr;
}

}  // namespace spear
