//! Who may use the control socket: root, the user who runs the daemon, and the members of the socket's group.
//!
//! The file's mode says the same to the kernel; this check holds too when a supervisor hands us a socket that everybody
//! can reach. What a peer was when it connected counts, as the kernel recorded it.

#![allow(unsafe_code, reason = "SO_PEERGROUPS has no safe wrapper, and that of SO_PEERCRED panics")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Supplementary groups that we look at; the kernel allows 65,536.
const GROUPS_MAX: usize = 65_536;

/// Whoever belongs to one of these may.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    pub user: u32,
    pub group: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Peer {
    user: u32,
    groups: Vec<u32>,
}

/// Whether the process at the other end may use the socket; if not, its user.
///
/// # Errors
/// When the kernel does not tell who it is.
pub fn admit(socket: impl AsFd, admitted: Admitted) -> io::Result<Result<(), u32>> {
    let peer = peer(socket.as_fd())?;
    Ok(if admitted.includes(&peer) { Ok(()) } else { Err(peer.user) })
}

impl Admitted {
    fn includes(&self, peer: &Peer) -> bool {
        peer.user == 0 || peer.user == self.user || peer.groups.contains(&self.group)
    }
}

fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = credentials(socket)?;
    let mut groups = supplementary_groups(socket)?;
    groups.push(credentials.gid);
    Ok(Peer { user: credentials.uid, groups })
}

/// rustix has this call, and ends the program where the peer has no number: it is of a process namespace that we cannot see.
fn credentials(socket: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let mut credentials = [libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX }];
    match get_option(socket, libc::SO_PEERCRED, &mut credentials)? {
        1 => Ok(credentials[0]),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn supplementary_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; GROUPS_MAX];
    let count = get_option(socket, libc::SO_PEERGROUPS, &mut groups)?;
    groups.truncate(count);
    Ok(groups)
}

/// Reads a socket's option that is a list of values; how many there are.
fn get_option<T: Copy>(socket: BorrowedFd<'_>, option: i32, values: &mut [T]) -> io::Result<usize> {
    let mut bytes = libc::socklen_t::try_from(size_of_val(values)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; `values` has `bytes` writable bytes, and the kernel writes at most so many and sets `bytes` to
    // what it wrote. Both callers have plain numbers there, of which every value is one.
    let result = unsafe {
        let (values, bytes) = (values.as_mut_ptr().cast(), &raw mut bytes);
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, values, bytes)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).map_err(io::Error::other)? / size_of::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn root_the_owner_and_the_group_are_admitted_and_nobody_else() {
        let admitted = Admitted { user: 1000, group: 104 };
        let peer = |user, groups: &[u32]| Peer { user, groups: groups.to_vec() };
        assert!(admitted.includes(&peer(0, &[0])));
        assert!(admitted.includes(&peer(1000, &[])));
        assert!(admitted.includes(&peer(1001, &[7, 104])));
        assert!(!admitted.includes(&peer(1001, &[0, 1000])));
    }

    #[test]
    fn the_kernel_tells_who_connected() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = peer(ours.as_fd()).unwrap();
        assert_eq!(peer.user, rustix::process::geteuid().as_raw());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
    }
}
