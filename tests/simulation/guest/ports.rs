//! The short way: requests straight to the volume's ports, one port per queue.

use crate::daemon::{Answer, Failure};
use crate::model::Effect;
use crate::workload::Asked;
use archvhost::store::Buffer;
use archvhost::units::{ByteRange, SECTOR_BYTES};
use archvhost::volume::{Done, Port, Request, Volume, VolumeErrorKind};
use std::ops::Range;
use std::sync::Arc;

pub struct Ports {
    ports: Vec<Port>,
    done: Vec<Done>,
}

impl Ports {
    pub fn open(volume: &Arc<Volume>, queues: usize) -> Result<Self, String> {
        let ports = (0..queues).map(|_| Port::open(volume)).collect::<Result<_, _>>();
        Ok(Self { ports: ports.map_err(|error| error.to_string())?, done: Vec::new() })
    }

    pub fn submit(&mut self, queue: usize, tag: u32, asked: &Asked, content: &[u8]) {
        self.ports[queue].submit(tag, request(asked, content));
    }

    pub fn turn(&mut self, queue: usize, answers: &mut Vec<Answer>) -> bool {
        let moved = self.ports[queue].turn(&mut self.done);
        answers.extend(self.done.drain(..).map(answer));
        moved
    }

    pub fn close(&mut self) {
        self.ports.drain(..).for_each(|port| port.abandon());
    }
}

fn request(asked: &Asked, content: &[u8]) -> Request {
    match asked {
        Asked::Read { sectors } => {
            let range = bytes(sectors);
            Request::Read { range, buffer: Buffer::zeroed(usize::try_from(range.len).expect("small")) }
        }
        Asked::Flush => Request::Flush,
        Asked::Change { effect, sectors, stability, space } => {
            let (range, stability, space) = (bytes(sectors), *stability, *space);
            match effect {
                Effect::Write => Request::Write { range, buffer: Buffer::copied_from(content), stability },
                Effect::Zero => Request::WriteZeroes { range, space, stability },
                Effect::Discard => Request::Discard { range },
            }
        }
    }
}

fn answer(done: Done) -> Answer {
    let data = done.buffer.map(|buffer| buffer.to_vec()).unwrap_or_default();
    let result = done.result.map(|()| data).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Failure { text: format!("{error}{cause}"), is_damage: error.kind() == VolumeErrorKind::Damaged }
    });
    Answer { tag: done.tag, result }
}

fn bytes(sectors: &Range<u64>) -> ByteRange {
    ByteRange::new(sectors.start * SECTOR_BYTES, (sectors.end - sectors.start) * SECTOR_BYTES)
}
