/* Makes writing to one folder fail: preloaded (LD_PRELOAD) into the process under test.
 *
 * IO_FAULTS_DIR names the folder. IO_FAULTS_CONTROL names a file of four 64-bit numbers, which the
 * test writes while the process runs: the errno to answer with (0: everything works), the calls to let
 * through before the first that fails, the calls that fail then (after them everything works again),
 * and, counted here, the calls seen. Calls are those that change the folder's files or make them
 * durable. With EROFS, opening a file for writing fails too, as on a disk that may only be read.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static volatile int64_t *control;
static const char *folder;
static size_t folder_length;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("IO_FAULTS_CONTROL");
    folder = getenv("IO_FAULTS_DIR");
    if (!path || !folder) return;
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int file = real_open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *shared = mmap(NULL, 32, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return;
    folder_length = strlen(folder);
    control = shared;
}

/* The errno with which this call fails, or 0. */
static int fault(void) {
    __atomic_add_fetch(&control[3], 1, __ATOMIC_SEQ_CST);
    int wanted = (int)__atomic_load_n(&control[0], __ATOMIC_SEQ_CST);
    if (!wanted) return 0;
    if (__atomic_sub_fetch(&control[1], 1, __ATOMIC_SEQ_CST) >= 0) return 0;
    if (__atomic_sub_fetch(&control[2], 1, __ATOMIC_SEQ_CST) < 0) return 0;
    return wanted;
}

static int at_path(const char *path) {
    if (!control || !path || strncmp(path, folder, folder_length)) return 0;
    return fault();
}

static int at_file(int file) {
    char link[64], path[PATH_MAX];
    if (!control) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return at_path(path);
}

#define FAIL(check)                                                                                \
    do {                                                                                           \
        int with = check;                                                                          \
        if (with) {                                                                                \
            errno = with;                                                                          \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

#define WRAP(type, name, parameters, arguments, check)                                             \
    type name parameters {                                                                         \
        static type(*real) parameters;                                                             \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                                 \
        FAIL(check);                                                                               \
        return real arguments;                                                                     \
    }

WRAP(ssize_t, write, (int file, const void *from, size_t bytes), (file, from, bytes), at_file(file))
WRAP(ssize_t, pwrite, (int file, const void *from, size_t bytes, off_t at), (file, from, bytes, at), at_file(file))
WRAP(ssize_t, pwrite64, (int file, const void *from, size_t bytes, off64_t at), (file, from, bytes, at), at_file(file))
WRAP(ssize_t, writev, (int file, const struct iovec *from, int count), (file, from, count), at_file(file))
WRAP(int, fsync, (int file), (file), at_file(file))
WRAP(int, fdatasync, (int file), (file), at_file(file))
WRAP(int, ftruncate, (int file, off_t bytes), (file, bytes), at_file(file))
WRAP(int, ftruncate64, (int file, off64_t bytes), (file, bytes), at_file(file))
WRAP(int, fallocate, (int file, int mode, off_t at, off_t bytes), (file, mode, at, bytes), at_file(file))
WRAP(int, rename, (const char *from, const char *to), (from, to), at_path(to))
WRAP(int, link, (const char *from, const char *to), (from, to), at_path(to))
WRAP(int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags), at_path(to))
WRAP(int, unlink, (const char *path), (path), at_path(path))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), at_path(path))

#define OPENS(name)                                                                                \
    int name(const char *path, int flags, ...) {                                                   \
        static int (*real)(const char *, int, ...);                                                \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                                 \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0;                  \
        va_end(more);                                                                              \
        if (control && control[0] == EROFS && (flags & (O_WRONLY | O_RDWR))) FAIL(at_path(path));  \
        return real(path, flags, mode);                                                            \
    }

OPENS(open)
OPENS(open64)
