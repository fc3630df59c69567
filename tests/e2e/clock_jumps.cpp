// Preloaded into a program under test: the clock of the day jumps an hour back and forth at every
// look; the steady clock goes on as it is.
#include <atomic>

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static std::atomic<unsigned> looks = 0;
  const long result = syscall(SYS_clock_gettime, clock, time);
  constexpr time_t kHour = 3600;
  if (clock == CLOCK_REALTIME) time->tv_sec += looks++ % 2 == 0 ? kHour : -kHour;
  return static_cast<int>(result);
}
