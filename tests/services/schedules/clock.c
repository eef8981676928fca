// A wall clock that a test moves: preloaded into a server, it adds to CLOCK_REALTIME the seconds that are in the first eight
// bytes of the file CLOCK_AHEAD_FILE, whatever they are at that moment. No other clock changes, as when an administrator or
// NTP sets the time. libfaketime is not used: it moves the time of day and not the waits of librdkafka that end by it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead_seconds;

__attribute__((constructor)) static void find_file(void) {
  const char *path = getenv("CLOCK_AHEAD_FILE");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (mapped != MAP_FAILED) ahead_seconds = mapped;
}

int clock_gettime(clockid_t which, struct timespec *now) {
  int failed = (int)syscall(SYS_clock_gettime, which, now);
  if (!failed && which == CLOCK_REALTIME && ahead_seconds) now->tv_sec += *ahead_seconds;
  return failed;
}
