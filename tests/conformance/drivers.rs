//! Which drivers there are, and the list of promises run against each.

use crate::subject::Subject;
use archvhost::store::faulty::FaultyStore;
use archvhost::store::memory::MemoryStore;
use archvhost::store::metered::MeteredStore;
use archvhost::store::open::{CacheMode, IoMethod, StoreOptions};
use std::sync::Arc;

/// Tests for one driver: each promise gets a store of its own.
macro_rules! driver {
    ($driver:ident, $make:expr) => {
        driver!($driver, $make,
            what_was_written_is_read,
            what_was_never_written_reads_as_zeros,
            any_offset_and_length_is_served,
            scattered_and_unaligned_memory_is_served,
            a_read_of_what_does_not_exist_is_not_found,
            zeroed_ranges_read_as_zeros,
            empty_operations_succeed,
            large_transfers_are_whole,
            a_name_is_created_once,
            a_removed_object_is_not_found_and_removing_again_is_no_error,
            syncs_cover_any_number_of_objects,
            a_durable_write_says_so,
            data_comes_by_epoch_and_block,
            a_completed_write_is_seen_on_every_channel,
            a_removal_is_seen_on_every_channel,
            dropped_futures_leave_nothing_behind,
            a_channel_closed_with_operations_in_flight_ends_them,
            ; metadata
        );
    };
    ($driver:ident, $make:expr, $($promise:ident,)* ; metadata) => {
        driver!($driver, $make, $($promise,)*
            an_exclusive_publication_meets_what_is_there,
            a_replacement_is_whole_and_exact,
            readers_see_the_old_or_the_new_object,
            of_racing_exclusive_publications_one_wins,
            names_come_in_order_whatever_the_page,
            each_volume_with_a_header_is_listed_once,
            metadata_comes_by_kind_and_number,
            a_volume_has_one_holder,
            a_volume_has_many_readers_or_one_holder,
            who_passes_by_gets_a_free_lock_and_takes_none_away,
            a_record_outlives_its_holder,
            a_lock_is_seized_from_whom_it_was_meant_to_be,
            a_lease_that_was_cut_off_is_told_so,
            a_record_may_be_replaced_by_its_holder,
            a_channel_with_a_lease_works_and_lets_go_of_it,
            a_signal_before_the_sleep_ends_it,
            a_signal_during_the_sleep_ends_it,
            a_watched_descriptor_may_be_closed_by_its_owner,
            the_waker_ends_a_sleep_from_any_thread,
            a_completion_ends_a_sleep_without_a_kick,
            polling_without_ever_waiting_sees_completions,
            every_operation_completes_once_with_its_buffer,
            ; all
        );
    };
    ($driver:ident, $make:expr, $($promise:ident,)* ; all) => {
        mod $driver {
            use crate::promises;
            $(
                #[test]
                fn $promise() {
                    let subject: Option<crate::subject::Subject> = $make().into();
                    // What a machine lacks, it has said.
                    let Some(subject) = subject else { return };
                    promises::$promise(&subject);
                }
            )*
        }
    };
}

driver!(memory, super::memory_store);
driver!(null, super::null_store, ; metadata);
driver!(faulty_memory, super::faulty_store);
driver!(metered_memory, super::metered_store);
driver!(file_ring, || super::file_store(super::CacheMode::None, super::IoMethod::Auto));
driver!(file_threads, || super::file_store(super::CacheMode::None, super::IoMethod::Threads));
driver!(file_writeback, || super::file_store(super::CacheMode::Writeback, super::IoMethod::Auto));
driver!(file_writeback_threads, || super::file_store(super::CacheMode::Writeback, super::IoMethod::Threads));

driver!(rados, super::rados_store);

fn memory_store() -> Subject {
    Subject::of(Arc::new(MemoryStore::new()))
}

/// Without a fault, the wrapper must not be noticed.
fn faulty_store() -> Subject {
    Subject::of(Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()))))
}

fn metered_store() -> Subject {
    Subject::of(Arc::new(MeteredStore::new(Arc::new(MemoryStore::new()))))
}

fn null_store() -> Subject {
    Subject::of(archvhost::store::open::open("null:1TiB", &StoreOptions::default()).unwrap())
}

fn file_store(cache: CacheMode, method: IoMethod) -> Subject {
    Subject::file(&StoreOptions { cache, method, ..StoreOptions::default() })
}

fn rados_store() -> Option<Subject> {
    Subject::rados()
}
