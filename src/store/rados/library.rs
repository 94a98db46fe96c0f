//! The C library librados, opened when the first RADOS store is: a table of typed function pointers.
//!
//! Building archvhost needs no Ceph and running it without a RADOS store needs none either
//! (docs/decisions/0006-rados-library.md). Only functions that Ceph 16.2 has are named here. The library stays loaded for
//! the rest of the process: it has threads of its own, whose code must not go away.
//!
//! The types are those of `rados/librados.h`; what a call requires is said where it is made.

#![allow(unsafe_code, reason = "typed pointers into a C library; the block below says why the types are right")]

use crate::store::{StoreError, StoreErrorKind};
use libc::{c_char, c_int, c_uchar, c_void, size_t, ssize_t, time_t};
use std::sync::OnceLock;

/// The name that every release since 2012 has.
const FILE: &str = "librados.so.2";

/// Opaque to us: a connection, a pool's context, a completion, operations under construction, a page of an omap.
pub(super) type ClusterHandle = *mut c_void;
pub(super) type PoolHandle = *mut c_void;
pub(super) type CompletionHandle = *mut c_void;
pub(super) type WriteOpHandle = *mut c_void;
pub(super) type ReadOpHandle = *mut c_void;
pub(super) type OmapHandle = *mut c_void;

pub(super) type CompletionCallback = unsafe extern "C" fn(completion: CompletionHandle, argument: *mut c_void);
pub(super) type WatchCallback = unsafe extern "C" fn(
    argument: *mut c_void,
    notify: u64,
    cookie: u64,
    notifier: u64,
    data: *mut c_void,
    len: size_t,
);
pub(super) type WatchErrorCallback = unsafe extern "C" fn(argument: *mut c_void, cookie: u64, error: c_int);

/// Makes the table and what fills it.
macro_rules! library {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, without their prefix `rados_`. All may be called from any thread.
        pub(super) struct Library {
            $(pub(super) $name: unsafe extern "C" fn($($argument: $type),*) $(-> $result)?,)*
        }

        impl Library {
            fn load(library: &libloading::Library) -> Result<Self, libloading::Error> {
                // SAFETY: each symbol is a function of librados' stable C interface (soname 2), and the types are those of
                // its header; the library is never unloaded, so the pointers stay good.
                Ok(unsafe { Self {
                    $($name: *library.get(concat!("rados_", stringify!($name), "\0").as_bytes())?,)*
                } })
            }
        }
    };
}

library! {
    version(major: *mut c_int, minor: *mut c_int, extra: *mut c_int);

    create2(cluster: *mut ClusterHandle, name: *const c_char, user: *const c_char, flags: u64) -> c_int;
    conf_read_file(cluster: ClusterHandle, path: *const c_char) -> c_int;
    conf_parse_env(cluster: ClusterHandle, variable: *const c_char) -> c_int;
    conf_set(cluster: ClusterHandle, option: *const c_char, value: *const c_char) -> c_int;
    conf_get(cluster: ClusterHandle, option: *const c_char, value: *mut c_char, len: size_t) -> c_int;
    connect(cluster: ClusterHandle) -> c_int;
    shutdown(cluster: ClusterHandle);
    get_instance_id(cluster: ClusterHandle) -> u64;
    getaddrs(cluster: ClusterHandle, addresses: *mut *mut c_char) -> c_int;
    wait_for_latest_osdmap(cluster: ClusterHandle) -> c_int;
    blocklist_add(cluster: ClusterHandle, address: *mut c_char, expire_seconds: u32) -> c_int;
    buffer_free(buffer: *mut c_char);

    ioctx_create(cluster: ClusterHandle, pool: *const c_char, handle: *mut PoolHandle) -> c_int;
    ioctx_destroy(pool: PoolHandle);
    ioctx_set_namespace(pool: PoolHandle, namespace: *const c_char);
    set_pool_full_try(pool: PoolHandle);
    ioctx_pool_requires_alignment2(pool: PoolHandle, required: *mut c_int) -> c_int;

    aio_create_completion2(argument: *mut c_void, callback: CompletionCallback, made: *mut CompletionHandle) -> c_int;
    aio_get_return_value(completion: CompletionHandle) -> c_int;
    aio_release(completion: CompletionHandle);
    aio_read(
        pool: PoolHandle, object: *const c_char, completion: CompletionHandle, buffer: *mut c_char, len: size_t, offset: u64
    ) -> c_int;
    aio_stat(
        pool: PoolHandle, object: *const c_char, completion: CompletionHandle, size: *mut u64, mtime: *mut time_t
    ) -> c_int;
    aio_write_op_operate(
        op: WriteOpHandle, pool: PoolHandle, completion: CompletionHandle, object: *const c_char, mtime: *mut time_t,
        flags: c_int
    ) -> c_int;
    write_op_operate(
        op: WriteOpHandle, pool: PoolHandle, object: *const c_char, mtime: *mut time_t, flags: c_int
    ) -> c_int;
    read_op_operate(op: ReadOpHandle, pool: PoolHandle, object: *const c_char, flags: c_int) -> c_int;
    get_last_version(pool: PoolHandle) -> u64;

    create_write_op() -> WriteOpHandle;
    release_write_op(op: WriteOpHandle);
    write_op_assert_exists(op: WriteOpHandle);
    write_op_assert_version(op: WriteOpHandle, version: u64);
    write_op_create(op: WriteOpHandle, exclusive: c_int, category: *const c_char);
    write_op_write(op: WriteOpHandle, bytes: *const c_char, len: size_t, offset: u64);
    write_op_write_full(op: WriteOpHandle, bytes: *const c_char, len: size_t);
    write_op_zero(op: WriteOpHandle, offset: u64, len: u64);
    write_op_remove(op: WriteOpHandle);
    write_op_set_alloc_hint(op: WriteOpHandle, object_size: u64, write_size: u64);
    write_op_omap_set(
        op: WriteOpHandle, keys: *const *const c_char, values: *const *const c_char, lens: *const size_t, count: size_t
    );
    write_op_omap_rm_keys(op: WriteOpHandle, keys: *const *const c_char, count: size_t);
    write_op_omap_cmp(
        op: WriteOpHandle, key: *const c_char, operator: u8, value: *const c_char, len: size_t, result: *mut c_int
    );
    write_op_setxattr(op: WriteOpHandle, name: *const c_char, value: *const c_char, len: size_t);
    write_op_exec(
        op: WriteOpHandle, class: *const c_char, method: *const c_char, input: *const c_char, len: size_t,
        result: *mut c_int
    );
    write_op_cmpxattr(op: WriteOpHandle, name: *const c_char, operator: u8, value: *const c_char, len: size_t);

    create_read_op() -> ReadOpHandle;
    release_read_op(op: ReadOpHandle);
    read_op_omap_get_keys2(
        op: ReadOpHandle, after: *const c_char, limit: u64, page: *mut OmapHandle, more: *mut c_uchar, result: *mut c_int
    );
    read_op_omap_get_vals_by_keys(
        op: ReadOpHandle, keys: *const *const c_char, count: size_t, page: *mut OmapHandle, result: *mut c_int
    );
    omap_get_next(page: OmapHandle, key: *mut *mut c_char, value: *mut *mut c_char, len: *mut size_t) -> c_int;
    omap_get_end(page: OmapHandle);
    read(pool: PoolHandle, object: *const c_char, buffer: *mut c_char, len: size_t, offset: u64) -> c_int;
    stat(pool: PoolHandle, object: *const c_char, size: *mut u64, mtime: *mut time_t) -> c_int;
    getxattr(pool: PoolHandle, object: *const c_char, name: *const c_char, buffer: *mut c_char, len: size_t) -> c_int;

    list_lockers(
        pool: PoolHandle, object: *const c_char, name: *const c_char, exclusive: *mut c_int, tag: *mut c_char,
        tag_len: *mut size_t, clients: *mut c_char, clients_len: *mut size_t, cookies: *mut c_char,
        cookies_len: *mut size_t, addresses: *mut c_char, addresses_len: *mut size_t
    ) -> ssize_t;
    watch3(
        pool: PoolHandle, object: *const c_char, cookie: *mut u64, callback: WatchCallback, on_error: WatchErrorCallback,
        timeout: u32, argument: *mut c_void
    ) -> c_int;
    watch_flush(cluster: ClusterHandle) -> c_int;
    unwatch2(pool: PoolHandle, cookie: u64) -> c_int;
    notify2(
        pool: PoolHandle, object: *const c_char, message: *const c_char, len: c_int, timeout_ms: u64,
        reply: *mut *mut c_char, reply_len: *mut size_t
    ) -> c_int;
    notify_ack(
        pool: PoolHandle, object: *const c_char, notify: u64, cookie: u64, message: *const c_char, len: c_int
    ) -> c_int;
}

/// `LIBRADOS_CREATE_EXCLUSIVE`
pub(super) const CREATE_EXCLUSIVE: c_int = 1;
/// `LIBRADOS_CMPXATTR_OP_EQ`
pub(super) const COMPARE_EQUAL: u8 = 1;
/// `LIBRADOS_OPERATION_FULL_TRY`: a full cluster answers at once with an error, instead of keeping the operation until there
/// is space; what takes no space goes through.
pub(super) const FULL_TRY: c_int = 64;
/// `LIBRADOS_OPERATION_FULL_FORCE`: as if the cluster were not full, until it cannot take anything any more.
pub(super) const FULL_FORCE: c_int = 128;

/// The library, opened at the first call. A failure is not remembered: it may be installed while we run.
///
/// # Errors
/// [`StoreErrorKind::Unsupported`], with what to install.
pub(super) fn library() -> Result<&'static Library, StoreError> {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let loaded = open().map_err(|error| {
        let what = format_args!("the Ceph client library (install librados2 of Ceph 16.2 or later: {error})");
        StoreError::new(StoreErrorKind::Unsupported, "load", what)
    })?;
    Ok(LIBRARY.get_or_init(|| loaded))
}

fn open() -> Result<Library, libloading::Error> {
    // SAFETY: librados is an ordinary shared library, whose initialisers set up its own statics.
    let library = unsafe { libloading::Library::new(FILE)? };
    let table = Library::load(&library)?;
    // Never closed: see the module's text.
    std::mem::forget(library);
    Ok(table)
}

impl Library {
    /// As the library says it: `3.0.0` is that of Ceph 10 to 20.
    pub(super) fn version_text(&self) -> String {
        let (mut major, mut minor, mut extra) = (0, 0, 0);
        // SAFETY: three pointers to integers that live longer than the call.
        unsafe { (self.version)(&raw mut major, &raw mut minor, &raw mut extra) };
        format!("{major}.{minor}.{extra}")
    }
}
