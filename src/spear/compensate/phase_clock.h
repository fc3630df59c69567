// How long each phase of a job took, over all its runs: kept in a file of its work folder.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace spear {

struct PhaseTime {
  std::string name;
  double seconds = 0;
};

class PhaseClock {
 public:
  explicit PhaseClock(std::filesystem::path file);

  // Runs `body`; its time counts also when it throws.
  template <class Body>
  decltype(auto) time(const std::string& name, const Body& body) {
    const AtExit at_exit{*this, name, std::chrono::steady_clock::now()};
    return body();
  }
  [[nodiscard]] const std::vector<PhaseTime>& phases() const { return phases_; }
  void save() const;

 private:
  struct AtExit {
    PhaseClock& clock;
    const std::string& name;
    std::chrono::steady_clock::time_point begin;
    ~AtExit() {
      clock.add(name,
                std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
  };
  void add(const std::string& name, double seconds);

  std::filesystem::path file_;
  std::vector<PhaseTime> phases_;
};

}  // namespace spear
