//! A volume that gets another size while its guest runs: the front-end is told, and every request is judged by the size as
//! it is then.

use super::machine::{DATA, Machine, PROTOCOL_FEATURES, VERSION_1, WRITE};
use super::messages::{self, frame};
use super::served::{Served, VOLUME_BYTES};
use archvhost::admin::create::CreateRequest;
use archvhost::admin::job::Job;
use archvhost::admin::resize::{ResizeRequest, Shrink};
use archvhost::daemon::{Daemon, DaemonOptions};
use archvhost::device::RequestTimeout;
use archvhost::export::socket::SocketOwner;
use archvhost::export::{AttachRequest, Endpoint, ExportOptions};
use archvhost::store::open::{StoreOptions, open};
use archvhost::units::{ObjectSize, VolumeName, VolumeSize};
use archvhost::volume::capture::Amendment;
use archvhost::volume::{Access, GRANULE_BYTES, OpenOptions, Port, VolumeError};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

const IN: u32 = 0;
const OUT: u32 = 1;
const DISCARD: u32 = 11;
const BODY: u64 = DATA + 0x1000;
const OK: u8 = 0;
const IOERR: u8 = 1;

/// The first sector that the volume does not have at first.
const END: u64 = VOLUME_BYTES / 512;

fn resize(served: &Served, bytes: u64) {
    let port = Port::open(&served.volume).unwrap();
    let volume = Arc::clone(&served.volume);
    let size = VolumeSize::new(bytes).unwrap();
    let amended: Result<(), VolumeError> = port.block_on(async move { volume.amend(Amendment::Size(size)).await });
    amended.unwrap();
    served.device.capacity_changed();
}

/// A running machine, and the channel on which it is told of changes.
fn machine(served: &Served) -> (Machine, UnixStream) {
    machine_over(served.connect())
}

fn machine_over(stream: UnixStream) -> (Machine, UnixStream) {
    let mut machine = Machine::over(stream, 1, VERSION_1 | PROTOCOL_FEATURES);
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    machine.frontend.set_backend_request_fd(&theirs).unwrap();
    machine.start_queue(0, 0);
    (machine, ours)
}

fn is_told(mut channel: &UnixStream) -> bool {
    let mut announced = [0; 12];
    let told = channel.read_exact(&mut announced).is_ok();
    assert!(!told || announced == frame(2, messages::VERSION, &[])[..], "CONFIG_CHANGE");
    told
}

fn capacity(machine: &mut Machine) -> u64 {
    let config = machine.frontend.get_config(0, 8, VhostUserConfigFlags::empty(), &[0; 8]).unwrap().1;
    u64::from_le_bytes(config.try_into().unwrap())
}

fn write(machine: &Machine, sector: u64, byte: u8) -> u8 {
    machine.ram.put(BODY, &[byte; 1024]);
    machine.request(0, OUT, sector, &[(BODY, 1024, 0)]).0
}

fn read(machine: &Machine, sector: u64) -> (u8, u8) {
    machine.ram.put(BODY, &[0xee; 1024]);
    let (status, _) = machine.request(0, IN, sector, &[(BODY, 1024, WRITE)]);
    (status, machine.ram.get(BODY, 1)[0])
}

fn discard(machine: &Machine, sector: u64, sectors: u32) -> u8 {
    machine.ram.put(BODY, &sector.to_le_bytes());
    machine.ram.put(BODY + 8, &sectors.to_le_bytes());
    machine.ram.put(BODY + 12, &[0; 4]);
    machine.request(0, DISCARD, 0, &[(BODY, 16, 0)]).0
}

#[test]
fn a_guest_is_told_of_a_larger_volume_and_can_use_it_at_once() {
    let served = Served::with_queues(1);
    let (mut machine, channel) = machine(&served);
    assert_eq!(
        (write(&machine, END, 7), write(&machine, END - 1, 7), discard(&machine, END, 8)),
        (IOERR, IOERR, IOERR)
    );
    assert!(!is_told(&channel));

    resize(&served, 2 * VOLUME_BYTES);

    assert!(is_told(&channel) && !is_told(&channel), "once");
    assert_eq!(capacity(&mut machine), 2 * END);
    assert_eq!(read(&machine, END), (OK, 0));
    assert_eq!((write(&machine, END, 7), write(&machine, END - 1, 8)), (OK, OK), "behind the old end, and across it");
    assert_eq!((read(&machine, END - 1), read(&machine, END)), ((OK, 8), (OK, 8)));
    assert_eq!((write(&machine, 2 * END - 2, 9), write(&machine, 2 * END - 1, 9)), (OK, IOERR));
    assert_eq!((discard(&machine, END, 8), discard(&machine, 2 * END - 4, 8)), (OK, IOERR));
}

#[test]
fn a_smaller_volume_refuses_what_lies_behind_its_new_end() {
    let served = Served::with_queues(1);
    let (mut machine, channel) = machine(&served);
    assert_eq!(write(&machine, END / 2, 7), OK);

    resize(&served, VOLUME_BYTES / 2);

    assert!(is_told(&channel));
    assert_eq!(capacity(&mut machine), END / 2);
    for sector in [END / 2, END / 2 - 1, END - 2] {
        assert_eq!((read(&machine, sector).0, write(&machine, sector, 7)), (IOERR, IOERR), "sector {sector}");
        assert_eq!(discard(&machine, sector, 2), IOERR, "sector {sector}");
    }
    assert_eq!(write(&machine, END / 2 - 2, 7), OK, "the last that fit");
    assert_eq!(machine.request(0, 4, 0, &[]).0, OK, "a flush");
}

#[test]
fn a_front_end_that_comes_back_is_told_what_it_missed() {
    let served = Served::with_queues(1);
    drop(machine(&served));
    served.end().unwrap();
    resize(&served, 3 * VOLUME_BYTES);
    let (mut machine, channel) = machine(&served);
    assert!(is_told(&channel) && !is_told(&channel), "it may not have asked again");
    assert_eq!(capacity(&mut machine), 3 * END);
    assert_eq!(write(&machine, 3 * END - 2, 7), OK);
}

/// It may have read the smaller size while the shrink was under way.
#[test]
fn a_guest_is_told_again_when_a_shrink_was_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let (volume, socket) = (VolumeName::new("web").unwrap(), directory.path().join("socket"));
    let size = |bytes| VolumeSize::new(bytes).unwrap();
    let open_options = OpenOptions {
        access: Access::ReadWrite,
        soft_journal_dir: directory.path().to_owned(),
        cache_bytes: 1 << 20,
        granule_bytes: GRANULE_BYTES,
        lease: Default::default(),
    };
    let options = DaemonOptions {
        export: ExportOptions { open: open_options, poll_max: Duration::ZERO, request_timeout: RequestTimeout::Never },
        collect_memory_bytes: 1 << 20,
        collect_spill_dir: directory.path().to_owned(),
    };
    let daemon = Daemon::new(open("memory:", &StoreOptions::default()).unwrap(), options);
    let request = CreateRequest {
        name: volume.clone(),
        size: size(VOLUME_BYTES),
        object_size: ObjectSize::new(1 << 20).unwrap(),
    };
    daemon.create(&request).unwrap();
    let endpoint = Endpoint::Path { path: socket.clone(), owner: SocketOwner { group: None } };
    daemon
        .attach(AttachRequest {
            volume: volume.clone(),
            endpoint,
            queues: 1,
            access: Access::ReadWrite,
            request_timeout: None,
        })
        .unwrap();
    let (mut machine, channel) = machine_over(UnixStream::connect(socket).unwrap());
    assert_eq!(write(&machine, END - 2, 7), OK);
    let job = Job::default();
    job.cancel();

    let shrink = ResizeRequest { volume, size: size(VOLUME_BYTES / 2), shrink: Shrink::Allow };
    assert!(daemon.resize(&shrink, &job).is_err());

    assert!(is_told(&channel));
    assert_eq!(capacity(&mut machine), END);
    drop(machine);
    assert!(daemon.stop().is_empty());
}
