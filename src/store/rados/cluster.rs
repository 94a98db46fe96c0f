//! A connection to a Ceph cluster, and the pools seen through it.
//!
//! Invariants: a [`Pool`] keeps its [`Cluster`] connected; whoever starts an asynchronous operation keeps its pool until
//! the operation has ended. Neither may be dropped by a thread of librados (shutting down waits for those threads).

#![allow(unsafe_code, reason = "calls into librados; every block below says what they require")]

use super::error::{Failure, check};
use super::library::{ClusterHandle, Library, PoolHandle, library};
use super::options::RadosOptions;
use crate::store::{StoreError, StoreErrorKind};
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

/// Settings that replace those of the configuration file, and why.
const SETTINGS: [(&CStr, &CStr); 4] = [
    // Submitting must never block, and it does where these limits are reached. Channels have limits of their own.
    (c"objecter_inflight_ops", c"1048576"),
    (c"objecter_inflight_op_bytes", c"17179869184"),
    // A request whose buffer librados may still touch must not end (docs/store-drivers.md, "rados: time").
    (c"rados_osd_op_timeout", c"0"),
    // How long opening a store waits for a cluster that does not answer, in seconds. The default is five minutes.
    (c"client_mount_timeout", c"30"),
];

/// The same, for options that only newer libraries have.
const NEWER_SETTINGS: [(&CStr, &CStr); 1] = [
    // What is read at a replica does not tell the primary of the newest map, and with it of who was cut off (rule C5).
    (c"rados_replica_read_policy", c"default"),
];

/// Of longer lists of monitors an error says nothing.
const MON_HOST_MAX: usize = 4096;

/// A connection. Shut down with its last user.
pub(super) struct Cluster {
    library: &'static Library,
    handle: ClusterHandle,
}

// SAFETY: librados documents its cluster handle as usable from several threads at once.
unsafe impl Send for Cluster {}
// SAFETY: as above.
unsafe impl Sync for Cluster {}

/// One pool and namespace, through one connection.
pub(super) struct Pool {
    cluster: Arc<Cluster>,
    handle: PoolHandle,
    name: String,
}

// SAFETY: librados documents its I/O contexts as usable from several threads as long as nobody changes their settings; ours
// are set before anybody else sees them.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Cluster {
    /// Blocks until connected, or for half a minute.
    ///
    /// # Errors
    /// When there is no library, no configuration, no right or no answer; the text says which.
    pub(super) fn connect(options: &RadosOptions) -> Result<Arc<Self>, StoreError> {
        let library = library()?;
        let user = CString::new(format!("client.{}", options.user.as_deref().unwrap_or("admin")));
        let user = user.map_err(|_| refuse("its user's name holds a zero byte"))?;
        let cluster = Self::make(library, &user).map_err(|failure| failure.at("prepare", "a connection to Ceph"))?;
        cluster.configure(options)?;
        // SAFETY: the handle was made above and is not connected yet.
        check(unsafe { (library.connect)(cluster.handle) })
            .map_err(|failure| cannot_connect(failure, &user, &cluster.monitors()))?;
        Ok(Arc::new(cluster))
    }

    fn make(library: &'static Library, user: &CStr) -> Result<Self, Failure> {
        let mut handle = ptr::null_mut();
        // SAFETY: a place for the handle and two texts, which are copied.
        check(unsafe { (library.create2)(&raw mut handle, c"ceph".as_ptr(), user.as_ptr(), 0) })?;
        Ok(Self { library, handle })
    }

    fn configure(&self, options: &RadosOptions) -> Result<(), StoreError> {
        let conf = options.conf.as_deref().map(path_text).transpose()?;
        let path = conf.as_ref().map_or(ptr::null(), |path| path.as_ptr());
        // SAFETY: an unconnected handle, and a path or null, which means the usual places.
        check(unsafe { (self.library.conf_read_file)(self.handle, path) }).map_err(|failure| {
            let file = options.conf.as_deref().unwrap_or(Path::new("ceph.conf in the usual places"));
            failure.at("read the cluster's configuration", format_args!("file {}", file.display()))
        })?;
        // SAFETY: an unconnected handle; null means the variable CEPH_ARGS.
        check(unsafe { (self.library.conf_parse_env)(self.handle, ptr::null()) })
            .map_err(|failure| failure.at("understand", "the environment variable CEPH_ARGS"))?;
        if let Some(keyring) = &options.keyring {
            // librados would only say that it has no key.
            std::fs::File::open(keyring)
                .map_err(|error| StoreError::from_io(error, "read", format_args!("keyring {}", keyring.display())))?;
            self.set(c"keyring", &path_text(keyring)?)?;
        }
        for (option, value) in NEWER_SETTINGS {
            match self.try_set(option, value) {
                Err(Failure(libc::ENOENT)) => {}
                other => other.map_err(|failure| cannot_set(failure, option))?,
            }
        }
        SETTINGS.iter().try_for_each(|(option, value)| self.set(option, value))
    }

    /// Where the configuration says that the cluster is.
    fn monitors(&self) -> String {
        let mut text = vec![0_u8; MON_HOST_MAX];
        // SAFETY: a text that ends with zero, and a place of so many bytes for one.
        let got =
            unsafe { (self.library.conf_get)(self.handle, c"mon_host".as_ptr(), text.as_mut_ptr().cast(), text.len()) };
        let value = CStr::from_bytes_until_nul(&text).ok().filter(|value| got >= 0 && !value.is_empty());
        value.map_or_else(|| "not set".to_owned(), |value| value.to_string_lossy().into_owned())
    }

    fn set(&self, option: &CStr, value: &CStr) -> Result<(), StoreError> {
        self.try_set(option, value).map_err(|failure| cannot_set(failure, option))
    }

    fn try_set(&self, option: &CStr, value: &CStr) -> Result<(), Failure> {
        // SAFETY: two texts, which are copied.
        check(unsafe { (self.library.conf_set)(self.handle, option.as_ptr(), value.as_ptr()) }).map(drop)
    }

    /// The pool, in a namespace (empty: the default one). Each thread should have its own, for librados counts what is
    /// in flight for each under a lock.
    ///
    /// # Errors
    /// When there is no such pool, or the monitors say no.
    pub(super) fn pool(self: &Arc<Self>, name: &str, namespace: &str) -> Result<Pool, Failure> {
        let invalid = |_| Failure(libc::EINVAL);
        let (pool, space) = (CString::new(name).map_err(invalid)?, CString::new(namespace).map_err(invalid)?);
        let mut handle = ptr::null_mut();
        // SAFETY: a connected handle, a text that is copied, a place for the result.
        check(unsafe { (self.library.ioctx_create)(self.handle, pool.as_ptr(), &raw mut handle) })?;
        // SAFETY: the handle was just made and nobody else has it; the text is copied.
        unsafe { (self.library.ioctx_set_namespace)(handle, space.as_ptr()) };
        Ok(Pool { cluster: Arc::clone(self), handle, name: name.to_owned() })
    }

    /// Blocks until this client has the newest map of the cluster, blocklist included: what is read afterwards is not overtaken by a
    /// client that the map shuts out.
    ///
    /// # Errors
    /// What the monitors report.
    pub(super) fn wait_for_latest_map(&self) -> Result<(), Failure> {
        // SAFETY: a connected handle.
        check(unsafe { (self.library.wait_for_latest_osdmap)(self.handle) }).map(drop)
    }

    /// The cluster's number for this client, unique in its history.
    pub(super) fn instance(&self) -> u64 {
        // SAFETY: a connected handle.
        unsafe { (self.library.get_instance_id)(self.handle) }
    }

    /// What to blocklist when this client is to be cut off: `127.0.0.1:0/3710147553`.
    ///
    /// # Errors
    /// What librados reports.
    pub(super) fn address(&self) -> Result<String, Failure> {
        let mut text = ptr::null_mut();
        // SAFETY: a connected handle and a place for the text.
        check(unsafe { (self.library.getaddrs)(self.handle, &raw mut text) })?;
        // SAFETY: after success it is a text that ends with a zero byte and is ours until it is freed.
        let address = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        // SAFETY: librados made the text with strdup for us to free, and it is freed once.
        unsafe { libc::free(text.cast()) };
        Ok(address)
    }

    pub(super) fn library(&self) -> &'static Library {
        self.library
    }

    /// For calls that are made elsewhere in this driver; good for as long as `self` lives.
    pub(super) fn handle(&self) -> ClusterHandle {
        self.handle
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: the handle is valid, no pool of it is left (they hold an Arc of this), and nothing uses it afterwards.
        unsafe { (self.library.shutdown)(self.handle) }
    }
}

impl Pool {
    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub(super) fn library(&self) -> &'static Library {
        self.cluster.library
    }

    /// From now on what is not sent with flags of its own, watches above all, does not wait for space in a full pool either.
    #[must_use]
    pub(super) fn that_never_waits_for_space(self) -> Self {
        // SAFETY: a valid handle that nobody else has yet.
        unsafe { (self.cluster.library.set_pool_full_try)(self.handle) };
        self
    }

    /// For calls that are made elsewhere in this driver; good for as long as `self` lives.
    pub(super) fn handle(&self) -> PoolHandle {
        self.handle
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: a valid handle that nothing uses afterwards; the cluster is still connected.
        unsafe { (self.cluster.library.ioctx_destroy)(self.handle) }
    }
}

fn path_text(path: &Path) -> Result<CString, StoreError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| refuse("a path holds a zero byte"))
}

fn cannot_set(failure: Failure, option: &CStr) -> StoreError {
    failure.at("set", format_args!("Ceph's option {}", option.to_string_lossy()))
}

fn refuse(why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unsupported, "connect to Ceph", format_args!("as asked ({why})"))
}

fn cannot_connect(failure: Failure, user: &CStr, monitors: &str) -> StoreError {
    let user = user.to_string_lossy();
    let (kind, why) = match failure.0 {
        libc::ETIMEDOUT => {
            let why = format!(
                "no monitor answered within 30 s; mon_host is {monitors}: is the cluster up, and the way there?"
            );
            (StoreErrorKind::Unavailable, why)
        }
        libc::ENOENT => (StoreErrorKind::NotWritable, format!("there is no key for {user}, or no monitor is known")),
        libc::EACCES | libc::EPERM => (StoreErrorKind::NotWritable, format!("the monitors refuse {user}")),
        libc::EOPNOTSUPP => (StoreErrorKind::NotWritable, format!("the monitors want a key from {user}")),
        number => (failure.kind(), io::Error::from_raw_os_error(number).to_string()),
    };
    StoreError::from_io(io::Error::other(why), "connect to", "the Ceph cluster").with_kind(kind)
}
