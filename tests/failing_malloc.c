/* For LD_PRELOAD: allocations fail, from the n-th after `arm` on. glibc only. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static atomic_long number, first, last;
static atomic_size_t least = SIZE_MAX;
static atomic_uintptr_t from, to;

/* Of the allocations of at least so many bytes that code between two addresses asks for, number `n` fails, and `count` in
   all. They count from 0. */
void arm(long n, long count, size_t bytes, uintptr_t start, uintptr_t end) {
    number = 0;
    first = n;
    last = n + count;
    from = start;
    to = end;
    least = bytes;
}

/* Allocations of that kind since `arm`. */
long disarm(void) {
    least = SIZE_MAX;
    return number;
}

static int fails(size_t bytes, void *caller) {
    if (bytes < least || (uintptr_t)caller < from || (uintptr_t)caller >= to)
        return 0;
    long n = number++;
    if (n < first || n >= last)
        return 0;
    errno = ENOMEM;
    return 1;
}

#define FAILS(bytes) fails(bytes, __builtin_return_address(0))

void *malloc(size_t bytes) { return FAILS(bytes) ? NULL : __libc_malloc(bytes); }
void *calloc(size_t n, size_t bytes) { return FAILS(n * bytes) ? NULL : __libc_calloc(n, bytes); }
void *realloc(void *at, size_t bytes) { return FAILS(bytes) ? NULL : __libc_realloc(at, bytes); }
void *memalign(size_t align, size_t bytes) { return FAILS(bytes) ? NULL : __libc_memalign(align, bytes); }
void *aligned_alloc(size_t align, size_t bytes) { return FAILS(bytes) ? NULL : __libc_memalign(align, bytes); }

int posix_memalign(void **at, size_t align, size_t bytes) {
    void *memory = FAILS(bytes) ? NULL : __libc_memalign(align, bytes);
    if (memory == NULL)
        return ENOMEM;
    *at = memory;
    return 0;
}
