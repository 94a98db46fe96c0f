//! What reads see.

use crate::subject::{Subject, buffer, data, dirty, pattern, read, write};
use archvhost::store::{Buffer, Durability, ObjectName, Space, StoreErrorKind};
use std::sync::{Arc, Mutex};

const BLOCK: u64 = 4 << 20;

pub(crate) fn what_was_written_is_read(subject: &Subject) {
    subject.run(|io| async move {
        io.create(data(1), 8192, buffer(1, 4096), BLOCK).await?;
        write(&io, data(1), 65536, &pattern(2, 12288)).await?;
        write(&io, data(1), 69632, &pattern(3, 4096)).await?;
        assert_eq!(read(&io, data(1), 8192, 4096).await?, pattern(1, 4096));
        let mut expected = pattern(2, 12288);
        expected[4096..8192].copy_from_slice(&pattern(3, 4096));
        assert_eq!(read(&io, data(1), 65536, 12288).await?, expected);
        Ok(())
    });
}

pub(crate) fn what_was_never_written_reads_as_zeros(subject: &Subject) {
    subject.run(|io| async move {
        io.create(data(1), 8192, buffer(1, 4096), BLOCK).await?;
        assert_eq!(read(&io, data(1), 0, 8192).await?, vec![0; 8192]);
        assert_eq!(read(&io, data(1), BLOCK - 4096, 4096).await?, vec![0; 4096]);
        let across_the_end = read(&io, data(1), 8192, 16384).await?;
        assert_eq!(across_the_end[..4096], pattern(1, 4096));
        assert_eq!(across_the_end[4096..], vec![0; 12288]);
        Ok(())
    });
}

pub(crate) fn any_offset_and_length_is_served(subject: &Subject) {
    subject.run(|io| async move {
        io.create(data(1), 0, buffer(1, 16384), BLOCK).await?;
        let mut expected = pattern(1, 16384);
        for (offset, len) in [(512, 512), (4096 - 512, 1024), (1, 1), (5000, 3000), (0, 513), (16384 - 7, 7)] {
            let bytes = pattern(u8::try_from(offset % 251).unwrap(), len);
            write(&io, data(1), u64::try_from(offset).unwrap(), &bytes).await?;
            expected[offset..offset + len].copy_from_slice(&bytes);
            assert_eq!(read(&io, data(1), u64::try_from(offset).unwrap(), len).await?, bytes, "{offset} {len}");
        }
        assert_eq!(read(&io, data(1), 0, 16384).await?, expected);
        assert_eq!(read(&io, data(1), 3, 16380).await?, expected[3..16383]);
        Ok(())
    });
}

pub(crate) fn scattered_and_unaligned_memory_is_served(subject: &Subject) {
    subject.run(|io| async move {
        let whole = Buffer::zeroed(65536);
        for pieces in
            [&[(0, 512), (4096, 1536), (9000, 2048)][..], &[(1, 4096)], &[(7, 100), (200, 3996)], &[(16, 8192)]]
        {
            let segments: Vec<_> =
                pieces.iter().flat_map(|(at, len)| whole.slice(*at, *len).segments().to_vec()).collect();
            let keep: Arc<dyn std::any::Any + Send + Sync> = Arc::new(Mutex::new(whole.slice(0, whole.len())));
            #[allow(unsafe_code, reason = "scattered buffers can only be made from raw segments")]
            // SAFETY: the segments lie in `whole`, which `keep` keeps alive.
            let scattered = unsafe { Buffer::from_segments(segments.into_iter(), keep) };
            let bytes = pattern(9, scattered.len());
            scattered.copy_in(0, &bytes);
            let object = data(u64::try_from(pieces[0].0).unwrap());
            io.create(object.clone(), 4096, scattered.slice(0, scattered.len()), BLOCK).await?;
            scattered.fill_zero(0, scattered.len());
            let back = io.read(object, 4096, scattered).await?;
            assert_eq!(back.to_vec(), bytes, "{pieces:?}");
        }
        Ok(())
    });
}

pub(crate) fn a_read_of_what_does_not_exist_is_not_found(subject: &Subject) {
    subject.run(|io| async move {
        for object in [data(404), crate::subject::name("nobody"), crate::subject::header(crate::subject::volume(9), 1)]
        {
            missing(io.read(object.clone(), 0, dirty(4096)).await, &object);
            missing(io.stat(object.clone()).await, &object);
        }
        missing(io.write(data(404), 0, buffer(1, 512), Durability::Cached).await, &data(404));
        missing(io.zero(data(404), 0, 512, Space::Free).await, &data(404));
        missing(io.read(data(404), 0, dirty(512)).await, &data(404));
        Ok(())
    });
}

fn missing<T>(result: Result<T, archvhost::store::StoreError>, object: &ObjectName) {
    let error = result.err().unwrap_or_else(|| panic!("{object} exists"));
    assert_eq!(error.kind(), StoreErrorKind::NotFound, "{error}");
}

pub(crate) fn zeroed_ranges_read_as_zeros(subject: &Subject) {
    subject.run(|io| async move {
        for (block, space) in [(1, Space::Free), (2, Space::Keep)] {
            io.create(data(block), 0, buffer(1, 65536), BLOCK).await?;
            io.zero(data(block), 4096, 8192, space).await?;
            io.zero(data(block), 20000, 512, space).await?;
            io.zero(data(block), 65000, 100_000, space).await?;
            let mut expected = pattern(1, 65536);
            expected[4096..12288].fill(0);
            expected[20000..20512].fill(0);
            expected[65000..].fill(0);
            assert_eq!(read(&io, data(block), 0, 65536).await?, expected);
            write(&io, data(block), 4096, &pattern(5, 4096)).await?;
            assert_eq!(read(&io, data(block), 4096, 4096).await?, pattern(5, 4096));
        }
        Ok(())
    });
}

pub(crate) fn empty_operations_succeed(subject: &Subject) {
    subject.run(|io| async move {
        io.create(data(1), 0, Buffer::zeroed(0), BLOCK).await?;
        write(&io, data(1), 100, &[]).await?;
        assert!(read(&io, data(1), 5, 0).await?.is_empty());
        io.zero(data(1), 0, 0, Space::Free).await?;
        assert_eq!(read(&io, data(1), 0, 512).await?, vec![0; 512]);
        io.sync(Vec::new()).await
    });
}

pub(crate) fn large_transfers_are_whole(subject: &Subject) {
    subject.run(|io| async move {
        let bytes = pattern(3, 4 << 20);
        io.create(data(1), 0, Buffer::copied_from(&bytes), BLOCK).await?;
        assert_eq!(read(&io, data(1), 0, 4 << 20).await?, bytes);
        Ok(())
    });
}
