//! Many operations at once, on one channel and on several.

use crate::subject::{Subject, buffer, data, dirty, pattern, read};
use archvhost::store::io::block_on;
use archvhost::store::{Buffer, Durability, Op, Token};
use std::collections::HashSet;
use std::thread;

const BLOCK: u64 = 1 << 20;

pub(crate) fn every_operation_completes_once_with_its_buffer(subject: &Subject) {
    const COUNT: u64 = 3000;
    let mut channel = subject.store.channel(None).unwrap();
    let mut done = Vec::new();
    for token in 0..COUNT {
        let (object, offset) = (data(token % 7), token / 7 % 200 * 4096);
        let op = match token {
            0..7 => Op::Create { object, offset: 0, buffer: buffer(1, 4096), size: BLOCK },
            _ if token % 2 == 0 => Op::Read { object, offset, buffer: dirty(4096) },
            _ => Op::Write { object, offset, buffer: buffer(1, 4096), durability: Durability::Cached },
        };
        channel.submit(Token(token), op);
        if token == 6 {
            while channel.in_flight() != 0 {
                channel.wait(None);
                channel.reap(&mut done);
            }
        }
    }
    assert_eq!(channel.in_flight() + done.len(), usize::try_from(COUNT).unwrap());
    while channel.in_flight() != 0 {
        channel.wait(None);
        channel.reap(&mut done);
    }
    let tokens: HashSet<_> = done.iter().map(|completion| completion.token.0).collect();
    assert_eq!((tokens.len(), done.len()), (usize::try_from(COUNT).unwrap(), usize::try_from(COUNT).unwrap()));
    for completion in done {
        completion.result.unwrap();
        assert_eq!(completion.buffer.unwrap().len(), 4096);
    }
}

pub(crate) fn a_completed_write_is_seen_on_every_channel(subject: &Subject) {
    const THREADS: u64 = 4;
    thread::scope(|scope| {
        for number in 0..THREADS {
            scope.spawn(move || {
                let seed = u8::try_from(number).unwrap();
                let created = block_on(&subject.store, None, |io| async move {
                    for block in (0..20).map(|block| number * 100 + block) {
                        io.create(data(block), 0, buffer(seed, 8192), BLOCK).await?;
                        io.write(data(block), 4096, buffer(seed + 1, 4096), Durability::Cached).await?;
                    }
                    Ok::<_, archvhost::store::StoreError>(())
                });
                created.unwrap();
            });
        }
    });
    subject.run(|io| async move {
        for number in 0..THREADS {
            let seed = u8::try_from(number).unwrap();
            for block in (0..20).map(|block| number * 100 + block) {
                let seen = read(&io, data(block), 0, 8192).await?;
                assert_eq!(seen[..4096], pattern(seed, 8192)[..4096]);
                assert_eq!(seen[4096..], pattern(seed + 1, 4096));
            }
        }
        Ok(())
    });
}

pub(crate) fn a_removal_is_seen_on_every_channel(subject: &Subject) {
    let mut reader = subject.store.channel(None).unwrap();
    subject.run(|io| async move { io.create(data(1), 0, buffer(1, 4096), BLOCK).await });
    let mut read_once = |expected_ok: bool| {
        let mut done = Vec::new();
        reader.submit(Token(1), Op::Read { object: data(1), offset: 0, buffer: Buffer::zeroed(4096) });
        while done.is_empty() {
            reader.wait(None);
            reader.reap(&mut done);
        }
        assert_eq!(done[0].result.is_ok(), expected_ok);
    };
    (0..10).for_each(|_| read_once(true));
    subject.run(|io| async move { io.remove(data(1)).await });
    read_once(false);
}

pub(crate) fn dropped_futures_leave_nothing_behind(subject: &Subject) {
    subject.run(|io| async move {
        io.create(data(1), 0, buffer(1, 65536), BLOCK).await?;
        for offset in 0..200 {
            drop(io.run(Op::Read { object: data(1), offset: offset * 512, buffer: dirty(512) }));
            drop(io.run(Op::Read { object: data(404), offset: 0, buffer: dirty(4096) }));
        }
        assert_eq!(read(&io, data(1), 0, 65536).await?, pattern(1, 65536));
        while io.in_flight() != 0 {
            io.wait(None);
            io.reap(&mut Vec::new());
        }
        Ok(())
    });
}

pub(crate) fn a_channel_closed_with_operations_in_flight_ends_them(subject: &Subject) {
    subject.run(|io| async move { io.create(data(1), 0, buffer(1, 65536), BLOCK).await });
    let mut channel = subject.store.channel(None).unwrap();
    for token in 0..100 {
        channel.submit(Token(token), Op::Read { object: data(token % 2), offset: 0, buffer: dirty(65536) });
    }
    drop(channel);
    let seen = subject.run(|io| async move { read(&io, data(1), 0, 65536).await });
    assert_eq!(seen, pattern(1, 65536));
}
