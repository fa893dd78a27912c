/* The operating system as SQLite sees it inside an image: no files, fresh entropy, the host's clock.
 *
 * SQLite is built with SQLITE_OS_OTHER, which leaves this file to supply the one virtual file system it needs. Databases
 * in memory never open a file, and temporary ones stay in memory (SQLITE_TEMP_STORE=3), so opening is all that fails:
 * `sqlite3.connect("a.db")` is "unable to open database file".
 */
#include "sqlite3.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

/* Julian day of the Unix epoch in milliseconds, SQLite's own unit. */
#define UNIX_EPOCH_MS 210866760000000LL

static int
open_nothing(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)vfs, (void)name, (void)flags, (void)out_flags;
    file->pMethods = NULL;
    return SQLITE_CANTOPEN;
}

static int
delete_nothing(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs, (void)name, (void)sync;
    return SQLITE_IOERR_DELETE_NOENT;
}

static int
nothing_exists(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
    (void)vfs, (void)name, (void)flags;
    *result = 0;
    return SQLITE_OK;
}

static int
same_name(sqlite3_vfs *vfs, const char *name, int room, char *out)
{
    (void)vfs;
    size_t length = strlen(name);
    if (length >= (size_t)room) {
        return SQLITE_CANTOPEN;
    }
    memcpy(out, name, length + 1);
    return SQLITE_OK;
}

static int
randomness(sqlite3_vfs *vfs, int length, char *out)
{
    (void)vfs;
    for (int done = 0; done < length;) {
        int part = length - done < 256 ? length - done : 256;  /* getentropy's own limit */
        if (getentropy(out + done, (size_t)part) != 0) {
            return done;
        }
        done += part;
    }
    return length;
}

static int
sleep_microseconds(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    struct timespec pause = {microseconds / 1000000, (microseconds % 1000000) * 1000L};
    nanosleep(&pause, NULL);
    return microseconds;
}

static int
current_time_ms(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    (void)vfs;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) {
        return SQLITE_ERROR;
    }
    *out = UNIX_EPOCH_MS + (sqlite3_int64)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    return SQLITE_OK;
}

static int
current_time(sqlite3_vfs *vfs, double *out)
{
    sqlite3_int64 milliseconds = 0;
    int status = current_time_ms(vfs, &milliseconds);
    *out = (double)milliseconds / 86400000.0;
    return status;
}

static int
last_error(sqlite3_vfs *vfs, int room, char *out)
{
    (void)vfs, (void)room, (void)out;
    return 0;
}

int
sqlite3_os_init(void)
{
    static sqlite3_vfs vfs = {
        .iVersion = 2,
        .szOsFile = sizeof(sqlite3_file),
        .mxPathname = 512,
        .zName = "wasmeval",
        .xOpen = open_nothing,
        .xDelete = delete_nothing,
        .xAccess = nothing_exists,
        .xFullPathname = same_name,
        .xRandomness = randomness,
        .xSleep = sleep_microseconds,
        .xCurrentTime = current_time,
        .xGetLastError = last_error,
        .xCurrentTimeInt64 = current_time_ms,
    };
    return sqlite3_vfs_register(&vfs, 1);
}

int
sqlite3_os_end(void)
{
    return SQLITE_OK;
}
