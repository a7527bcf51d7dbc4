// For callgrind, which does not know the system calls by which a proxy confines itself (seccomp, Landlock): answers them with
// success. Preloaded by benches/instructions alone.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/syscall.h>

long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_seccomp || number == 444 || number == 445 || number == 446) return number == 444 ? 4 : 0;
    va_list words;
    va_start(words, number);
    long a = va_arg(words, long), b = va_arg(words, long), c = va_arg(words, long), d = va_arg(words, long), e = va_arg(words, long),
         f = va_arg(words, long);
    va_end(words);
    return real(number, a, b, c, d, e, f);
}
