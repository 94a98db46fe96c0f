//! Order and pages of listings.

use crate::subject::{Subject, buffer, data_of, header, journal, name, segment, volume};
use archvhost::store::io::Io;
use archvhost::store::{ListScope, ObjectName, PublishMode, StoreError};

/// The whole listing, in pages of `limit`.
async fn pages(io: &Io, scope: ListScope, limit: usize) -> Result<Vec<ObjectName>, StoreError> {
    let mut names = Vec::new();
    loop {
        let page = io.list(scope, names.last().cloned(), limit).await?;
        assert!(page.len() <= limit);
        let ended = page.len() < limit;
        names.extend(page);
        if ended {
            return Ok(names);
        }
    }
}

async fn expect(io: &Io, scope: ListScope, expected: &[ObjectName]) -> Result<(), StoreError> {
    for limit in [1, 2, 3, 1000] {
        assert_eq!(pages(io, scope, limit).await?, expected, "{scope:?} in pages of {limit}");
    }
    Ok(())
}

pub(crate) fn names_come_in_order_whatever_the_page(subject: &Subject) {
    subject.run(|io| async move {
        expect(&io, ListScope::Names, &[]).await?;
        for text in ["web2", "db", "web10", "a", "Z"] {
            io.publish(name(text), b"x", PublishMode::Exclusive).await?;
        }
        io.publish(header(volume(1), 1), b"x", PublishMode::Exclusive).await?;
        let expected = ["Z", "a", "db", "web10", "web2"].map(name);
        expect(&io, ListScope::Names, &expected).await?;
        io.remove(name("db")).await?;
        expect(&io, ListScope::Names, &["Z", "a", "web10", "web2"].map(name)).await
    });
}

pub(crate) fn each_volume_with_a_header_is_listed_once(subject: &Subject) {
    subject.run(|io| async move {
        for (id, generation) in [(3, 2), (1, 10), (1, 9), (2, 1), (3, 11)] {
            io.publish(header(volume(id), generation), b"x", PublishMode::Exclusive).await?;
        }
        io.publish(journal(volume(4), 1, 0), b"x", PublishMode::Exclusive).await?;
        io.create(data_of(volume(5), 1, 0), 0, buffer(1, 512), 1 << 20).await?;
        for limit in [1, 2, 100] {
            let volumes: Vec<_> =
                pages(&io, ListScope::Volumes, limit).await?.iter().filter_map(ObjectName::volume).collect();
            assert_eq!(volumes, [1, 2, 3].map(volume));
        }
        Ok(())
    });
}

pub(crate) fn metadata_comes_by_kind_and_number(subject: &Subject) {
    subject.run(|io| async move {
        let one = volume(1);
        let expected = [
            header(one, 9),
            header(one, 10),
            journal(one, 9, 2),
            journal(one, 9, 10),
            journal(one, 10, 0),
            segment(one, 2, 7),
            segment(one, 10, 1),
        ];
        for object in expected.iter().rev() {
            io.publish(object.clone(), b"x", PublishMode::Exclusive).await?;
        }
        io.publish(header(volume(2), 1), b"x", PublishMode::Exclusive).await?;
        io.create(data_of(one, 1, 0), 0, buffer(1, 512), 1 << 20).await?;
        expect(&io, ListScope::Metadata(one), &expected).await?;
        expect(&io, ListScope::Metadata(volume(7)), &[]).await
    });
}

pub(crate) fn data_comes_by_epoch_and_block(subject: &Subject) {
    subject.run(|io| async move {
        let one = volume(1);
        let expected = [
            data_of(one, 1, 5),
            data_of(one, 1, 1023),
            data_of(one, 1, 1024),
            data_of(one, 1, 0x1_0000_0000),
            data_of(one, 2, 0),
            data_of(one, 16, 5),
            data_of(one, 255, 5),
        ];
        for object in expected.iter().rev() {
            io.create(object.clone(), 0, buffer(1, 512), 1 << 20).await?;
        }
        io.create(data_of(volume(2), 1, 0), 0, buffer(1, 512), 1 << 20).await?;
        expect(&io, ListScope::Data(one), &expected).await?;
        io.remove(expected[2].clone()).await?;
        let left: Vec<_> = expected.iter().filter(|object| **object != expected[2]).cloned().collect();
        expect(&io, ListScope::Data(one), &left).await?;
        expect(&io, ListScope::Data(volume(7)), &[]).await
    });
}
