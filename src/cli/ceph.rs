//! The options of stores in a Ceph cluster.

use super::arguments;
use crate::config::Config;
use crate::store::rados::RadosOptions;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of stores rados:POOL")]
pub struct CephArgs {
    /// The cluster's configuration file [default: as every Ceph program, $CEPH_CONF or /etc/ceph/ceph.conf]
    #[arg(long, value_name = "FILE", env = "ARCHVHOST_CEPH_CONF", global = true, hide_short_help = true)]
    #[arg(hide_env_values = true, value_parser = arguments::path())]
    pub ceph_conf: Option<PathBuf>,

    /// Whom to be in the cluster: NAME is the user client.NAME [default: admin]
    #[arg(long, value_name = "NAME", env = "ARCHVHOST_CEPH_USER", global = true, hide_short_help = true)]
    #[arg(hide_env_values = true, value_parser = arguments::text())]
    pub ceph_user: Option<String>,

    /// The file with that user's key [default: where the cluster's configuration says]
    #[arg(long, value_name = "FILE", env = "ARCHVHOST_CEPH_KEYRING", global = true, hide_short_help = true)]
    #[arg(hide_env_values = true, value_parser = arguments::path())]
    pub ceph_keyring: Option<PathBuf>,

    /// Connections to the cluster [default: 1]
    #[arg(long, value_name = "N", global = true, hide_short_help = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=16))]
    pub ceph_connections: Option<u32>,

    /// The pool for what guests write, when a store is made: it may be erasure-coded [default: that of the store]
    #[arg(long, value_name = "POOL", env = "ARCHVHOST_DATA_POOL", global = true, hide_short_help = true)]
    #[arg(hide_env_values = true, value_parser = arguments::text())]
    pub data_pool: Option<String>,
}

impl CephArgs {
    /// A variable that is set to nothing says nothing.
    pub fn without_empty(self) -> Self {
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        let path = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
        Self {
            ceph_conf: path(self.ceph_conf),
            ceph_user: text(self.ceph_user),
            ceph_keyring: path(self.ceph_keyring),
            ceph_connections: self.ceph_connections,
            data_pool: text(self.data_pool),
        }
    }

    /// Options over configuration.
    pub fn merge(&self, config: &Config) -> RadosOptions {
        RadosOptions {
            conf: self.ceph_conf.clone().or(config.ceph_conf.clone()),
            user: self.ceph_user.clone().or(config.ceph_user.clone()),
            keyring: self.ceph_keyring.clone().or(config.ceph_keyring.clone()),
            data_pool: self.data_pool.clone().or(config.data_pool.clone()),
            connections: self.ceph_connections.or(config.ceph_connections),
        }
    }
}
