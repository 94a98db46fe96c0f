//! Operations of several steps that RADOS does on one object as one: all of them, or none.
//!
//! Built here, and run either by blocking calls ([`Pool::operate`] and what follows; helper threads) or asynchronously
//! (completion.rs). librados copies whatever it is given while an operation is built, so nothing needs to outlive the
//! building.

#![allow(unsafe_code, reason = "calls into librados; every block below says what they require")]

use super::cluster::Pool;
use super::error::{Failure, INCOMPLETE, check};
use super::key;
use super::library::{
    COMPARE_EQUAL, CREATE_EXCLUSIVE, FULL_FORCE, FULL_TRY, Library, OmapHandle, ReadOpHandle, WriteOpHandle,
};
use crate::store::{Buffer, Room};
use libc::{c_char, c_int};
use smallvec::SmallVec;
use std::ffi::CStr;
use std::ptr;

/// A change of one object under construction. Each step that asserts something fails the whole when it does not hold.
pub(super) struct WriteOp {
    library: &'static Library,
    handle: WriteOpHandle,
}

/// Omap entries, in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) entries: Vec<(String, Vec<u8>)>,
    /// Whether there are more behind the last one.
    pub(super) more: bool,
}

impl WriteOp {
    pub(super) fn new(library: &'static Library) -> Self {
        // SAFETY: takes nothing; the handle is ours until it is released.
        Self { library, handle: unsafe { (library.create_write_op)() } }
    }

    /// EEXIST when the object is there.
    pub(super) fn create_exclusive(self) -> Self {
        // SAFETY: our handle; the category is not used any more and may be null.
        unsafe { (self.library.write_op_create)(self.handle, CREATE_EXCLUSIVE, ptr::null()) };
        self
    }

    /// Makes the object if it is not there.
    pub(super) fn create(self) -> Self {
        // SAFETY: as in `create_exclusive`.
        unsafe { (self.library.write_op_create)(self.handle, 0, ptr::null()) };
        self
    }

    /// ENOENT when the object is not there.
    pub(super) fn assert_exists(self) -> Self {
        // SAFETY: our handle.
        unsafe { (self.library.write_op_assert_exists)(self.handle) };
        self
    }

    /// ERANGE or EOVERFLOW when the object has another version.
    pub(super) fn assert_version(self, version: u64) -> Self {
        // SAFETY: our handle.
        unsafe { (self.library.write_op_assert_version)(self.handle, version) };
        self
    }

    /// ECANCELED when the object has such an attribute and it is not empty (RADOS compares what is absent as empty).
    pub(super) fn assert_no_attribute(self, name: &CStr) -> Self {
        // SAFETY: texts that are copied.
        unsafe { (self.library.write_op_cmpxattr)(self.handle, name.as_ptr(), COMPARE_EQUAL, c"".as_ptr(), 0) };
        self
    }

    pub(super) fn set_attribute(self, name: &CStr, value: &[u8]) -> Self {
        let (bytes, len) = (value.as_ptr().cast(), value.len());
        // SAFETY: a text, and a value of `len` bytes; both are copied.
        unsafe { (self.library.write_op_setxattr)(self.handle, name.as_ptr(), bytes, len) };
        self
    }

    /// How large the object may become.
    pub(super) fn expect_size(self, size: u64) -> Self {
        // SAFETY: our handle.
        unsafe { (self.library.write_op_set_alloc_hint)(self.handle, size, 0) };
        self
    }

    pub(super) fn write(self, buffer: &Buffer, offset: u64) -> Self {
        with_bytes(buffer, |bytes, len| {
            // SAFETY: `bytes` has `len` bytes, which are copied by this call.
            unsafe { (self.library.write_op_write)(self.handle, bytes, len, offset) }
        });
        self
    }

    /// In place of the whole content.
    pub(super) fn write_full(self, buffer: &Buffer) -> Self {
        with_bytes(buffer, |bytes, len| {
            // SAFETY: as in `write`.
            unsafe { (self.library.write_op_write_full)(self.handle, bytes, len) }
        });
        self
    }

    /// `len` is not zero: the servers take that for a mistake.
    pub(super) fn zero(self, offset: u64, len: u64) -> Self {
        // SAFETY: our handle.
        unsafe { (self.library.write_op_zero)(self.handle, offset, len) };
        self
    }

    /// Calls a method of one of the cluster's classes. What it returns is the operation's result.
    pub(super) fn call(self, class: &CStr, method: &CStr, input: &[u8]) -> Self {
        let (bytes, len, no_result) = (input.as_ptr().cast(), input.len(), ptr::null_mut());
        // SAFETY: our handle, texts that end with zeros, an input with its length, which is copied; the method's own result may be
        // left out.
        unsafe { (self.library.write_op_exec)(self.handle, class.as_ptr(), method.as_ptr(), bytes, len, no_result) };
        self
    }

    /// Fails with ECANCELED unless the attribute is this; one that is not there is as one that is empty.
    pub(super) fn expect_attribute(self, name: &CStr, value: &[u8]) -> Self {
        let (bytes, len) = (value.as_ptr().cast(), value.len());
        // SAFETY: our handle, a text that ends with zero, a value with its length, which is copied.
        unsafe { (self.library.write_op_cmpxattr)(self.handle, name.as_ptr(), COMPARE_EQUAL, bytes, len) };
        self
    }

    pub(super) fn remove(self) -> Self {
        // SAFETY: our handle.
        unsafe { (self.library.write_op_remove)(self.handle) };
        self
    }

    /// Adds entries with empty values, or leaves them.
    pub(super) fn add_entries<'a>(self, keys: impl Iterator<Item = &'a CStr>) -> Self {
        let keys: SmallVec<[*const c_char; 16]> = keys.map(CStr::as_ptr).collect();
        let values: SmallVec<[*const c_char; 16]> = keys.iter().map(|_| c"".as_ptr()).collect();
        let lens: SmallVec<[usize; 16]> = keys.iter().map(|_| 0).collect();
        // SAFETY: three arrays of as many items as the count says, of texts that live until the call has copied them.
        unsafe {
            (self.library.write_op_omap_set)(self.handle, keys.as_ptr(), values.as_ptr(), lens.as_ptr(), keys.len());
        }
        self
    }

    /// Sets one entry.
    pub(super) fn set_entry(self, key: &CStr, value: &[u8]) -> Self {
        let (key, bytes, len) = (key.as_ptr(), value.as_ptr().cast::<c_char>(), value.len());
        // SAFETY: arrays of one item each; the key ends with a zero, the value has `len` bytes; both are copied.
        unsafe { (self.library.write_op_omap_set)(self.handle, &raw const key, &raw const bytes, &raw const len, 1) };
        self
    }

    pub(super) fn remove_entries<'a>(self, keys: impl Iterator<Item = &'a CStr>) -> Self {
        let keys: SmallVec<[*const c_char; 16]> = keys.map(CStr::as_ptr).collect();
        // SAFETY: an array of as many texts as the count says; they are copied.
        unsafe { (self.library.write_op_omap_rm_keys)(self.handle, keys.as_ptr(), keys.len()) };
        self
    }

    /// ECANCELED when there is such an entry with a value that is not empty (RADOS compares what is absent as empty).
    pub(super) fn assert_no_entry(self, key: &CStr) -> Self {
        let (empty, nowhere) = (c"".as_ptr(), ptr::null_mut());
        // SAFETY: texts that are copied; nobody asks for this step's own result.
        unsafe { (self.library.write_op_omap_cmp)(self.handle, key.as_ptr(), COMPARE_EQUAL, empty, 0, nowhere) };
        self
    }

    pub(super) fn handle(&self) -> WriteOpHandle {
        self.handle
    }
}

impl Drop for WriteOp {
    fn drop(&mut self) {
        // SAFETY: our handle, not used afterwards; an operation under way has what it needs of it.
        unsafe { (self.library.release_write_op)(self.handle) }
    }
}

/// Hands the buffer's bytes over in one piece: where they are, if they lie in one, else a copy.
fn with_bytes(buffer: &Buffer, take: impl FnOnce(*const c_char, usize)) {
    match buffer.segments() {
        [] => take(ptr::NonNull::dangling().as_ptr(), 0),
        [whole] => take(whole.iov_base.cast(), whole.iov_len),
        _ => {
            let bytes = buffer.to_vec();
            take(bytes.as_ptr().cast(), bytes.len());
        }
    }
}

/// Blocking operations, for helper threads.
impl Pool {
    pub(super) fn operate(&self, object: &CStr, op: &WriteOp) -> Result<(), Failure> {
        self.operate_in(Room::Ordinary, object, op)
    }

    /// With [`Room::Reserve`] also in a full cluster, as long as that can take anything.
    pub(super) fn operate_in(&self, room: Room, object: &CStr, op: &WriteOp) -> Result<(), Failure> {
        let (library, now) = (self.library(), ptr::null_mut());
        let flags = match room {
            Room::Ordinary => FULL_TRY,
            // Both: an OSD that is fuller than it may ever be keeps what it must not even try.
            Room::Reserve => FULL_TRY | FULL_FORCE,
        };
        // SAFETY: a pool's and an operation's handles, and a text that is copied; a null time is the present.
        check(unsafe { (library.write_op_operate)(op.handle, self.handle(), object.as_ptr(), now, flags) }).map(drop)
    }

    /// At most `limit` keys of the object's omap behind `after`, without values. No object, no entries, but where every store has one:
    /// that is an error.
    pub(super) fn keys(&self, object: &CStr, after: &CStr, limit: usize) -> Result<Page, Failure> {
        let limit = u64::try_from(limit).expect("a limit fits in 64 bits");
        let (mut page, mut more, mut result): (OmapHandle, u8, c_int) = (ptr::null_mut(), 0, 0);
        let ran = self.run_read(object, |library, op| {
            // SAFETY: the three places live until the operation has ended.
            unsafe {
                let (page, more, result) = (&raw mut page, &raw mut more, &raw mut result);
                (library.read_op_omap_get_keys2)(op, after.as_ptr(), limit, page, more, result);
            }
        });
        let entries = self.drain(page);
        match ran.and_then(|()| check(result).map(drop)) {
            Ok(()) => Ok(Page { entries, more: more != 0 }),
            Err(Failure(libc::ENOENT)) if key::is_in_every_store(object) => Err(Failure(INCOMPLETE)),
            Err(Failure(libc::ENOENT)) => Ok(Page::default()),
            Err(failure) => Err(failure),
        }
    }

    /// The value of one entry of the object's omap.
    pub(super) fn value(&self, object: &CStr, key: &CStr) -> Result<Option<Vec<u8>>, Failure> {
        let (mut page, mut result): (OmapHandle, c_int) = (ptr::null_mut(), 0);
        let key = key.as_ptr();
        let ran = self.run_read(object, |library, op| {
            // SAFETY: one key, which is copied; the two places live until the operation has ended.
            unsafe {
                let (key, page, result) = (&raw const key, &raw mut page, &raw mut result);
                (library.read_op_omap_get_vals_by_keys)(op, key, 1, page, result);
            }
        });
        let entries = self.drain(page);
        ran.and_then(|()| check(result))?;
        Ok(entries.into_iter().next().map(|(_, value)| value))
    }

    fn run_read(&self, object: &CStr, build: impl FnOnce(&Library, ReadOpHandle)) -> Result<(), Failure> {
        let library = self.library();
        // SAFETY: the handle is made, used and released here; the text is copied; the call returns when all results are in
        // their places.
        unsafe {
            let op = (library.create_read_op)();
            build(library, op);
            let ran = (library.read_op_operate)(op, self.handle(), object.as_ptr(), 0);
            (library.release_read_op)(op);
            check(ran).map(drop)
        }
    }

    /// Takes all entries out of a page that librados made, and gives it back.
    fn drain(&self, page: OmapHandle) -> Vec<(String, Vec<u8>)> {
        let library = self.library();
        let mut entries = Vec::new();
        while !page.is_null() {
            let (mut key, mut value, mut len) = (ptr::null_mut(), ptr::null_mut(), 0);
            // SAFETY: a page that has not been ended, and places for what it points to.
            let got = unsafe { (library.omap_get_next)(page, &raw mut key, &raw mut value, &raw mut len) };
            if got < 0 || key.is_null() {
                break;
            }
            // SAFETY: a key ends with a zero byte (ours do) and lives until the page is ended.
            let text = unsafe { CStr::from_ptr(key) }.to_string_lossy().into_owned();
            let bytes = if value.is_null() || len == 0 {
                Vec::new()
            } else {
                // SAFETY: the value has `len` bytes, which live until the page is ended.
                unsafe { std::slice::from_raw_parts(value.cast::<u8>(), len) }.to_vec()
            };
            entries.push((text, bytes));
        }
        if !page.is_null() {
            // SAFETY: a page, ended once.
            unsafe { (library.omap_get_end)(page) };
        }
        entries
    }

    /// The object's length.
    pub(super) fn size(&self, object: &CStr) -> Result<u64, Failure> {
        let (mut size, mut time) = (0, 0);
        // SAFETY: a text that is copied and places for two results.
        check(unsafe { (self.library().stat)(self.handle(), object.as_ptr(), &raw mut size, &raw mut time) })?;
        Ok(size)
    }

    /// The object's first `limit` bytes.
    pub(super) fn start_of(&self, object: &CStr, limit: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; limit];
        let place = bytes.as_mut_ptr().cast();
        // SAFETY: a text that is copied and a place of `limit` bytes.
        let read = check(unsafe { (self.library().read)(self.handle(), object.as_ptr(), place, limit, 0) })?;
        bytes.truncate(usize::try_from(read).unwrap_or(0));
        Ok(bytes)
    }

    /// The version of the object that the last blocking operation through this very value met. Only for a pool that one
    /// thread has for itself.
    pub(super) fn last_version(&self) -> u64 {
        // SAFETY: a pool's handle.
        unsafe { (self.library().get_last_version)(self.handle()) }
    }
}
