//! Creating, publishing, removing, syncing.

use crate::subject::{Subject, buffer, data, header, journal, name, pattern, read, volume, write};
use archvhost::store::io::block_on;
use archvhost::store::{Buffer, Durability, Persistence, PublishMode, StoreErrorKind};
use std::sync::Barrier;
use std::thread;

const BLOCK: u64 = 1 << 20;

pub(crate) fn a_name_is_created_once(subject: &Subject) {
    subject.run(|io| async move {
        io.create(data(1), 0, buffer(1, 4096), BLOCK).await?;
        let second = io.create(data(1), 0, buffer(2, 4096), BLOCK).await.unwrap_err();
        assert_eq!(second.kind(), StoreErrorKind::Exists);
        assert_eq!(read(&io, data(1), 0, 4096).await?, pattern(1, 4096));
        Ok(())
    });
}

pub(crate) fn a_removed_object_is_not_found_and_removing_again_is_no_error(subject: &Subject) {
    subject.run(|io| async move {
        io.create(data(1), 0, buffer(1, 4096), BLOCK).await?;
        // Often enough for whatever caches to have it.
        for _ in 0..20 {
            read(&io, data(1), 0, 4096).await?;
        }
        io.remove(data(1)).await?;
        assert_eq!(read(&io, data(1), 0, 4096).await.unwrap_err().kind(), StoreErrorKind::NotFound);
        assert_eq!(write(&io, data(1), 0, &[1]).await.unwrap_err().kind(), StoreErrorKind::NotFound);
        io.remove(data(1)).await?;
        io.remove(name("nobody")).await?;
        io.sync(vec![data(1)]).await?;
        io.sync_all().await
    });
}

pub(crate) fn an_exclusive_publication_meets_what_is_there(subject: &Subject) {
    subject.run(|io| async move {
        io.publish(name("web"), b"first", PublishMode::Exclusive).await?;
        let second = io.publish(name("web"), b"second", PublishMode::Exclusive).await.unwrap_err();
        assert_eq!(second.kind(), StoreErrorKind::Exists);
        assert_eq!(io.read_all(name("web")).await?, b"first");
        Ok(())
    });
}

pub(crate) fn a_replacement_is_whole_and_exact(subject: &Subject) {
    subject.run(|io| async move {
        for len in [0, 1, 511, 512, 5000, 70000, 3] {
            io.publish(header(volume(1), 1), &pattern(7, len), PublishMode::Replace).await?;
            assert_eq!(io.stat(header(volume(1), 1)).await?, u64::try_from(len).unwrap());
            assert_eq!(io.read_all(header(volume(1), 1)).await?, pattern(7, len));
        }
        Ok(())
    });
}

pub(crate) fn readers_see_the_old_or_the_new_object(subject: &Subject) {
    const LEN: usize = 20000;
    let publish = |seed: u8| {
        subject.run(|io| async move { io.publish(header(volume(1), 1), &vec![seed; LEN], PublishMode::Replace).await });
    };
    publish(1);
    thread::scope(|scope| {
        let publisher = scope.spawn(|| (2..40).for_each(publish));
        let mut last = 0;
        while !publisher.is_finished() {
            let seen = subject.run(|io| async move { io.read_all(header(volume(1), 1)).await });
            assert_eq!(seen, vec![seen[0]; LEN]);
            assert!(seen[0] >= last, "{} after {last}", seen[0]);
            last = seen[0];
        }
    });
}

pub(crate) fn of_racing_exclusive_publications_one_wins(subject: &Subject) {
    const RACERS: usize = 4;
    for generation in 1..10 {
        let start = Barrier::new(RACERS);
        let race = |racer: usize| {
            start.wait();
            let content = [u8::try_from(racer).unwrap(); 100];
            block_on(&subject.store, None, |io| async move {
                io.publish(header(volume(1), generation), &content, PublishMode::Exclusive).await
            })
        };
        let results: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || race(racer))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winners: Vec<_> = (0..RACERS).filter(|racer| results[*racer].is_ok()).collect();
        let [winner] = winners[..] else { panic!("{results:?}") };
        let losers = results.iter().filter_map(|result| result.as_ref().err());
        assert!(losers.map(|error| error.kind()).all(|kind| kind == StoreErrorKind::Exists));
        let content = subject.run(|io| async move { io.read_all(header(volume(1), generation)).await });
        assert_eq!(content, [u8::try_from(winner).unwrap(); 100]);
    }
}

pub(crate) fn syncs_cover_any_number_of_objects(subject: &Subject) {
    subject.run(|io| async move {
        for count in [1, 3, 4, 5, 40] {
            let objects: Vec<_> = (0..count).map(|block| data(count * 2000 + block * 100)).collect();
            for object in &objects {
                io.create(object.clone(), 0, buffer(1, 4096), BLOCK).await?;
            }
            io.sync(objects.iter().cloned().chain(objects.first().cloned()).collect()).await?;
            for object in &objects {
                assert_eq!(read(&io, object.clone(), 0, 4096).await?, pattern(1, 4096));
            }
        }
        Ok(())
    });
}

pub(crate) fn a_durable_write_says_so(subject: &Subject) {
    subject.run(|io| async move {
        io.publish(journal(volume(1), 1, 0), &[0; 65536], PublishMode::Exclusive).await?;
        for (offset, len) in [(0, 4096), (4096, 512), (8192, 100)] {
            let bytes = pattern(4, len);
            let written = io.write(journal(volume(1), 1, 0), offset, Buffer::copied_from(&bytes), Durability::Durable);
            assert_eq!(written.await?, Persistence::Durable);
            assert_eq!(read(&io, journal(volume(1), 1, 0), offset, len).await?, bytes);
        }
        io.create(data(1), 0, buffer(1, 4096), BLOCK).await?;
        let written = io.write(data(1), 0, buffer(2, 4096), Durability::Durable).await?;
        assert_eq!(written, Persistence::Durable);
        Ok(())
    });
}
