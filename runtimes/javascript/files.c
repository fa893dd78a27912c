/* Files, straight on WASI preview 1: paths are relative to the one preopen, descriptor 3, which is `/`.
 *
 * wasi-libc's own files are left out: it would remember the preopens in the snapshot. Each native here does one whole
 * operation and leaves no descriptor open. What fails gives the errno of WASI as a number, and the library makes node's error of it.
 */
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

#include "reactor.h"

enum { ROOT = 3, CHUNK_BYTES = 256 * 1024, LISTING_BYTES = 32 * 1024 };

#define READING (__WASI_RIGHTS_FD_READ | __WASI_RIGHTS_FD_SEEK | __WASI_RIGHTS_FD_TELL | __WASI_RIGHTS_FD_FILESTAT_GET)
#define WRITING (__WASI_RIGHTS_FD_WRITE | __WASI_RIGHTS_FD_SEEK | __WASI_RIGHTS_FD_TELL | __WASI_RIGHTS_FD_FILESTAT_GET)

/* A path as WASI takes it. NULL when it has thrown; to be freed with JS_FreeCString. */
static const char *path_argument(JSContext *c, JSValueConst v)
{
    size_t n;
    char *s = (char *)JS_ToCStringLen(c, &n, v);

    if (s)
        replace_lone_surrogates((uint8_t *)s, n);
    return s;
}

static JSValue failed(__wasi_errno_t error)
{
    return JS_NewInt32(NULL, error);
}

static void close_descriptor(__wasi_fd_t fd)
{
    if (fd > 2)
        (void)!__wasi_fd_close(fd);
}

/* Opens the path, or takes a number for the descriptor that it is. False when it has thrown. */
static bool open_argument(JSContext *c, JSValueConst v, __wasi_oflags_t oflags, __wasi_rights_t rights,
                          __wasi_fdflags_t fdflags, __wasi_fd_t *fd, __wasi_errno_t *error)
{
    const char *path;

    *error = 0;
    if (JS_IsNumber(v))
        return !JS_ToUint32(c, fd, v);
    path = path_argument(c, v);
    if (!path)
        return false;
    *error = __wasi_path_open(ROOT, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, path, oflags, rights, 0, fdflags, fd);
    JS_FreeCString(c, path);
    return true;
}

static __wasi_errno_t read_some(__wasi_fd_t fd, uint8_t *into, size_t most, size_t *count)
{
    __wasi_iovec_t vector = { into, most < (1 << 20) ? most : (1 << 20) };
    __wasi_size_t n = 0;
    __wasi_errno_t error = __wasi_fd_read(fd, &vector, 1, &n);

    *count = error || n > most ? 0 : n;
    return error;
}

static __wasi_errno_t write_all(__wasi_fd_t fd, const uint8_t *bytes, size_t length)
{
    while (length) {
        __wasi_ciovec_t vector = { bytes, length < CHUNK_BYTES ? length : CHUNK_BYTES };
        __wasi_size_t n = 0;
        __wasi_errno_t error = __wasi_fd_write(fd, &vector, 1, &n);
        if (error)
            return error;
        if (!n || n > length)
            return __WASI_ERRNO_IO;
        bytes += n;
        length -= n;
    }
    return 0;
}

/* Reads a descriptor to its end into a block of js_malloc that grows from `capacity`. */
static JSValue read_to_end(JSContext *c, __wasi_fd_t fd, size_t capacity)
{
    uint8_t *block = js_malloc(c, capacity), *larger;
    size_t length = 0, n;

    if (!block)
        return JS_EXCEPTION;
    for (;;) {
        __wasi_errno_t error = read_some(fd, block + length, capacity - length, &n);
        if (error) {
            js_free(c, block);
            return failed(error);
        }
        if (!n)
            return buffer_of(c, block, length);
        length += n;
        if (length < capacity)
            continue;
        capacity += capacity / 2 + 4096;
        larger = js_realloc(c, block, capacity);
        if (!larger) {
            js_free(c, block);
            return JS_EXCEPTION;
        }
        block = larger;
    }
}

/* readFile(path or descriptor): an ArrayBuffer */
static JSValue native_read_file(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    __wasi_filestat_t stat = { 0 };
    __wasi_errno_t error;
    __wasi_fd_t fd;
    JSValue v;

    if (!open_argument(c, argv[0], 0, READING, 0, &fd, &error))
        return JS_EXCEPTION;
    if (error)
        return failed(error);
    if (fd > 2)
        error = __wasi_fd_filestat_get(fd, &stat);
    if (!error && stat.filetype == __WASI_FILETYPE_DIRECTORY)
        error = __WASI_ERRNO_ISDIR;
    if (error)
        v = failed(error);
    else if (stat.size >= INT32_MAX)
        v = JS_ThrowOutOfMemory(c);
    else /* one byte more, so that the end is seen without growing */
        v = read_to_end(c, fd, stat.size ? stat.size + 1 : 4096);
    close_descriptor(fd);
    return v;
}

/* writeFile(path or descriptor, oflags, fdflags, buffer, offset, length): the errno of opening, or that of writing below zero */
static JSValue native_write_file(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    uint32_t oflags, fdflags;
    __wasi_errno_t error;
    __wasi_fd_t fd;
    uint8_t *bytes;
    size_t length;

    if (JS_ToUint32(c, &oflags, argv[1]) || JS_ToUint32(c, &fdflags, argv[2]) ||
        !bytes_argument(c, argv + 3, &bytes, &length) ||
        !open_argument(c, argv[0], oflags, WRITING, fdflags, &fd, &error))
        return JS_EXCEPTION;
    if (error)
        return failed(error);
    error = write_all(fd, bytes, length);
    close_descriptor(fd);
    return JS_NewInt32(c, -(int32_t)error);
}

static __wasi_errno_t copy_all(__wasi_fd_t from, __wasi_fd_t to, uint8_t *chunk)
{
    __wasi_errno_t error;
    size_t n;

    do {
        error = read_some(from, chunk, CHUNK_BYTES, &n);
        if (!error)
            error = write_all(to, chunk, n);
    } while (!error && n);
    return error;
}

/* copyFile(from, to, oflags) */
static JSValue native_copy_file(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    __wasi_errno_t error;
    __wasi_fd_t from, to;
    uint32_t oflags;
    uint8_t *chunk;

    if (JS_ToUint32(c, &oflags, argv[2]) || !open_argument(c, argv[0], 0, READING, 0, &from, &error))
        return JS_EXCEPTION;
    if (error)
        return failed(error);
    chunk = js_malloc(c, CHUNK_BYTES);
    if (!chunk || !open_argument(c, argv[1], oflags, WRITING, 0, &to, &error)) {
        close_descriptor(from);
        js_free(c, chunk);
        return JS_EXCEPTION;
    }
    if (!error) {
        error = copy_all(from, to, chunk);
        close_descriptor(to);
    }
    close_descriptor(from);
    js_free(c, chunk);
    return failed(error);
}

static bool is_dot(const uint8_t *name, size_t n)
{
    return n <= 2 && name[0] == '.' && name[n - 1] == '.';
}

/* Appends the names and types of the entries in `listing` to the array. False when it has thrown. */
static bool add_entries(JSContext *c, JSValueConst array, uint32_t *count, const uint8_t *listing, size_t used,
                        __wasi_dircookie_t *cookie)
{
    __wasi_dirent_t entry;

    while (used >= sizeof(entry)) {
        const uint8_t *name = listing + sizeof(entry);
        memcpy(&entry, listing, sizeof(entry));
        if (entry.d_namlen > used - sizeof(entry))
            break;
        if (entry.d_namlen && !is_dot(name, entry.d_namlen)) {
            JSValue text = JS_NewStringLen(c, (const char *)name, entry.d_namlen);
            if (JS_IsException(text) || JS_DefinePropertyValueUint32(c, array, (*count)++, text, JS_PROP_C_W_E) < 0 ||
                JS_DefinePropertyValueUint32(c, array, (*count)++, JS_NewInt32(c, entry.d_type), JS_PROP_C_W_E) < 0)
                return false;
        }
        *cookie = entry.d_next;
        listing += sizeof(entry) + entry.d_namlen;
        used -= sizeof(entry) + entry.d_namlen;
    }
    return true;
}

static JSValue list_all(JSContext *c, __wasi_fd_t fd, uint8_t *listing)
{
    JSValue array = JS_NewArray(c);
    __wasi_dircookie_t cookie = 0, before;
    __wasi_size_t used = 0;
    uint32_t count = 0;

    if (JS_IsException(array))
        return array;
    do {
        __wasi_errno_t error = __wasi_fd_readdir(fd, listing, LISTING_BYTES, cookie, &used);
        if (error) {
            JS_FreeValue(c, array);
            return failed(error);
        }
        before = cookie;
        if (used > LISTING_BYTES || !add_entries(c, array, &count, listing, used, &cookie)) {
            JS_FreeValue(c, array);
            return JS_EXCEPTION;
        }
    } while (used == LISTING_BYTES && cookie != before);
    return array;
}

/* readdir(path): [name, type, name, type, ...] */
static JSValue native_readdir(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    __wasi_errno_t error;
    __wasi_fd_t fd;
    uint8_t *listing;
    JSValue v;

    if (!open_argument(c, argv[0], __WASI_OFLAGS_DIRECTORY, __WASI_RIGHTS_FD_READDIR, 0, &fd, &error))
        return JS_EXCEPTION;
    if (error)
        return failed(error);
    listing = js_malloc(c, LISTING_BYTES);
    v = listing ? list_all(c, fd, listing) : JS_EXCEPTION;
    js_free(c, listing);
    close_descriptor(fd);
    return v;
}

/* stat(path, follow): [device, inode, type, links, bytes, accessed, modified, changed], times in milliseconds */
static JSValue native_stat(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    const char *path = path_argument(c, argv[0]);
    __wasi_lookupflags_t flags = JS_ToBool(c, argv[1]) ? __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW : 0;
    __wasi_filestat_t s = { 0 };
    __wasi_errno_t error;

    if (!path)
        return JS_EXCEPTION;
    error = __wasi_path_filestat_get(ROOT, flags, path, &s);
    JS_FreeCString(c, path);
    if (error)
        return failed(error);
    {
        double fields[] = { s.dev, s.ino, s.filetype, s.nlink, s.size, s.atim / 1e6, s.mtim / 1e6, s.ctim / 1e6 };
        enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };
        JSValue values[FIELDS];
        int i;
        for (i = 0; i < FIELDS; i++)
            values[i] = JS_NewNumber(c, fields[i]);
        return JS_NewArrayFrom(c, FIELDS, values);
    }
}

enum { MAKE_FOLDER, REMOVE_FOLDER, REMOVE_FILE };

static JSValue native_on_path(JSContext *c, JSValueConst self, int argc, JSValueConst *argv, int operation)
{
    const char *path = path_argument(c, argv[0]);
    __wasi_errno_t error;

    if (!path)
        return JS_EXCEPTION;
    error = operation == MAKE_FOLDER     ? __wasi_path_create_directory(ROOT, path)
            : operation == REMOVE_FOLDER ? __wasi_path_remove_directory(ROOT, path)
                                         : __wasi_path_unlink_file(ROOT, path);
    JS_FreeCString(c, path);
    return failed(error);
}

static JSValue native_rename(JSContext *c, JSValueConst self, int argc, JSValueConst *argv)
{
    const char *from = path_argument(c, argv[0]), *to;
    __wasi_errno_t error = 0;

    if (!from)
        return JS_EXCEPTION;
    to = path_argument(c, argv[1]);
    if (to)
        error = __wasi_path_rename(ROOT, from, ROOT, to);
    JS_FreeCString(c, from);
    if (!to)
        return JS_EXCEPTION;
    JS_FreeCString(c, to);
    return failed(error);
}

static const JSCFunctionListEntry natives[] = {
    JS_CFUNC_DEF("readFile", 1, native_read_file),
    JS_CFUNC_DEF("writeFile", 6, native_write_file),
    JS_CFUNC_DEF("copyFile", 3, native_copy_file),
    JS_CFUNC_DEF("readdir", 1, native_readdir),
    JS_CFUNC_DEF("stat", 2, native_stat),
    JS_CFUNC_DEF("rename", 2, native_rename),
    JS_CFUNC_MAGIC_DEF("mkdir", 1, native_on_path, MAKE_FOLDER),
    JS_CFUNC_MAGIC_DEF("rmdir", 1, native_on_path, REMOVE_FOLDER),
    JS_CFUNC_MAGIC_DEF("unlink", 1, native_on_path, REMOVE_FILE),
};

void add_file_natives(JSContext *c, JSValueConst object)
{
    JS_SetPropertyFunctionList(c, object, natives, sizeof(natives) / sizeof(natives[0]));
}
