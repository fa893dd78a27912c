/* The operating system as SQLite sees it inside an image: files of wasi-libc, locks within this one process, fresh entropy,
 * the host's clock.
 *
 * SQLite is built with SQLITE_OS_OTHER, which leaves this file to supply the one virtual file system it needs. Nobody else
 * can have a database of an evaluation open, but one snippet may open it twice: so locks are counted here, by path.
 * Source: https://www.sqlite.org/c3ref/io_methods.html, https://www.sqlite.org/lockingv3.html
 */
#include "sqlite3.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Julian day of the Unix epoch in milliseconds, SQLite's own unit. */
#define UNIX_EPOCH_MS 210866760000000LL

enum { PATH_BYTES = 1024, SECTOR_BYTES = 4096 };

/* A database that is open, by any number of files. */
typedef struct database {
    struct database *next;
    int users, readers;
    const void *writer;   /* the file with a lock above SHARED */
    bool closed_to_readers;
    char path[];
} database;

typedef struct {
    sqlite3_file base;
    int descriptor, level;
    database *locks;      /* NULL for what is no database: journals, temporary files */
    char *unlink_path;    /* removed when the file is closed */
} file;

static database *databases;

/* ---- locks ---- */

static database *
share_locks(const char *path)
{
    for (database *each = databases; each != NULL; each = each->next) {
        if (strcmp(each->path, path) == 0) {
            each->users++;
            return each;
        }
    }
    size_t length = strlen(path) + 1;
    database *made = sqlite3_malloc((int)(sizeof *made + length));
    if (made != NULL) {
        *made = (database){.next = databases, .users = 1};
        memcpy(made->path, path, length);
        databases = made;
    }
    return made;
}

static void
forget_locks(database *locks)
{
    if (--locks->users > 0) {
        return;
    }
    database **at = &databases;
    while (*at != locks) {
        at = &(*at)->next;
    }
    *at = locks->next;
    sqlite3_free(locks);
}

static int
lock(sqlite3_file *base, int level)
{
    file *self = (file *)base;
    database *locks = self->locks;
    if (locks == NULL || self->level >= level) {
        return SQLITE_OK;
    }
    if (level == SQLITE_LOCK_SHARED) {
        if (locks->closed_to_readers) {
            return SQLITE_BUSY;
        }
        locks->readers++;
        self->level = level;
        return SQLITE_OK;
    }
    if (locks->writer != NULL && locks->writer != self) {
        return SQLITE_BUSY;
    }
    locks->writer = self;
    if (level == SQLITE_LOCK_EXCLUSIVE) {
        locks->closed_to_readers = true;
        if (locks->readers > 1) {
            self->level = SQLITE_LOCK_PENDING;
            return SQLITE_BUSY;
        }
    }
    self->level = level;
    return SQLITE_OK;
}

static int
unlock(sqlite3_file *base, int level)
{
    file *self = (file *)base;
    database *locks = self->locks;
    if (locks == NULL || self->level <= level) {
        return SQLITE_OK;
    }
    if (locks->writer == self) {
        locks->writer = NULL;
        locks->closed_to_readers = false;
    }
    if (level == SQLITE_LOCK_NONE && self->level >= SQLITE_LOCK_SHARED) {
        locks->readers--;
    }
    self->level = level;
    return SQLITE_OK;
}

static int
check_reserved_lock(sqlite3_file *base, int *result)
{
    file *self = (file *)base;
    *result = self->locks != NULL && self->locks->writer != NULL;
    return SQLITE_OK;
}

/* ---- one file ---- */

static int
close_file(sqlite3_file *base)
{
    file *self = (file *)base;
    unlock(base, SQLITE_LOCK_NONE);
    if (self->locks != NULL) {
        forget_locks(self->locks);
    }
    close(self->descriptor);
    if (self->unlink_path != NULL) {
        unlink(self->unlink_path);
        sqlite3_free(self->unlink_path);
    }
    return SQLITE_OK;
}

static int
read_file(sqlite3_file *base, void *out, int length, sqlite3_int64 offset)
{
    file *self = (file *)base;
    char *to = out;
    while (length > 0) {
        ssize_t got = pread(self->descriptor, to, (size_t)length, offset);
        if (got < 0) {
            return SQLITE_IOERR_READ;
        }
        if (got == 0) {
            memset(to, 0, (size_t)length);
            return SQLITE_IOERR_SHORT_READ;
        }
        to += got, offset += got, length -= (int)got;
    }
    return SQLITE_OK;
}

static int
write_failure(int otherwise)
{
    return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? SQLITE_FULL : otherwise;
}

static int
write_file(sqlite3_file *base, const void *bytes, int length, sqlite3_int64 offset)
{
    file *self = (file *)base;
    const char *from = bytes;
    while (length > 0) {
        ssize_t put = pwrite(self->descriptor, from, (size_t)length, offset);
        if (put <= 0) {
            return put == 0 ? SQLITE_FULL : write_failure(SQLITE_IOERR_WRITE);
        }
        from += put, offset += put, length -= (int)put;
    }
    return SQLITE_OK;
}

static int
truncate_file(sqlite3_file *base, sqlite3_int64 size)
{
    return ftruncate(((file *)base)->descriptor, size) == 0 ? SQLITE_OK : write_failure(SQLITE_IOERR_TRUNCATE);
}

static int
sync_file(sqlite3_file *base, int flags)
{
    (void)flags;
    return fsync(((file *)base)->descriptor) == 0 ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}

static int
file_size(sqlite3_file *base, sqlite3_int64 *out)
{
    struct stat found;
    if (fstat(((file *)base)->descriptor, &found) != 0) {
        return SQLITE_IOERR_FSTAT;
    }
    *out = found.st_size;
    return SQLITE_OK;
}

static int
file_control(sqlite3_file *base, int operation, void *argument)
{
    if (operation == SQLITE_FCNTL_LOCKSTATE) {
        *(int *)argument = ((file *)base)->level;
        return SQLITE_OK;
    }
    return SQLITE_NOTFOUND;
}

static int
sector_size(sqlite3_file *base)
{
    (void)base;
    return SECTOR_BYTES;
}

static int
device_characteristics(sqlite3_file *base)
{
    (void)base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = close_file,
    .xRead = read_file,
    .xWrite = write_file,
    .xTruncate = truncate_file,
    .xSync = sync_file,
    .xFileSize = file_size,
    .xLock = lock,
    .xUnlock = unlock,
    .xCheckReservedLock = check_reserved_lock,
    .xFileControl = file_control,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = device_characteristics,
};

/* ---- the file system ---- */

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

static void
name_temporary(char *out, size_t room)
{
    unsigned long long number = 0;
    randomness(NULL, sizeof number, (char *)&number);
    snprintf(out, room, "/tmp/sqlite-%016llx", number);
}

/* Opens for writing where it can be had, else for reading alone, and says in `flags` which it was. */
static int
open_descriptor(const char *path, int *flags)
{
    int how = *flags & SQLITE_OPEN_READWRITE ? O_RDWR : O_RDONLY;
    int make = *flags & SQLITE_OPEN_CREATE ? O_CREAT : 0;
    if (make && *flags & SQLITE_OPEN_EXCLUSIVE) {
        make |= O_EXCL;
    }
    int descriptor = open(path, how | make | O_CLOEXEC, 0644);
    if (descriptor < 0 && how == O_RDWR && (errno == EROFS || errno == EACCES || errno == EPERM)) {
        descriptor = open(path, O_RDONLY | O_CLOEXEC);
        *flags = (*flags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) | SQLITE_OPEN_READONLY;
    }
    return descriptor;
}

static int
open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *out_flags)
{
    (void)vfs;
    file *self = (file *)base;
    memset(self, 0, sizeof *self);
    char temporary[64];
    if (name == NULL) {
        name_temporary(temporary, sizeof temporary);
        name = temporary;
        flags |= SQLITE_OPEN_DELETEONCLOSE;
    }
    if (flags & SQLITE_OPEN_DELETEONCLOSE && (self->unlink_path = sqlite3_mprintf("%s", name)) == NULL) {
        return SQLITE_NOMEM;
    }
    if (flags & SQLITE_OPEN_MAIN_DB && (self->locks = share_locks(name)) == NULL) {
        return SQLITE_NOMEM;
    }
    self->descriptor = open_descriptor(name, &flags);
    if (self->descriptor < 0) {
        int status = write_failure(SQLITE_CANTOPEN);
        sqlite3_free(self->unlink_path);
        if (self->locks != NULL) {
            forget_locks(self->locks);
        }
        return status;
    }
    if (out_flags != NULL) {
        *out_flags = flags;
    }
    self->base.pMethods = &methods;
    return SQLITE_OK;
}

static int
delete_file(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs, (void)sync;
    if (unlink(name) == 0) {
        return SQLITE_OK;
    }
    return errno == ENOENT ? SQLITE_IOERR_DELETE_NOENT : SQLITE_IOERR_DELETE;
}

/* An empty journal is none, as in SQLite's own file systems. */
static int
check_access(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
    (void)vfs;
    struct stat found;
    bool there = stat(name, &found) == 0;
    if (flags == SQLITE_ACCESS_EXISTS) {
        *result = there && (!S_ISREG(found.st_mode) || found.st_size > 0);
    } else {
        *result = there && access(name, flags == SQLITE_ACCESS_READWRITE ? R_OK | W_OK : R_OK) == 0;
    }
    return SQLITE_OK;
}

/* Appends one part of a path to the `length` bytes of `out`; -1 when there is no room. */
static int
append_part(char *out, int length, int room, const char *part, int part_length)
{
    if (part_length == 0 || (part_length == 1 && part[0] == '.')) {
        return length;
    }
    if (part_length == 2 && part[0] == '.' && part[1] == '.') {
        while (length > 0 && out[--length] != '/') {
        }
        return length;
    }
    if (length + 1 + part_length >= room) {
        return -1;
    }
    out[length] = '/';
    memcpy(out + length + 1, part, (size_t)part_length);
    return length + 1 + part_length;
}

static int
append_parts(char *out, int length, int room, const char *path)
{
    while (length >= 0 && *path) {
        int part_length = (int)strcspn(path, "/");
        length = append_part(out, length, room, path, part_length);
        path += part_length;
        path += *path == '/';
    }
    return length;
}

/* Absolute, without `.` and `..`: the same file has one name, by which its locks are found. */
static int
full_path(sqlite3_vfs *vfs, const char *name, int room, char *out)
{
    (void)vfs;
    char folder[PATH_BYTES];
    int length = 0;
    if (name[0] != '/') {
        if (getcwd(folder, sizeof folder) == NULL) {
            return SQLITE_CANTOPEN;
        }
        length = append_parts(out, 0, room, folder);
    }
    length = append_parts(out, length, room, name);
    if (length < 0) {
        return SQLITE_CANTOPEN;
    }
    out[length] = '\0';
    return SQLITE_OK;
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
    return errno;
}

int
sqlite3_os_init(void)
{
    static sqlite3_vfs vfs = {
        .iVersion = 2,
        .szOsFile = sizeof(file),
        .mxPathname = PATH_BYTES,
        .zName = "wasmeval",
        .xOpen = open_file,
        .xDelete = delete_file,
        .xAccess = check_access,
        .xFullPathname = full_path,
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
