/* What WASI does not say of a file: its permissions.
 *
 * wasi-libc leaves the permission bits of `st_mode` zero, and an archive made of such files cannot be read where it is
 * unpacked. These two take the place of wasi-libc's own and give every file the bits of an ordinary one.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <wasi/api.h>

static struct timespec
moment(__wasi_timestamp_t nanoseconds)
{
    return (struct timespec){(time_t)(nanoseconds / 1000000000), (long)(nanoseconds % 1000000000)};
}

static mode_t
mode_of(__wasi_filetype_t type)
{
    switch (type) {
        case __WASI_FILETYPE_DIRECTORY: return S_IFDIR | 0755;
        case __WASI_FILETYPE_REGULAR_FILE: return S_IFREG | 0644;
        case __WASI_FILETYPE_SYMBOLIC_LINK: return S_IFLNK | 0777;
        case __WASI_FILETYPE_CHARACTER_DEVICE: return S_IFCHR | 0620;
        case __WASI_FILETYPE_BLOCK_DEVICE: return S_IFBLK | 0660;
        case __WASI_FILETYPE_SOCKET_DGRAM:
        case __WASI_FILETYPE_SOCKET_STREAM: return S_IFSOCK | 0777;
        default: return 0;
    }
}

static int
say(__wasi_errno_t error, const __wasi_filestat_t *in, struct stat *out)
{
    if (error != 0) {
        errno = error;
        return -1;
    }
    *out = (struct stat){
        .st_dev = in->dev,
        .st_ino = in->ino,
        .st_nlink = in->nlink,
        .st_mode = mode_of(in->filetype),
        .st_size = (off_t)in->size,
        .st_atim = moment(in->atim),
        .st_mtim = moment(in->mtim),
        .st_ctim = moment(in->ctim),
    };
    return 0;
}

int
fstat(int descriptor, struct stat *out)
{
    __wasi_filestat_t found;
    return say(__wasi_fd_filestat_get(descriptor, &found), &found, out);
}

int
__wasilibc_nocwd_fstatat(int folder, const char *restrict path, struct stat *restrict out, int flags)
{
    __wasi_filestat_t found;
    __wasi_lookupflags_t follow = flags & AT_SYMLINK_NOFOLLOW ? 0 : __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW;
    return say(__wasi_path_filestat_get(folder, follow, path, &found), &found, out);
}
