// Errors of three kinds (ARCHITECTURE.md, "Errors"): a bug of ours aborts through expects()
// (check.h); the world misbehaving at a boundary throws Failure; an expected outcome is a
// Result<T>. Safe to use from every thread.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace spear {

// The program's exit code is the number of its error (docs/exit-codes in the man page).
enum class ErrorCode : int {
  kUsage = 2,        // a flag or a value on the command line
  kNotFound = 3,     // a file, model, tensor or host that is not there
  kBadFile = 4,      // a file whose bytes are not what its format says
  kUnsupported = 5,  // understood, but this build or machine cannot do it
  kIo = 6,           // reading or writing failed: permissions, full disk
  kNetwork = 7,      // a download failed
  kInterrupted = 8,  // stopped by the user; a checkpoint was left
  kBudget = 9,       // no compensator fits the budget, or no file reaches the target
  kInternal = 70,    // anything that should not happen
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // one sentence: where, what was found, what was expected, what to do
};

template <class T>
using Result = tl::expected<T, Error>;

// What a Result-returning function returns on failure: `return fail(ErrorCode::kBadFile, "...")`.
inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}

class Failure : public std::exception {
 public:
  explicit Failure(Error error) : error_(std::move(error)) {}
  Failure(ErrorCode code, std::string message) : error_{code, std::move(message)} {}
  [[nodiscard]] const Error& error() const noexcept { return error_; }
  [[nodiscard]] const char* what() const noexcept override { return error_.message.c_str(); }

 private:
  Error error_;
};

// Turns an expected failure into the exception of a boundary.
template <class T>
T value_or_throw(Result<T> result) {
  if (!result) throw Failure(std::move(result).error());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace spear
