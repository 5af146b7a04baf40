/*
 * A disk that forgets, as a library to preload: it writes down every change a process makes below one directory, so that lossy-disk.ts can build
 * what a power cut would have left of it. The changes are made as usual: the process itself notices nothing.
 *
 *   LOSSY_DISK_DIRECTORY  what is watched: an absolute path without links
 *   LOSSY_DISK_JOURNAL    where the changes are written down; unset: they aren't
 *   LOSSY_DISK_SYNC       "ignored": fsync and fdatasync say that all is well and do nothing
 *   LOSSY_DISK_DELAY_US   fsync and fdatasync take so many microseconds more
 *
 * The journal is a sequence of entries: struct entry, then `path_bytes` of path, then `data_bytes` of data. A change is made and written down under one
 * lock, so its order is the order in which the changes were made. A sync is written down when it has returned, with the number of
 * entries there were when it began: only those are safe.
 *
 * LevelDB writes through stdio, whose own calls of write(2) can't be preloaded: streams of watched files are written to directly. What a process
 * maps into memory and writes there is not seen; nobody here does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* A macro where the compiler optimises. */
#undef fwrite_unlocked

/* The same numbers in lossy-disk.ts. */
enum kind { OPEN, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, LINK, MAKE_DIRECTORY, REMOVE_DIRECTORY };

/* OPEN: number is 1 if it was created, 2 if it was emptied, else 0. WRITE: number is the offset. TRUNCATE: the new size. SYNC: entries that are safe.
   RENAME and LINK: the path is both, with a zero byte between them. */
struct entry {
  uint32_t kind;
  int32_t fd;
  uint64_t number;
  uint32_t path_bytes;
  uint32_t data_bytes;
};

#define MAX_FDS 65536
static unsigned char watched_fds[MAX_FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t entries;
static int journal = -1;

#define REAL(name) \
  static __typeof__(&name) real; \
  if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int is_watched_fd(int fd) { return fd >= 0 && fd < MAX_FDS && watched_fds[fd]; }

/* The absolute path, without looking at the file system: 1 if it is below the directory. */
static int is_watched_path(int directory_fd, const char *path, char absolute[PATH_MAX]) {
  const char *root = getenv("LOSSY_DISK_DIRECTORY");
  if (root == NULL || path == NULL) return 0;
  if (path[0] == '/') {
    snprintf(absolute, PATH_MAX, "%s", path);
  } else {
    char base[PATH_MAX] = "";
    if (directory_fd == AT_FDCWD) {
      if (getcwd(base, sizeof base) == NULL) return 0;
    } else {
      char link[64];
      snprintf(link, sizeof link, "/proc/self/fd/%d", directory_fd);
      ssize_t length = readlink(link, base, sizeof base - 1);
      if (length < 0) return 0;
      base[length] = 0;
    }
    if (snprintf(absolute, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
  }
  size_t length = strlen(absolute);
  while (length > 1 && absolute[length - 1] == '/') absolute[--length] = 0;
  size_t root_length = strlen(root);
  return strncmp(absolute, root, root_length) == 0 && (absolute[root_length] == 0 || absolute[root_length] == '/');
}

/* A journal with a hole would prove nothing: the process ends. */
static void give_up(const char *why) {
  dprintf(2, "lossy-disk: %s\n", why);
  abort();
}

/* With the lock held. */
static void note(struct entry entry, const char *path, const void *data) {
  const char *file = getenv("LOSSY_DISK_JOURNAL");
  if (file == NULL) return;
  if (journal < 0) {
    journal = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  }
  struct iovec parts[3] = {
    { &entry, sizeof entry }, { (void *)path, entry.path_bytes }, { (void *)data, entry.data_bytes }
  };
  ssize_t bytes = (ssize_t)(sizeof entry + entry.path_bytes + entry.data_bytes);
  if (syscall(SYS_writev, journal, parts, 3) != bytes) give_up("the journal can't be written");
  entries++;
}

static void note_path(enum kind kind, const char *path) {
  note((struct entry){ .kind = kind, .path_bytes = strlen(path) }, path, NULL);
}

/* ---- opening and closing */

static int open_watched(int directory_fd, const char *path, int flags, mode_t mode, const char *absolute) {
  pthread_mutex_lock(&lock);
  struct stat before;
  int existed = stat(absolute, &before) == 0;
  int fd = (int)syscall(SYS_openat, directory_fd, path, flags, mode);
  int error = errno;
  if (fd >= 0 && fd < MAX_FDS) {
    if (watched_fds[fd]) give_up("a file was closed in a way not seen here");
    watched_fds[fd] = 1;
    int emptied = existed && (flags & O_TRUNC) != 0 && (flags & O_ACCMODE) != O_RDONLY;
    struct entry entry = { .kind = OPEN, .fd = fd, .number = existed ? (emptied ? 2 : 0) : 1 };
    entry.path_bytes = strlen(absolute);
    note(entry, absolute, NULL);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return fd;
}

static int open_at(int directory_fd, const char *path, int flags, mode_t mode) {
  char absolute[PATH_MAX];
  if (is_watched_path(directory_fd, path, absolute)) return open_watched(directory_fd, path, flags, mode, absolute);
  return (int)syscall(SYS_openat, directory_fd, path, flags, mode);
}

#define MODE_OF(flags, last) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest; \
    va_start(rest, last); \
    mode = va_arg(rest, mode_t); \
    va_end(rest); \
  }

int open(const char *path, int flags, ...) {
  MODE_OF(flags, flags);
  return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  MODE_OF(flags, flags);
  return open_at(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int directory_fd, const char *path, int flags, ...) {
  MODE_OF(flags, flags);
  return open_at(directory_fd, path, flags, mode);
}

FILE *fopen64(const char *path, const char *how) {
  REAL(fopen64);
  char absolute[PATH_MAX];
  if (!is_watched_path(AT_FDCWD, path, absolute)) return real(path, how);
  int plus = strchr(how, '+') != NULL;
  int flags = how[0] == 'r' ? (plus ? O_RDWR : O_RDONLY) : (plus ? O_RDWR : O_WRONLY) | O_CREAT;
  if (how[0] == 'w') flags |= O_TRUNC;
  if (how[0] == 'a') flags |= O_APPEND;
  int fd = open_watched(AT_FDCWD, path, flags, 0666, absolute);
  return fd < 0 ? NULL : fdopen(fd, how);
}

/* Before it is closed: afterwards the number may be another file's. */
static void forget(int fd) {
  if (is_watched_fd(fd)) watched_fds[fd] = 0;
}

int close(int fd) {
  REAL(close);
  forget(fd);
  return real(fd);
}

int fclose(FILE *stream) {
  REAL(fclose);
  forget(fileno(stream));
  return real(stream);
}

/* ---- writing */

static ssize_t write_watched(int fd, const void *bytes, size_t count, off_t at) {
  pthread_mutex_lock(&lock);
  ssize_t written = at < 0 ? syscall(SYS_write, fd, bytes, count) : syscall(SYS_pwrite64, fd, bytes, count, at);
  int error = errno;
  if (written > 0) {
    if (at < 0) at = lseek(fd, 0, SEEK_CUR) - written;
    note((struct entry){ .kind = WRITE, .fd = fd, .number = (uint64_t)at, .data_bytes = (uint32_t)written }, "", bytes);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return written;
}

ssize_t write(int fd, const void *bytes, size_t count) {
  return is_watched_fd(fd) ? write_watched(fd, bytes, count, -1) : syscall(SYS_write, fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  return is_watched_fd(fd) ? write_watched(fd, bytes, count, at) : syscall(SYS_pwrite64, fd, bytes, count, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (!is_watched_fd(fd)) return syscall(SYS_writev, fd, parts, count);
  ssize_t total = 0;
  for (int n = 0; n < count; n++) {
    ssize_t written = write_watched(fd, parts[n].iov_base, parts[n].iov_len, -1);
    if (written < 0) return total > 0 ? total : -1;
    total += written;
    if ((size_t)written < parts[n].iov_len) break;
  }
  return total;
}

static size_t write_stream(const void *bytes, size_t size, size_t count, FILE *stream) {
  size_t total = size * count, done = 0;
  while (done < total) {
    ssize_t written = write_watched(fileno(stream), (const char *)bytes + done, total - done, -1);
    if (written < 0) return done / size;
    done += (size_t)written;
  }
  return count;
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *stream) {
  REAL(fwrite);
  return is_watched_fd(fileno(stream)) ? write_stream(bytes, size, count, stream) : real(bytes, size, count, stream);
}

size_t fwrite_unlocked(const void *bytes, size_t size, size_t count, FILE *stream) {
  REAL(fwrite_unlocked);
  return is_watched_fd(fileno(stream)) ? write_stream(bytes, size, count, stream) : real(bytes, size, count, stream);
}

int ftruncate64(int fd, off64_t size) {
  REAL(ftruncate64);
  if (!is_watched_fd(fd)) return real(fd, size);
  pthread_mutex_lock(&lock);
  int result = real(fd, size), error = errno;
  if (result == 0) note((struct entry){ .kind = TRUNCATE, .fd = fd, .number = (uint64_t)size }, "", NULL);
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}

/* Copies within the kernel would not be seen: refused, so that the caller reads and writes. */
ssize_t sendfile64(int to, int from, off64_t *offset, size_t count) {
  REAL(sendfile64);
  if (!is_watched_fd(to)) return real(to, from, offset, count);
  errno = EINVAL;
  return -1;
}

long syscall(long number, ...) {
  REAL(syscall);
  va_list rest;
  va_start(rest, number);
  long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
  long d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
  va_end(rest);
  /* libuv closes in this way: for glibc's close a thread may be cancelled. */
  if (number == SYS_close) forget((int)a);
  if (number == SYS_copy_file_range && is_watched_fd((int)c)) {
    errno = ENOSYS;
    return -1;
  }
  return real(number, a, b, c, d, e, f);
}

/* ---- syncing */

static int sync_watched(int fd, int (*real)(int)) {
  const char *delay = getenv("LOSSY_DISK_DELAY_US"), *how = getenv("LOSSY_DISK_SYNC");
  if (delay != NULL) {
    long us = atol(delay);
    nanosleep(&(struct timespec){ us / 1000000, us % 1000000 * 1000 }, NULL);
  }
  if (how != NULL && strcmp(how, "ignored") == 0) return 0;
  pthread_mutex_lock(&lock);
  uint64_t safe = entries;
  pthread_mutex_unlock(&lock);
  int result = real(fd);
  if (result != 0) return result;
  pthread_mutex_lock(&lock);
  note((struct entry){ .kind = SYNC, .fd = fd, .number = safe }, "", NULL);
  pthread_mutex_unlock(&lock);
  return 0;
}

int fsync(int fd) {
  REAL(fsync);
  return is_watched_fd(fd) ? sync_watched(fd, real) : real(fd);
}

int fdatasync(int fd) {
  REAL(fdatasync);
  return is_watched_fd(fd) ? sync_watched(fd, real) : real(fd);
}

/* ---- names */

#define PATH_CHANGE(kind, call) \
  pthread_mutex_lock(&lock); \
  int result = call, error = errno; \
  if (result == 0) note_path(kind, absolute); \
  pthread_mutex_unlock(&lock); \
  errno = error; \
  return result

int unlinkat(int directory_fd, const char *path, int flags) {
  REAL(unlinkat);
  char absolute[PATH_MAX];
  if (!is_watched_path(directory_fd, path, absolute)) return real(directory_fd, path, flags);
  PATH_CHANGE(flags & AT_REMOVEDIR ? REMOVE_DIRECTORY : UNLINK, real(directory_fd, path, flags));
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  char absolute[PATH_MAX];
  if (!is_watched_path(AT_FDCWD, path, absolute)) return real(path, mode);
  PATH_CHANGE(MAKE_DIRECTORY, real(path, mode));
}

static int note_two(enum kind kind, const char *from, const char *to, int (*real)(const char *, const char *)) {
  char absolute[2 * PATH_MAX], second[PATH_MAX];
  int is_from = is_watched_path(AT_FDCWD, from, absolute), is_to = is_watched_path(AT_FDCWD, to, second);
  if (!is_from && !is_to) return real(from, to);
  if (!is_from || !is_to) {
    errno = EXDEV;
    return -1;
  }
  size_t length = strlen(absolute), second_length = strlen(second);
  memcpy(absolute + length + 1, second, second_length);
  pthread_mutex_lock(&lock);
  int result = real(from, to), error = errno;
  if (result == 0) note((struct entry){ .kind = kind, .path_bytes = length + 1 + second_length }, absolute, NULL);
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}

int rename(const char *from, const char *to) {
  REAL(rename);
  return note_two(RENAME, from, to, real);
}

int link(const char *from, const char *to) {
  REAL(link);
  return note_two(LINK, from, to, real);
}
