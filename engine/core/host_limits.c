/* host_limits.c: reads /proc and the cgroup files, versions 1 and 2. */

#include "host_limits.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 1024, TEXT_BYTES = 8192 };

/* The start of a small file as text; false where it cannot be read. */
static int read_text(const char *path, char *text, size_t size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    size_t n = 0;
    while (n < size - 1) {
        ssize_t got = read(file, text + n, size - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    close(file);
    text[n] = 0;
    return n > 0;
}

/* The folder of this process's group for a controller: mount and path. False where there is none. */
static int group_folder(const char *controller, char *folder, size_t *mount)
{
    char text[TEXT_BYTES], name[64];
    if (!read_text("/proc/self/cgroup", text, sizeof text)) return 0;
    snprintf(name, sizeof name, ",%s,", controller);
    char *rest = text;
    int found = 0;
    for (char *line; !found && (line = strsep(&rest, "\n"));) {
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        controllers++;
        char padded[256];
        snprintf(padded, sizeof padded, ",%s,", controllers);
        const char *root = NULL;
        char v1[128];
        if (controller[0] == 0 && controllers[0] == 0) root = "/sys/fs/cgroup";
        else if (controller[0] && strstr(padded, name)) {
            snprintf(v1, sizeof v1, "/sys/fs/cgroup/%s", controllers);
            root = v1;
        }
        if (!root) continue;
        *mount = strlen(root);
        int n = snprintf(folder, PATH_BYTES, "%s%s", root, path);
        if (n <= 0 || n >= PATH_BYTES) return 0;
        while (n > (int)*mount && folder[n - 1] == '/') folder[--n] = 0;
        found = 1;
    }
    return found;
}

static int group_text(const char *folder, const char *file, char *text, size_t size)
{
    char path[PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return read_text(path, text, size);
}

/* Goes to the folder above; false at the mount. */
static int parent(char *folder, size_t mount)
{
    char *slash = strrchr(folder, '/');
    if (strlen(folder) <= mount || !slash || (size_t)(slash - folder) < mount) return 0;
    *slash = 0;
    return 1;
}

double pg_host_cpu_quota(void)
{
    char folder[PATH_BYTES], text[TEXT_BYTES], period[TEXT_BYTES];
    size_t mount;
    double least = 0;
    if (group_folder("", folder, &mount)) {
        do {
            double quota, length;
            if (group_text(folder, "cpu.max", text, sizeof text) &&
                sscanf(text, "%lf %lf", &quota, &length) == 2 &&
                quota > 0 && length > 0 && (least == 0 || quota / length < least))
                least = quota / length;
        } while (parent(folder, mount));
    }
    if (group_folder("cpu", folder, &mount)) {
        do {
            if (!group_text(folder, "cpu.cfs_quota_us", text, sizeof text)) continue;
            if (!group_text(folder, "cpu.cfs_period_us", period, sizeof period)) continue;
            double quota = strtod(text, NULL), length = strtod(period, NULL);
            if (quota > 0 && length > 0 && (least == 0 || quota / length < least)) least = quota / length;
        } while (parent(folder, mount));
    }
    return least;
}

/* A "name value" line of a text, 0 where it is absent. */
static uint64_t field(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = text; p; p = strchr(p, '\n')) {
        if (*p == '\n') p++;
        if (strncmp(p, name, n) == 0 && (p[n] == ' ' || p[n] == ':')) return strtoull(p + n + 1, NULL, 10);
    }
    return 0;
}

static void memory_groups(const char *controller, const char *limit_file, const char *used_file,
                          const char *cache_field, uint64_t *least)
{
    char folder[PATH_BYTES], text[TEXT_BYTES];
    size_t mount;
    if (!group_folder(controller, folder, &mount)) return;
    do {
        /* "max" reads as 0 */
        if (!group_text(folder, limit_file, text, sizeof text)) continue;
        uint64_t limit = strtoull(text, NULL, 10);
        if (limit == 0 || limit > UINT64_C(1) << 60) continue;
        if (!group_text(folder, used_file, text, sizeof text)) continue;
        uint64_t used = strtoull(text, NULL, 10);
        uint64_t cache = group_text(folder, "memory.stat", text, sizeof text) ? field(text, cache_field) : 0;
        used -= cache < used ? cache : used;
        uint64_t left = limit > used ? limit - used : 0;
        if (left < *least) *least = left;
    } while (parent(folder, mount));
}

size_t pg_host_available(void)
{
    uint64_t least = SIZE_MAX;
    char text[TEXT_BYTES];
    if (read_text("/proc/meminfo", text, sizeof text)) {
        uint64_t kib = field(text, "MemAvailable");
        if (kib > 0) least = kib * 1024;
    }
    memory_groups("", "memory.max", "memory.current", "inactive_file", &least);
    memory_groups("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", &least);
    return (size_t)least;
}
