//! The host daemon's configuration file as types, checked once, here.
//!
//! Every key is optional and every flag of the command line overrides its key. A key that is not known, a value of the
//! wrong kind, a bad name or size: each is an error that names the file, the line and the key, because a setting that is
//! silently ignored is worse than a daemon that does not start. docs/operations.md lists the keys.

pub mod collection;
pub mod soft_journal;

use crate::device::RequestTimeout;
use crate::store::open::CacheMode;
use crate::units::{ByteSize, VolumeName};
use collection::Interval;
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest configuration file that is read: thousands of attachments fit, a wrong path to a disk image does not.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The file's content. `None` means that the file does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The store's URL, as after `--store`.
    pub store: Option<String>,
    /// Where the control socket is made.
    pub control: Option<PathBuf>,
    /// The group whose members may use the control socket.
    pub control_group: Option<String>,
    pub cache: Option<Cache>,
    /// Memory for the map pages of each volume.
    #[serde(deserialize_with = "optional_size")]
    pub map_cache: Option<ByteSize>,
    /// How long a queue is polled after work before its thread sleeps, in microseconds.
    pub poll_us: Option<u32>,
    /// How long requests wait for a store that does not answer, in seconds; 0 is for ever.
    #[serde(deserialize_with = "optional_timeout")]
    pub request_timeout: Option<RequestTimeout>,
    pub soft_journal_dir: Option<PathBuf>,
    /// This host, as the others that use the store shall know it.
    pub host_id: Option<String>,
    /// What proves that a host writes no more: run with the host and the volume, exit 0 is the proof.
    pub fence_command: Option<PathBuf>,
    /// Whether other hosts use the store; found out from its file system when not given.
    pub shared_store: Option<bool>,
    /// The cluster's configuration file, for a store `rados:POOL`.
    pub ceph_conf: Option<PathBuf>,
    /// Whom to be in the cluster, without `client.`.
    pub ceph_user: Option<String>,
    /// The file with that user's key.
    pub ceph_keyring: Option<PathBuf>,
    /// Connections to the cluster.
    pub ceph_connections: Option<u32>,
    /// The pool for what guests write, when the store is made.
    pub data_pool: Option<String>,
    /// The group that owns the sockets of attached volumes: the one the virtual machine monitor runs in.
    pub socket_group: Option<String>,
    pub log_level: Option<String>,
    pub log_format: Option<LogFormat>,
    /// How often to collect.
    #[serde(deserialize_with = "optional_interval")]
    pub gc_interval: Option<Interval>,
    /// Memory for a collection's marks.
    #[serde(deserialize_with = "optional_size")]
    pub gc_memory: Option<ByteSize>,
    /// Where marks go that do not fit in it.
    pub gc_spill_dir: Option<PathBuf>,
    /// Volumes to attach when the daemon starts.
    pub attach: Vec<AttachConfig>,
}

/// One `[[attach]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachConfig {
    #[serde(deserialize_with = "parsed")]
    pub volume: VolumeName,
    pub socket: PathBuf,
    pub queues: Option<u16>,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default, deserialize_with = "optional_timeout")]
    pub request_timeout: Option<RequestTimeout>,
}

/// How the store's files are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Directly, past the host's page cache.
    None,
    /// Through the host's page cache.
    Writeback,
}

impl From<Cache> for CacheMode {
    fn from(cache: Cache) -> Self {
        match cache {
            Cache::None => Self::None,
            Cache::Writeback => Self::Writeback,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why a configuration file is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file {} is larger than {max}", path.display(), max = ByteSize(FILE_BYTES_MAX))]
    TooLarge { path: PathBuf },
    #[error("{}, line {line}: {message}", path.display())]
    Parse { path: PathBuf, line: usize, message: String },
}

/// Reads and checks a file.
///
/// # Errors
/// When it cannot be read, or anything in it is not understood.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let read_error = |source| ConfigError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read_error)?.len() > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(read_error)?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        // The parser's message may have several lines; ours has one.
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        ConfigError::Parse { path: path.to_owned(), line, message }
    })
}

fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: fmt::Display,
{
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn optional_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Interval>, D::Error> {
    parsed(deserializer).map(Some)
}

fn optional_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RequestTimeout>, D::Error> {
    RequestTimeout::from_seconds(u64::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

/// `"256MiB", or a bare number of bytes.
fn optional_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a size such as \"256MiB\", or a number of bytes")]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(bytes) => Ok(Some(ByteSize(bytes))),
        Written::Text(text) => text.parse().map(Some).map_err(de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        parse(text, Path::new("test.toml")).unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_understood() {
        let text = r#"
            store = "file:/srv/volumes"
            control = "/run/archvhost/control.sock"
            control_group = "archvhost"
            cache = "writeback"
            map_cache = "256MiB"
            poll_us = 20
            request_timeout = 30
            soft_journal_dir = "/dev/shm/archvhost"
            host_id = "rack3-7"
            fence_command = "/usr/local/sbin/fence"
            shared_store = true
            ceph_conf = "/etc/ceph/ceph.conf"
            ceph_user = "archvhost"
            ceph_keyring = "/etc/ceph/ceph.client.archvhost.keyring"
            ceph_connections = 2
            data_pool = "volumes-data"
            socket_group = "kvm"
            log_level = "debug"
            log_format = "json"
            gc_interval = "6h"
            gc_memory = "64MiB"
            gc_spill_dir = "/var/tmp"
            [[attach]]
            volume = "web1"
            socket = "/run/web1.sock"
            queues = 4
            read_only = true
            request_timeout = 0
        "#;
        let config = parse(text, Path::new("test.toml")).unwrap();
        assert_eq!(config.map_cache, Some(ByteSize(256 << 20)));
        assert_eq!(config.cache, Some(Cache::Writeback));
        assert_eq!((config.host_id.as_deref(), config.shared_store), (Some("rack3-7"), Some(true)));
        assert_eq!((config.ceph_user.as_deref(), config.ceph_connections), (Some("archvhost"), Some(2)));
        assert_eq!(config.attach[0].volume.as_str(), "web1");
        assert!(config.attach[0].read_only);
        assert_eq!(config.request_timeout, RequestTimeout::from_seconds(30).ok());
        assert_eq!(config.attach[0].request_timeout, Some(RequestTimeout::Never));
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(parse("", Path::new("test.toml")).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let text = error_of("store = \"memory:\"\n\nstoer = 1\n");
        assert!(text.starts_with("test.toml, line 3: ") && text.contains("`stoer`"), "{text}");
        let text = error_of("[[attach]]\nvolume = \"a\"\nsocket = \"/s\"\nqueue = 2\n");
        assert!(text.contains("line 4") && text.contains("`queue`"), "{text}");
    }

    #[test]
    fn a_bad_value_is_named_with_its_line() {
        let text = error_of("poll_us = 1\nmap_cache = \"lots\"\n");
        assert!(text.contains("line 2") && text.contains("\"lots\" is not a size"), "{text}");
        let text = error_of("poll_us = 1\n\nrequest_timeout = 100000\n");
        assert!(text.contains("line 3") && text.contains("100000 is neither"), "{text}");
        let text = error_of("[[attach]]\nvolume = \"../x\"\nsocket = \"/s\"\n");
        assert!(text.contains("line 2") && text.contains("not a volume name"), "{text}");
        assert_eq!(error_of("a = [").lines().count(), 1);
    }
}
